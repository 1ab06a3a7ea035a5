"""``Idempotency-Key``: a POST that is sent again gets the first answer and changes nothing.

Must never store a secret: what a route shows once is answered by a problem the second time.
"""

import asyncio
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import Engine, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from gateway.admin.parts import parts_of
from gateway.admin.problems import PROBLEM_TYPE, RequestRefused, to_problem
from gateway.clock import epoch_us
from gateway.ledger.store import store_errors
from gateway.tables import idempotency

KEY_CHARS_MAX: Final = 255
KEPT_US: Final = 24 * 3600 * 1_000_000
# A process that died between claiming a key and storing its answer leaves the claim behind. After
# this long a repeat may try again; every POST names what it makes, so it cannot be made twice.
CLAIM_US_MAX: Final = 60 * 1_000_000
_CLAIMED: Final = 0
_STILL_OPEN: Final = "the first request with this Idempotency-Key is still open; try again later"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer as kept for a repeat.

    Attributes:
        status: HTTP status.
        body: JSON text without secrets.
    """

    status: int
    body: str


class AnswerStore:
    """Answers by ``Idempotency-Key``. Every method waits for the database."""

    def __init__(self, engine: Engine) -> None:
        """Open the store.

        Args:
            engine: Of the ledger database.
        """
        self._engine = engine

    def claim(self, key: str, digest: str, now_us: int) -> StoredAnswer | None:
        """Take a key for a request, or find what it was answered.

        Args:
            key: As the client sent it.
            digest: SHA-256 of the request.
            now_us: Microseconds since 1970.

        Returns:
            The first answer; ``None`` when there is none and the request is to be carried out.

        Raises:
            RequestRefused: The key was used for another request, or the first one is still open.
            StoreUnavailable: The database cannot be reached.
        """
        table = idempotency.c
        with store_errors(), self._engine.begin() as connection:
            connection.execute(delete(idempotency).where(table.created_at_us < now_us - KEPT_US))
            abandoned = (table.status == _CLAIMED) & (table.created_at_us < now_us - CLAIM_US_MAX)
            connection.execute(delete(idempotency).where(abandoned))
            make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            claim = make(idempotency).values(
                key=key, request_sha256=digest, created_at_us=now_us, status=_CLAIMED, body=""
            )
            # Waits for another worker that is about to claim the same key.
            claimed = claim.on_conflict_do_nothing().returning(table.key)
            if connection.execute(claimed).scalar_one_or_none() is not None:
                return None
            # Gone again where that one gave it back, as its request was not carried out.
            found = connection.execute(select(idempotency).where(table.key == key)).one_or_none()
        if found is None:
            raise RequestRefused(409, "idempotency_key_in_use", _STILL_OPEN)
        if found.request_sha256 != digest:
            detail = "this Idempotency-Key was used for another request; use a new one"
            raise RequestRefused(422, "idempotency_key_reused", detail)
        if found.status == _CLAIMED:
            raise RequestRefused(409, "idempotency_key_in_use", _STILL_OPEN)
        return StoredAnswer(status=found.status, body=found.body)

    def keep(self, key: str, answer: StoredAnswer) -> None:
        """Store the answer of a request that was carried out.

        Args:
            key: Claimed before.
            answer: Without secrets.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        change = update(idempotency).where(idempotency.c.key == key)
        with store_errors(), self._engine.begin() as connection:
            connection.execute(change.values(status=answer.status, body=answer.body))

    def forget(self, key: str) -> None:
        """Give a key back whose request was not carried out.

        Args:
            key: Claimed before.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._engine.begin() as connection:
            connection.execute(delete(idempotency).where(idempotency.c.key == key))


class ReplayRoute(APIRoute):
    """A route whose POSTs honour ``Idempotency-Key``. Only successes are kept."""

    def to_stored(self, answer: StoredAnswer) -> StoredAnswer:
        """Choose what a repeat is answered.

        Args:
            answer: The first answer, a success.

        Returns:
            The same answer.
        """
        return answer

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the router calls this, behind the door of ``/api/v1``.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.

        Raises:
            RequestRefused: The key cannot be used for this request.
        """
        key = Headers(scope=scope).get("idempotency-key")
        if scope["method"] != "POST" or key is None:
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive)
        parts = parts_of(request)
        store = AnswerStore(parts.engine)
        now_us = epoch_us(parts.clock.now())
        digest = await _request_digest(request)
        stored = await asyncio.to_thread(store.claim, _checked(key), digest, now_us)
        if stored is not None:
            await _to_response(stored)(scope, receive, send)
            return
        first = _Recording()
        try:
            await super().handle(scope, _replay(await request.body(), receive), first.send)
        finally:
            answer = first.answer()
            if answer is not None and answer.status < 400:
                await asyncio.to_thread(store.keep, key, self.to_stored(answer))
            else:
                await asyncio.to_thread(store.forget, key)
        # Sent only now: a client that has its answer can rely on the repeat.
        for message in first.messages:
            await send(message)


class SecretOnceRoute(ReplayRoute):
    """A route whose answer holds a secret that is shown once."""

    def to_stored(self, answer: StoredAnswer) -> StoredAnswer:
        """Keep a problem instead of the answer.

        Args:
            answer: The first answer, a success.

        Returns:
            A conflict that says that the key exists and its secret was shown. An answer without
            the secret would look like a success, and an application would go live without a key.
        """
        shown_id = msgspec.json.decode(answer.body)["id"]
        detail = (
            f"the key {shown_id} exists already; its secret was shown once, in the first answer. "
            "If that answer was lost, delete the key and create another"
        )
        problem = to_problem(409, detail, "secret_shown_once")
        return StoredAnswer(status=409, body=msgspec.json.encode(problem).decode())


@dataclass(slots=True)
class _Recording:
    """The messages of one answer, held back."""

    messages: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    def answer(self) -> StoredAnswer | None:
        """Read the answer; ``None`` when it is not complete."""
        if not self.messages or self.messages[-1].get("more_body", False):
            return None
        body = b"".join(message.get("body", b"") for message in self.messages)
        return StoredAnswer(status=self.messages[0]["status"], body=body.decode())


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already once more, then what follows it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _to_response(stored: StoredAnswer) -> Response:
    return Response(
        stored.body,
        status_code=stored.status,
        media_type="application/json" if stored.status < 400 else PROBLEM_TYPE,
        headers={"idempotency-replayed": "true"},
    )


async def _request_digest(request: Request) -> str:
    hashed = sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    hashed.update(await request.body())
    return hashed.hexdigest()


def _checked(key: str) -> str:
    if 1 <= len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable():
        return key
    detail = f"Idempotency-Key has 1 to {KEY_CHARS_MAX} printable ASCII characters"
    raise RequestRefused(400, "invalid_request", detail)
