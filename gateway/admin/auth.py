"""The door of ``/api/v1``: the admin token, and how much may be carried through.

Usage of its own a virtual key may tell too, with ``ingest``.

Must never let a request near a route, or a stored answer, before its token was compared.
"""

import os
import secrets
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.problems import problem_response, to_problem
from gateway.callers import Caller
from gateway.settings import Settings

API_PREFIX: Final = "/api/v1"
# What virtual keys open as well, each for itself alone.
_FOR_KEYS: Final = frozenset({f"{API_PREFIX}/ingest", f"{API_PREFIX}/ingest/v1/traces"})
BODY_BYTES_MAX: Final = 4 * 1024 * 1024


class AdminDoor:
    """Middleware that asks for the admin token and bounds bodies under ``/api/v1``."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        find_caller: Callable[[str], Caller | None],
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        """Guard an app.

        Args:
            app: What is behind the door.
            token: The admin token.
            find_caller: Finds who holds the secret of a virtual key.
            body_bytes_max: Largest request body.
        """
        self._app = app
        self._find_caller = find_caller
        # Digests are equally long, so that comparing them tells nothing about the token's length.
        self._token_digest = sha256(token.encode()).digest()
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; ASGI calls this."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == API_PREFIX or path.startswith(f"{API_PREFIX}/")):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        caller = None
        is_admin = self._is_admin(headers)
        if not is_admin and path in _FOR_KEYS:
            caller = self._find_caller(_bearer_of(headers))
        if not is_admin and caller is None:
            detail = "send the admin token: Authorization: Bearer <token>"
            response = problem_response(to_problem(401, detail), {"www-authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        if _declared_bytes(headers) > self._body_bytes_max:
            await problem_response(to_problem(413, self._too_large))(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, self._counted(receive), send)

    def _is_admin(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = sha256(given.strip().encode("utf-8", "surrogatepass")).digest()
        return compare_digest(digest, self._token_digest) and scheme.lower() == "bearer"

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def receive_counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._body_bytes_max:
                raise HTTPException(413, self._too_large)
            return message

        return receive_counted

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self._body_bytes_max} bytes"


def caller_of(request: Request) -> Caller | None:
    """Tell who a request behind the door is from.

    Args:
        request: Any.

    Returns:
        The owner of the virtual key; ``None`` for the administrator.
    """
    caller: Caller | None = request.state.caller
    return caller


def _bearer_of(headers: Headers) -> str:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _declared_bytes(headers: Headers) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def admin_token_of(settings: Settings) -> tuple[str, bool]:
    """Find what opens the control plane, making it at the first start.

    Args:
        settings: The configured token wins.

    Returns:
        The token, and whether it was made just now. A made one is kept beside the journal,
        readable by the owner alone.
    """
    if settings.server.admin_token is not None:
        return settings.server.admin_token.get_secret_value(), False
    path = settings.storage.journal_dir.parent / "admin-token"
    if path.exists():
        return path.read_text("ascii").strip(), False
    token = "tm-admin-" + secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(token + "\n")
    return token, True
