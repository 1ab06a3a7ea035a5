"""The life of one call, readable from top to bottom.

Must never let a request reach a provider without a hold and a journalled intent, and never end
one without exactly one record.
"""

import logging
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.admission import Admission, OpenCall
from gateway.budgets.protocol import BudgetStore
from gateway.budgets.rules import amount_to_text
from gateway.client import Client, ClientGone
from gateway.clock import Clock, epoch_us
from gateway.cutting import guard_of
from gateway.ending import Ending, Endings
from gateway.exchange import (
    PATIENT_S,
    Departure,
    Drains,
    Passage,
    has_left,
    is_streamed,
    open_exchange,
    open_lane,
    pass_stream,
    read_answer,
    read_whole,
    request_id_of,
)
from gateway.headers import TO_CLIENT, RawHeaders
from gateway.ids import IdSource
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.record import LedgerRecord, Outcome
from gateway.recall import Recall
from gateway.refusals import (
    BudgetRefused,
    Refusal,
    StoreDown,
    to_error,
    to_failure,
)
from gateway.relief import Relief
from gateway.telling import add_rate_limits, rate_limits, refused_limits, warnings_of, words_of
from gateway.translate import Translation
from gateway.upstream import UpstreamFailed, UpstreamReply, UpstreamUnsent
from gateway.user_tokens import UserTokens
from gateway.wire.facts import Dialect, ErrorBody
from pricing.money import pico_to_text

log = logging.getLogger("taximeter.call")

REDIRECTS_FROM: Final = 300
# What those speak whose calls are translated.
ORIGIN_API: Final = "openai.chat"


class CallJournal(Protocol):
    """Waits until what was written would survive."""

    @property
    def must_sync(self) -> bool:
        """Whether there is anything to wait for; a plain write survives a killed process."""
        ...

    async def synced(self) -> None:
        """Return when everything written so far is as safe as ``fsync`` asks."""
        ...


