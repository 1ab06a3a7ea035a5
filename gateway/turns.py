"""The responses of one session: each held, written down, metered and settled like a call.

Must never let a response pass without a record, nor end one twice.
"""

import logging
from collections import deque
from functools import partial
from typing import Final

import msgspec

from gateway.admission import NO_DEMAND, OpenCall
from gateway.call import CallPath
from gateway.client import Client
from gateway.ending import Ending
from gateway.headers import RawHeaders
from gateway.ledger.record import Outcome
from gateway.refusals import BudgetRefused, InvalidRequest, Refusal
from gateway.relief import Leaving
from gateway.wire.facts import Asked, BadRequest, RequestFacts
from gateway.wire.live import (
    Aside,
    Asks,
    Begun,
    Conversation,
    Failed,
    Finished,
    Frame,
    Tells,
    bytes_of,
)

log = logging.getLogger("taximeter.call")

# What the client of a session was answered.
_SWITCHED: Final = 101
# Responses open at once in one session.
OPEN_MAX: Final = 64
# What is kept of the user's words between two responses; what is longer is not counted.
WORDS_BYTES_MAX: Final = 256 << 10


class Turns:
    """Opens and ends the responses of one session.

    Attributes:
        parting: How the session ended, once it did; responses that end after that ended so.
        wait_gone: Waits until the client has left the session; ``None`` before it began.
    """

    def __init__(
        self, path: CallPath, client: Client, handshake: OpenCall, conversation: Conversation
    ) -> None:
        """Begin.

        Args:
            path: The steps of a call.
            client: Its headers have the key, the tags and the user.
            handshake: Routed; every response goes where it went.
            conversation: Knows the responses.
        """
        self.parting: Outcome | None = None
        self.wait_gone: Leaving | None = None
        self._path = path
        self._client = client
        self._handshake = handshake
        self._conversation = conversation
        self._asked_for: deque[tuple[str | None, OpenCall]] = deque()
        self._running: dict[str, OpenCall] = {}
        self._spare: OpenCall | None = None
        self._words: list[bytes] = []
        self._words_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether no response is open."""
        return not self._asked_for and not self._running

    @property
    def keys(self) -> list[str]:
        """What the provider calls the responses that are open."""
        return list(self._running)

    async def check(self) -> RawHeaders:
        """Make sure that a response would be let in.

        Returns:
            How the budgets stand of which it would take.

        Raises:
            Refusal: It would not.
        """
        facts = self._conversation.facts
        if not facts.model:
            return []
        call = self._open(facts, None)
        self._identify(call)
        try:
            await self._hold(call)
        except BudgetRefused as refused:
            await self._path.relief.hold_least(call, refused)
        self._release(call)
        return self._path.told(call)

    async def ask(self, asks: Asks, frame: Frame) -> Frame:
        """Let in what a client's frame asks for, before it is sent.

        Args:
            asks: What was read of it.
            frame: As it came.

        Returns:
            The frame to send: the same, or with a limit of the output where only that fits.

        Raises:
            Refusal: It is not let in; nothing is held for it.
            ClientGone: The client has left while it was to wait.
        """
        for model in asks.further_models:
            await self._check_further(model)
        if asks.facts is not None and not asks.is_begun and self._spare is None:
            self._spare = await self._let_in(asks.facts, None)
        if asks.facts is None or not asks.is_begun:
            self._remember(asks, frame)
            return frame
        if len(self._asked_for) + len(self._running) >= OPEN_MAX:
            raise InvalidRequest(f"{OPEN_MAX} responses are open: wait for them to end")
        call = self._take_spare(asks.facts)
        if call is None:
            call = await self._let_in(asks.facts, frame)
            frame = _as_frame(call.asked.body, frame)
        self._remember(asks, frame)
        self._send(call)
        self._count_words(call)
        self._asked_for.append((asks.event, call))
        return frame

    async def tell(self, tells: Tells) -> None:
        """Take in what a provider's frame tells, before it is passed on.

        Args:
            tells: What was read of it.

        Raises:
            Refusal: The provider began something by itself that is not let in, or a record could
                not be written: the session is to be cut.
        """
        match tells:
            case Begun(key=key):
                await self._find(key)
            case Finished(key=key, answer=answer):
                call = await self._find(key)
                del self._running[key]
                call.answer = answer
                outcome: Outcome = "upstream_error" if answer.is_error else "ok"
                await self._end(call, self.parting or outcome, is_billable=True)
            case Failed(event=event):
                await self._fail(event)
            case Aside(facts=facts, answer=answer):
                call = await self._admit_anyway(facts)
                call.answer = answer
                await self._end(call, "ok", is_billable=True)

    async def end_all(self, outcome: Outcome) -> None:
        """End the responses that will not end by themselves any more.

        Args:
            outcome: How.
        """
        for key, call in list(self._running.items()):
            del self._running[key]
            call.answer = self._conversation.open_answer(key)
            await self._end(call, outcome, is_billable=True)
        while self._asked_for:
            _, call = self._asked_for.popleft()
            call.answer = self._conversation.open_answer("")
            await self._end(call, outcome, is_billable=True)
        self._drop_spare()

    def abort(self) -> None:
        """End what is open without waiting for anything."""
        for call in (*self._running.values(), *(call for _, call in self._asked_for)):
            if not call.is_settled:
                call.is_settled = True
                self._path.endings.abort(call)
        self._running.clear()
        self._asked_for.clear()
        self._drop_spare()

    async def _find(self, key: str) -> OpenCall:
        """Find the response of a name: one that was asked for, or that could have begun."""
        call = self._running.get(key)
        if call is not None:
            return call
        if self._asked_for:
            _, call = self._asked_for.popleft()
        else:
            spare, self._spare = self._spare, None
            if spare is None:
                call = await self._admit_anyway(self._conversation.facts)
            else:
                call = spare
                self._send(call)
                self._count_words(call)
        self._running[key] = call
        return call

    async def _fail(self, event: str | None) -> None:
        """End the response that an error was about: the one it names, else the oldest."""
        for index, (asked, call) in enumerate(self._asked_for):
            if event is None or asked == event:
                del self._asked_for[index]
                await self._end(call, "upstream_error", is_billable=False)
                return

    async def _let_in(self, facts: RequestFacts, frame: Frame | None) -> OpenCall:
        """Let a response in, or record that it was refused."""
        call = self._open(facts, frame)
        try:
            self._identify(call)
            if self._path.budgets.is_pacing:
                await self._path.relief.pace(call, self._client, self.wait_gone)
            try:
                return await self._hold(call)
            except BudgetRefused as refused:
                if frame is None:
                    raise
                await self._path.relief.find_cap(call, refused, partial(self._read, frame))
                return call
        except Refusal as refusal:
            self._path.record_refusal(call, refusal)
            raise

    def _read(self, frame: Frame, body: bytes) -> RequestFacts:
        """Read a frame with a limit in it, and leave the conversation as the first one did."""
        try:
            facts = self._conversation.read_client(_as_frame(body, frame)).facts
        finally:
            self._conversation.read_client(frame)
        if facts is None:
            raise BadRequest("a frame with a limit in it asks for nothing")
        return facts

    def _identify(self, call: OpenCall) -> None:
        """Go with a response through the first steps of a call."""
        admission = self._path.admission
        admission.identify(call, self._client)
        assert call.caller is not None
        assert call.provider is not None
        assert call.facts is not None
        admission.check_allowed(call.caller, call.provider.id, call.model, call.facts)
        admission.tag(call, self._client)

    async def _hold(self, call: OpenCall) -> OpenCall:
        admission = self._path.admission
        admission.price(call)
        await admission.hold(call)
        return call

    async def _admit_anyway(self, facts: RequestFacts) -> OpenCall:
        """Let in what has begun already, whatever it comes to: it is spent, and has a record."""
        call = self._open(facts, None)
        admission = self._path.admission
        call.caller = self._handshake.caller
        admission.tag(call, self._client)
        admission.price(call)
        try:
            await admission.hold(call)
        except BudgetRefused as refused:
            call.flags.append("it had begun before it could be refused")
            await admission.hold(call, NO_DEMAND)
            log.warning("begun without room id=%s budget=%s", call.id, refused.exhausted.budget.id)
        self._send(call)
        return call

    def _open(self, facts: RequestFacts, frame: Frame | None) -> OpenCall:
        call = self._path.open(self._client)
        first = self._handshake
        call.surface, call.format, call.path = first.surface, first.format, first.path
        call.provider, call.caller = first.provider, first.caller
        call.asked = first.asked if frame is None else Asked(body=bytes_of(frame))
        call.book = self._path.admission.prices.at(call.at)
        call.facts = facts
        call.model = facts.model
        return call

    def _send(self, call: OpenCall) -> None:
        self._path.admission.intend(call)
        call.is_sent = call.is_started = True
        call.sent_s = self._path.clock.monotonic_s()

    def _remember(self, asks: Asks, frame: Frame) -> None:
        """Keep what the user wrote until the response that answers it."""
        if asks.has_words:
            words = bytes_of(frame)
            self._words_bytes += len(words)
            if self._words_bytes <= WORDS_BYTES_MAX:
                self._words.append(words)

    def _count_words(self, call: OpenCall) -> None:
        """Begin to count what was written for a response: all of it, or none."""
        words, size = self._words, self._words_bytes
        self._words, self._words_bytes = [], 0
        if words and size <= WORDS_BYTES_MAX:
            self._path.user_tokens.begin_words(call, b"[" + b",".join(words) + b"]")

    async def _end(self, call: OpenCall, outcome: Outcome, *, is_billable: bool) -> None:
        if outcome == "ok" and call.answer.is_error:
            outcome = "upstream_error"
        billed = call.answer.is_billed
        await self._path.end(
            call,
            Ending(
                outcome=outcome,
                http_status=_SWITCHED,
                is_billable=is_billable if billed is None else billed,
            ),
        )

    async def _check_further(self, model: str) -> None:
        """Make sure that another model, which is billed apart, may be put to work."""
        facts = msgspec.structs.replace(self._conversation.facts, model=model, fees={})
        call = self._open(facts, None)
        admission = self._path.admission
        assert call.caller is not None
        assert call.provider is not None
        try:
            admission.check_allowed(call.caller, call.provider.id, model, facts)
            admission.price(call)
        except Refusal as refusal:
            self._path.record_refusal(call, refusal)
            raise

    def _take_spare(self, facts: RequestFacts) -> OpenCall | None:
        """Take what is held for a response, where it is enough for this one."""
        spare = self._spare
        if spare is None or spare.facts != facts:
            return None
        self._spare = None
        return spare

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._release(self._spare)
            self._spare = None

    def _release(self, call: OpenCall) -> None:
        if call.hold is not None:
            self._path.budgets.release(call.hold)


def _as_frame(body: bytes, frame: Frame) -> Frame:
    """Write a body as the kind of frame another one is; the very same where nothing changed."""
    if isinstance(frame, bytes):
        return body
    return frame if body == bytes_of(frame) else body.decode("utf-8", "surrogatepass")
