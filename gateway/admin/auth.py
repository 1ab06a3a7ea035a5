"""The door of ``/api/v1``: the admin token, and how much may be carried through.

Must never let a request near a route, or a stored answer, before its token was compared.
"""

from hashlib import sha256
from hmac import compare_digest
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.problems import problem_response, to_problem

API_PREFIX: Final = "/api/v1"
BODY_BYTES_MAX: Final = 4 * 1024 * 1024


class AdminDoor:
    """Middleware that asks for the admin token and bounds bodies under ``/api/v1``."""

    def __init__(self, app: ASGIApp, *, token: str, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        """Guard an app.

        Args:
            app: What is behind the door.
            token: The admin token.
            body_bytes_max: Largest request body.
        """
        self._app = app
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
        if not self._is_admin(headers):
            detail = "send the admin token: Authorization: Bearer <token>"
            response = problem_response(to_problem(401, detail), {"www-authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        if _declared_bytes(headers) > self._body_bytes_max:
            await problem_response(to_problem(413, self._too_large))(scope, receive, send)
            return
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


def _declared_bytes(headers: Headers) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