class CallWatcher(Protocol):
    """Somebody who counts calls while they are open."""

    @property
    def open_calls(self) -> int:
        """How many are open."""
        ...

    def opened(self) -> None:
        """A call arrived."""
        ...

    def closed(self) -> None:
        """It has gone, however it ended."""
        ...

    def refused_by_budget(self, budget: str, reason: str) -> None:
        """A budget said no."""
        ...

    def acted(self, budget: str, action: str) -> None:
        """A budget did something about a call beside refusing it."""
        ...

    def timed(self, phase: str, seconds: float) -> None:
        """The gateway's own work in one phase took that long."""
        ...

    def answered(self, provider: str, model: str, seconds: float) -> None:
        """The first bytes of a stream went out that long after the call arrived."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPath:
    """Serves calls, one at a time each, many side by side.

    Attributes:
        clock: Time.
        ids: Mints request ids.
        admission: The first half.
        relief: What becomes of a call that a budget has no room for.
        endings: The second half.
        recall: What is delivered again, or only later.
        budgets: Tells what is left.
        journal: Waited for before the last byte.
        watcher: Counts open calls.
        user_tokens: Counts what users wrote, beside the calls.
        translation: Takes calls to providers that speak another language.
        drains: Counts the answers that are read on for clients that have left.
        is_committing: Whether the last byte waits for the journal.
    """

    clock: Clock
    ids: IdSource
    admission: Admission
    relief: Relief
    endings: Endings
    recall: Recall
    budgets: BudgetStore
    journal: CallJournal
    watcher: CallWatcher
    user_tokens: UserTokens
    translation: Translation
    drains: Drains
    is_committing: bool

    async def serve(self, client: Client) -> None:
        """Serve one call from its first header to its last byte.

        Args:
            client: The one who called.
        """
        call = self.open(client)
        self.watcher.opened()
        try:
            await self._enter(call, client)
            if not call.is_translated:
                await self._admit(call, client)
            # A budget may have sent it to a model that speaks another language.
            if call.is_translated:
                await self.translation.carry(call, client)
            else:
                await self._carry(call, client)
        except UpstreamFailed as failed:
            # Of a translated call: what it turned into has a record of its own.
            await self.say(call, client, to_failure(failed), [])
        except Refusal as refusal:
            await self.refuse(call, client, refusal)
        except ClientGone:
            log.info("client left before its request was complete id=%s", call.id)
        finally:
            self.watcher.closed()

    async def _enter(self, call: OpenCall, client: Client) -> None:
        admission = self.admission
        admission.identify(call, client)
        call.origin = self.translation.origin_of(client)
        await admission.read(call, client)
        admission.route(call)

    async def _admit(self, call: OpenCall, client: Client) -> None:
        admission = self.admission
        admission.tag(call, client)
        if self.budgets.is_pacing:
            await self.relief.pace(call, client)
        admission.price(call)
        try:
            await admission.hold(call)
        except BudgetRefused as refused:
            await self.relief.find_room(call, client, refused)
            if call.is_translated:
                return
        admission.intend(call)

    async def _carry(self, call: OpenCall, client: Client) -> None:
        """Send the admitted call and bring its answer back; every way out ends it exactly once."""
        assert call.provider is not None
        assert call.facts is not None
        try:
            exchange = open_exchange(call)
            call.sent_s = self.clock.monotonic_s()
            self.watcher.timed("admit", call.sent_s - call.started_s)
            call.is_sent = True
            self.user_tokens.begin(call)
            async with exchange as reply:
                if is_streamed(reply, call.format, is_asked=call.facts.stream):
                    await self._stream(call, client, reply)
                else:
                    await self._whole(call, client, reply)
        except UpstreamFailed as failed:
            if not call.is_settled:
                await self._fail(call, client, failed)
        finally:
            if not call.is_settled:
                # The handler itself is being stopped: nothing can be awaited any more.
                call.is_settled = True
                self.endings.abort(call)

    async def _whole(self, call: OpenCall, client: Client, reply: UpstreamReply) -> None:
        body = await read_whole(reply)
        ready_s = self.clock.monotonic_s()
        call.answer = read_answer(call, reply, body)
        is_gone = ready_s - call.started_s > PATIENT_S and await has_left(client)
        record = await self.end(call, _ending_of_whole(call, reply.status, is_gone=is_gone))
        headers = TO_CLIENT.choose(reply.headers)
        facts = self._facts(call, record)
        if call.origin is not None:
            self.translation.note(call.origin, self._with_rates(call, facts, ORIGIN_API))
        headers += facts
        headers = self._with_rates(call, headers)
        client.respond(reply.status, headers, body)
        self.watcher.timed("settle", self.clock.monotonic_s() - ready_s)

    async def _stream(self, call: OpenCall, client: Client, reply: UpstreamReply) -> None:
        assert call.provider is not None
        assert call.facts is not None
        lane = call.lane = open_lane(call, reply)
        call.answer = lane.answer
        headers = TO_CLIENT.choose(reply.headers)
        headers.append(("x-taximeter-request-id", call.id))
        headers += self._room(call)
        headers = self._with_rates(call, headers)
        if call.origin is not None:
            known = [("x-taximeter-request-id", call.id), *self._room(call)]
            self.translation.note(call.origin, self._with_rates(call, known, ORIGIN_API))
        client.start(reply.status, headers)
        call.is_started = True
        provider_id = call.provider.id

        def note_first_byte() -> None:
            seconds = self.clock.monotonic_s() - call.started_s
            self.watcher.answered(provider_id, call.model, seconds)

        guard = guard_of(call, self.budgets, self.endings.counter, self.endings.journal)
        # What is metered as it is fetched is read to its end, whoever listens.
        drains = call.provider.drains or call.facts.named is not None
        departure = Departure(client, self.drains if drains else None)
        try:
            passage = await pass_stream(
                client, reply, lane, departure, note_first_byte, guard=guard
            )
        finally:
            departure.close()
        # Folds an event that came without its blank line, before the answer is metered.
        is_broken = passage.failure is not None or passage.is_cut_short or passage.is_cut
        tail = lane.finish(is_broken=is_broken)
        if call.answer.request_id is None:
            call.answer.request_id = request_id_of(call, reply)
        record = await self.end(call, _ending_of_stream(call, reply.status, passage))
        error = None if passage.failure is None else to_failure(passage.failure)
        if guard is not None and guard.exhausted is not None and passage.is_cut:
            self.watcher.refused_by_budget(guard.exhausted.budget.id, "cut_by_budget")
            self.watcher.acted(guard.exhausted.budget.id, "cut")
            error = to_error(BudgetRefused(guard.exhausted))
        elif guard is not None and guard.store_down is not None and passage.is_cut:
            error = to_error(StoreDown(guard.store_down))
        if passage.is_client_gone:
            return
        if not lane.can_append:
            await client.finish(tail)
            return
        if client.header("x-taximeter-stream-cost") == "1":
            tail = call.format.shape_stream_facts(self._facts(call, record)) + tail
        if error is not None:
            tail += call.format.shape_stream_error(error)
        await client.finish(tail)

    async def _fail(self, call: OpenCall, client: Client, failed: UpstreamFailed) -> None:
        """Tell the client that the provider gave no usable answer."""
        error = to_failure(failed)
        where = call.provider.id if call.provider is not None else "unknown"
        log.warning(
            "upstream failed id=%s provider=%s code=%s reason=%s",
            call.id,
            where,
            error.code,
            failed,
        )
        ending = Ending(
            outcome="upstream_error",
            http_status=error.status,
            is_billable=not isinstance(failed, UpstreamUnsent),
            flags=(f"upstream: {error.code} ({failed})",),
        )
        await self.end(call, ending)
        await self.say(call, client, error, [])

    async def refuse(self, call: OpenCall, client: Client, refusal: Refusal) -> None:
        """Say no.

        Args:
            call: As far as it got.
            client: The one who called.
            refusal: Why.
        """
        error = to_error(refusal)
        extra: RawHeaders = []
        if isinstance(refusal, BudgetRefused):
            self.watcher.refused_by_budget(refusal.exhausted.budget.id, error.code)
            if refusal.retry_after_s is not None:
                extra.append(("retry-after", str(refusal.retry_after_s)))
            limits = refused_limits(refusal.exhausted)
            api = words_of(call.format.api, call.surface)
            extra = add_rate_limits(extra, limits, api, call.at)
        if not call.is_sent:
            self.endings.refuse(call, error.status, error.code)
            await client.discard_body()
        await self.say(call, client, error, extra)

    async def say(
        self, call: OpenCall, client: Client, error: ErrorBody, extra: RawHeaders
    ) -> None:
        """Answer with an error, in the caller's dialect.

        Args:
            call: As far as it got.
            client: The one who called.
            error: In words.
            extra: Further headers.
        """
        if call.is_started:
            # Nothing can follow compressed bytes, or a framing that could not be read.
            can_append = call.lane is None or call.lane.can_append
            await client.finish(call.format.shape_stream_error(error) if can_append else b"")
            return
        if call.origin is not None:
            self.translation.note(call.origin, [("x-taximeter-request-id", call.id)], error)
        dialect: Dialect = call.format
        if call.surface is None:
            dialect = self.admission.router.find_dialect(client.method, client.path)
        headers: RawHeaders = [
            ("content-type", "application/json"),
            ("x-should-retry", "false"),
            ("x-taximeter-request-id", call.id),
            *dialect.error_headers(error),
            *extra,
        ]
        client.respond(error.status, headers, dialect.shape_error(error))

    async def end(self, call: OpenCall, ending: Ending) -> LedgerRecord:
        """Meter, settle and make the record safe; the last byte waits for this.

        Args:
            call: An admitted call.
            ending: How it ended.

        Returns:
            Its record.

        Raises:
            StoreDown: The journal takes no more.
        """
        has_id = call.answer.once is not None
        completion = await self.recall.find(call) if has_id else None
        usage = self.endings.reported(call) or await self.endings.meter(call, ending)
        if call.counting is not None:
            await self.user_tokens.finish(call, self.watcher.open_calls)
        call.is_settled = True
        try:
            record = self.endings.settle(call, ending, usage)
            if has_id:
                self.recall.settle(record, completion)
            if self.is_committing and self.journal.must_sync:
                await self.journal.synced()
        except StoreUnavailable as down:
            log.exception("settlement not journalled id=%s", call.id)
            raise StoreDown("journal") from down
        return record

    def _facts(self, call: OpenCall, record: LedgerRecord) -> RawHeaders:
        facts = [
            ("x-taximeter-request-id", call.id),
            ("x-taximeter-basis", record.basis),
        ]
        if record.cost_pico is not None:
            facts.append(("x-taximeter-cost", pico_to_text(record.cost_pico)))
        if record.price_version is not None:
            facts.append(("x-taximeter-price-version", record.price_version))
        return facts + self._room(call)

    def _room(self, call: OpenCall) -> RawHeaders:
        """The tightest budget of the call, what remains of it, and what budgets have changed."""
        hold, notes = call.hold, call.notes
        status = None if hold is None else self.budgets.tightest(hold)
        if status is None:
            return notes
        if hold is not None and hold.told:
            notes = notes + warnings_of(hold, self.clock.now())
        unit = status.budget.unit
        remaining = f"{amount_to_text(max(0, status.remaining), unit)} {unit}"
        return [
            *notes,
            ("x-taximeter-budget", status.budget.id),
            ("x-taximeter-budget-remaining", remaining),
        ]

    def _with_rates(self, call: OpenCall, headers: RawHeaders, api: str = "") -> RawHeaders:
        """Add the rate limits of the call, where it has any, in its caller's words."""
        hold = call.hold
        if hold is None or not hold.told:
            return headers
        at = self.clock.now()
        api = api or words_of(call.format.api, call.surface)
        return add_rate_limits(headers, rate_limits(hold, at), api, at)

    def told(self, call: OpenCall) -> RawHeaders:
        """Say how the budgets of a call stand, for an answer that carries no record.

        Args:
            call: Held, or released since.

        Returns:
            The tightest budget and what remains of it, warnings, and rate limits.
        """
        return self._with_rates(call, self._room(call))

    def record_refusal(self, call: OpenCall, refusal: Refusal) -> None:
        """Write the record of a refusal that is told in a session.

        Args:
            call: As far as it got.
            refusal: Why.
        """
        error = to_error(refusal)
        if isinstance(refusal, BudgetRefused):
            self.watcher.refused_by_budget(refusal.exhausted.budget.id, error.code)
        self.endings.refuse(call, error.status, error.code)

    def open(self, client: Client) -> OpenCall:
        """Begin a call: an id and the instant that decides its price and its windows.

        Args:
            client: The one who called.

        Returns:
            The call, with nothing known yet.
        """
        at = self.clock.now()
        started_at_us = epoch_us(at)
        return OpenCall(
            id=self.ids.mint(started_at_us // 1000),
            at=at,
            started_at_us=started_at_us,
            started_s=self.clock.monotonic_s(),
            headers=client.headers,
        )


def _ending_of_whole(call: OpenCall, status: int, *, is_gone: bool) -> Ending:
    is_success = status < REDIRECTS_FROM
    outcome: Outcome = "ok" if is_success and not call.answer.is_error else "upstream_error"
    if outcome == "ok" and is_gone:
        outcome = "client_disconnected"
    is_billable = is_success if call.answer.is_billed is None else call.answer.is_billed
    return Ending(outcome=outcome, http_status=status, is_billable=is_billable)


def _ending_of_stream(call: OpenCall, status: int, passage: Passage) -> Ending:
    is_success = status < REDIRECTS_FROM
    outcome: Outcome = "ok"
    flags: tuple[str, ...] = ()
    if passage.failure is not None:
        outcome = "upstream_error"
        flags = (f"upstream: the stream broke off ({passage.failure})",)
    elif passage.is_cut:
        outcome = "cut_by_budget"
        flags = ("the stream was ended: a budget has no more for it",)
    elif call.answer.is_error or not is_success:
        outcome = "upstream_error"
    elif passage.is_client_gone:
        outcome = "client_disconnected"
    if passage.is_cut_short:
        flags = (*flags, "the upstream call was ended because the client had left")
        if passage.is_crowded_out:
            flags = (*flags, "too many answers were being read for clients that had left")
    is_billable = is_success if call.answer.is_billed is None else call.answer.is_billed
    return Ending(outcome=outcome, http_status=status, is_billable=is_billable, flags=flags)
