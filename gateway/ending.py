"""The second half of a call: what was used, what it costs, the one record, the budgets settled.

Must never end a call twice or without a record, and never hand back what may have cost money.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal, Protocol

import msgspec
from msgspec import UNSET

from gateway.admission import OpenCall
from gateway.budgets.holds import Hold
from gateway.budgets.protocol import BudgetStore
from gateway.budgets.rules import Demand
from gateway.clock import Clock, epoch_us
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.lines import to_ledger_lines, to_ledger_usage, to_ledger_variants
from gateway.ledger.record import LedgerRecord, Outcome, Raised
from gateway.settlement import NO_BILL, Bill, bill_reported, rate_call
from gateway.several import rate_several, sum_usage
from gateway.wire.facts import Answer
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.selfhosted import gpu_seconds
from pricing.served import Served
from pricing.usage import NOTHING, Basis, Quantity, Usage, unknown_usage

log = logging.getLogger("taximeter.call")


# Above what any served model generates for one answer: the ceiling of thought nobody saw.
HIDDEN_TOKENS_PER_S_MAX: Final = 1000


LATE_FLAG: Final = "recorded late: the journal had no room when the call ended"

# A call that was refused before anybody looked at its address.
UNKNOWN_API: Final = "unknown"

# Reading ``value`` of an enum member is a call of its own.
_BASIS: Final = {basis: basis.value for basis in Basis}


class CountingFailed(Exception):
    """The text could not be counted."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended, before it is metered.

    Attributes:
        outcome: In the ledger's words.
        http_status: Status the client got, or would have got.
        is_billable: Whether the provider may have billed anything.
        flags: What was odd, in words.
    """

    outcome: Outcome
    http_status: int
    is_billable: bool
    flags: tuple[str, ...] = ()


class TokenCounter(Protocol):
    """Counts text off the path."""

    async def count(self, texts: Sequence[str], model: str) -> int:
        """Count tokens of a model's tokenizer; raises ``CountingFailed``."""
        ...


class RecordJournal(Protocol):
    """Where settled records are written."""

    def raise_intent(self, intent_id: str, raised: Raised) -> None:
        """Write that more is held for an open call than at first, or raise ``StoreUnavailable``."""
        ...

    def append_record(self, record: LedgerRecord) -> LedgerRecord:
        """Write it and give it its place in the chain, or raise ``StoreUnavailable``."""
        ...


class Settled(Protocol):
    """Somebody who wants to know of settled records."""

    def observe(self, record: LedgerRecord) -> None:
        """Take a frozen record in; must be quick and must not raise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Endings:
    """Ends calls: each exactly once, with one record.

    Attributes:
        clock: When it ended.
        budgets: Where holds are settled.
        journal: Where records are written.
        counter: Counts what the provider did not.
        subscriber: Told of every record.
        missing_usage: What happens when a provider sends no usage.
        late: Records that the journal had no room for, with what is held for them.
    """

    clock: Clock
    budgets: BudgetStore
    journal: RecordJournal
    counter: TokenCounter
    subscriber: Settled
    missing_usage: Literal["estimate", "fail"]
    late: deque[tuple[Hold, Sequence[Hold], LedgerRecord]] = field(default_factory=deque)

    def reported(self, call: OpenCall) -> Usage | None:
        """Take the provider's own word, where it is the whole truth.

        Args:
            call: The call.

        Returns:
            The counts reported at the end of an answer; ``None`` where ``meter`` must decide.
        """
        answer = call.answer
        usage = answer.usage
        if (
            usage is None
            or not usage.counts
            or answer.text_chars > answer.usage_chars
            or answer.lacks_input
            or call.gpus
            or call.is_request_priced
            or (call.facts is not None and call.facts.fees and not answer.tells_fees)
        ):
            return None
        return usage

    async def meter(self, call: OpenCall, ending: Ending) -> Usage:
        """Decide what the call used.

        Args:
            call: The call.
            ending: How it ended.

        Returns:
            The provider's own counts where it gave any; nothing where nothing can have been
            billed; else counts made here, or unknown where the policy does not allow guessing.
        """
        told = self.reported(call)
        if told is not None:
            return told
        answer = call.answer
        if answer.usage is not None and answer.lacks_input:
            usage = await self._add_prompt(call, answer.usage)
        else:
            usage = await self._meter_tokens(call, ending)
        return _with_fees(usage, self._fees(call))

    def _fees(self, call: OpenCall) -> Mapping[Meter, Quantity]:
        """What stands in no usage object: what is charged by the call, and by its time."""
        facts = call.facts
        is_told = facts is None or call.answer.tells_fees
        fees: Mapping[Meter, Quantity] = {} if facts is None or is_told else facts.fees
        if call.is_request_priced:
            fees = {**fees, Meter.REQUEST: 1}
        if not call.gpus or not call.is_sent:
            return fees
        elapsed_us = max(0, round((self.clock.monotonic_s() - call.sent_s) * 1_000_000))
        seconds: Quantity = gpu_seconds(elapsed_us, call.gpus)
        if call.ceiling is not None:
            # The call was ended at its limit; what passed until that was noticed is not its time.
            seconds = min(seconds, call.ceiling.counts[Meter.GPU_SECOND])
        return {**fees, Meter.GPU_SECOND: seconds} if seconds else fees

    async def _meter_tokens(self, call: OpenCall, ending: Ending) -> Usage:
        answer = call.answer
        reported = answer.usage
        if reported is not None and (reported.counts or reported.basis is Basis.NONE):
            if answer.text_chars <= answer.usage_chars or not reported.counts:
                return reported
            return await self._complete(call, reported)
        is_free = call.facts is not None and call.facts.is_free
        if not ending.is_billable or (is_free and not answer.is_billed):
            return NOTHING
        if reported is not None:
            call.flags += reported.flags or ("the provider reported no tokens at all",)
        if self.missing_usage == "fail":
            return unknown_usage("the provider sent no usage and metering.missing_usage is fail")
        if answer.is_readable:
            try:
                return await self._count(call, answer)
            except CountingFailed as failed:
                log.warning("counting failed id=%s reason=%s", call.id, failed)
        return _at_the_bound(call, answer)

    async def _complete(self, call: OpenCall, reported: Usage) -> Usage:
        """Add to a running total what came after it and was never reported."""
        try:
            heard = await self._count_output(call, call.answer)
        except CountingFailed:
            return _at_the_bound(call, call.answer)
        missing = heard - (reported.output_total or 0)
        counts = dict(reported.counts)
        if missing > 0:
            counts[Meter.OUTPUT] = counts.get(Meter.OUTPUT, 0) + missing
        flag = "usage was reported before the answer ended: the rest is counted here"
        return Usage(counts=counts, basis=Basis.PARTIAL, flags=(*reported.flags, flag))

    async def _add_prompt(self, call: OpenCall, reported: Usage) -> Usage:
        """Add to what was reported the prompt that the provider did not count."""
        prompt = call.format.read_prompt(call.asked)
        if prompt is None:
            return _with_prompt_at_bound(call, reported)
        try:
            tokens = await self.counter.count(prompt, call.model)
        except CountingFailed as failed:
            log.warning("counting failed id=%s reason=%s", call.id, failed)
            return _with_prompt_at_bound(call, reported)
        return _with_prompt(reported, tokens, "counted here")

    def settle(self, call: OpenCall, ending: Ending, usage: Usage) -> LedgerRecord:
        """Rate the usage, settle every hold, write the record.

        Args:
            call: The call; it was admitted and holds something.
            ending: How it ended.
            usage: What it used.

        Returns:
            The record as journalled.

        Raises:
            StoreUnavailable: The journal takes no more. What was held stays held until it does, or
                until the intent becomes a record when the journal is next recovered.
        """
        assert call.hold is not None
        if self.late:
            self.catch_up()
        usage, bill = rate_answer(call, usage)
        record = to_record(call, ending, usage, bill, epoch_us(self.clock.now()))
        try:
            return self._close(call.hold, call.further_holds, record)
        except StoreUnavailable:
            self.late.append((call.hold, call.further_holds, record))
            raise

    def catch_up(self) -> None:
        """Write the records that the journal had no room for, as far as it has now."""
        while self.late:
            hold, further, record = self.late[0]
            late = msgspec.structs.replace(record, flags=(*record.flags, LATE_FLAG))
            try:
                self._close(hold, further, late)
            except StoreUnavailable:
                return
            self.late.popleft()

    def _close(self, hold: Hold, further: Sequence[Hold], record: LedgerRecord) -> LedgerRecord:
        """Write the record, then settle: what is not written is not handed back either."""
        record = self.journal.append_record(record)
        tokens_in, tokens_out = record.input_total, record.output_total
        tokens = None if tokens_in is None or tokens_out is None else tokens_in + tokens_out
        actual = Demand(cost_pico=record.cost_pico, tokens=tokens)
        if further:
            self._end_further(further, actual)
        self.budgets.settle(hold, actual)
        self.subscriber.observe(record)
        return record

    def _end_further(self, further: Sequence[Hold], actual: Demand) -> None:
        """Give back what was held beside the call's own hold, or park it where nobody knows."""
        beyond = Demand(
            cost_pico=None if actual.cost_pico is None else 0,
            tokens=None if actual.tokens is None else 0,
            requests=0,
        )
        for hold in further:
            self.budgets.settle(hold, beyond)

    def abort(self, call: OpenCall) -> None:
        """End a call whose handler is being stopped, without waiting for anything.

        Args:
            call: An admitted call that has no record yet.
        """
        ending = Ending(
            outcome="aborted",
            http_status=499,
            is_billable=call.is_sent,
            flags=("the gateway stopped before the answer ended",),
        )
        usage = call.answer.usage
        is_free = call.facts is not None and call.facts.is_free and not call.answer.is_billed
        if usage is None or usage.basis in (Basis.UNKNOWN, Basis.PARTIAL):
            may_cost = call.is_sent and not is_free
            usage = _at_the_bound(call, call.answer) if may_cost else NOTHING
        elif call.answer.lacks_input:
            usage = _with_prompt_at_bound(call, usage)
        usage = _with_fees(usage, self._fees(call))
        try:
            self.settle(call, ending, usage)
        except StoreUnavailable:
            log.exception("settlement not journalled id=%s", call.id)

    def refuse(self, call: OpenCall, status: int, code: str, outcome: Outcome = "refused") -> None:
        """Write the record of a refusal.

        Args:
            call: The call as far as it got.
            status: HTTP status of the refusal.
            code: Its code.
            outcome: Whose refusal it is: the gateway's own, or the provider's.
        """
        ending = Ending(
            outcome=outcome, http_status=status, is_billable=False, flags=(f"refused: {code}",)
        )
        record = to_record(call, ending, NOTHING, NO_BILL, epoch_us(self.clock.now()))
        if self.late:
            self.catch_up()
        try:
            record = self.journal.append_record(record)
        except StoreUnavailable as down:
            log.warning("refusal not recorded id=%s code=%s reason=%s", call.id, code, down)
        self.subscriber.observe(record)

    async def _count(self, call: OpenCall, answer: Answer) -> Usage:
        """Count what was seen with the model's tokenizer, and bound what was not shown."""
        assert call.facts is not None
        shows_nothing = not answer.text_chars and not call.facts.stream
        if shows_nothing and call.facts.output_tokens_max != 0:
            raise CountingFailed("the answer shows nothing that could be counted")
        prompt = call.format.read_prompt(call.asked)
        if prompt is None:
            raise CountingFailed("the prompt holds more than text")
        tokens_in = await self.counter.count(prompt, call.model)
        tokens_out = await self._count_output(call, answer)
        counts = {Meter.INPUT: tokens_in, Meter.OUTPUT: tokens_out}
        return Usage(
            counts={meter: count for meter, count in counts.items() if count},
            basis=Basis.ESTIMATED,
            flags=("no usage from the provider: counted from the text that passed",),
        )

    async def _count_output(self, call: OpenCall, answer: Answer) -> int:
        assert call.facts is not None
        elapsed_s = self.clock.monotonic_s() - call.started_s
        tokens_out = await self.counter.count(answer.text, call.model)
        kept = sum(map(len, answer.text))
        if answer.text_chars > kept > 0:
            tokens_out = -(-tokens_out * answer.text_chars // kept)
        hides = answer.hides_output
        if call.format.may_think(call.model) if hides is None else hides:
            # Nobody sees how much was thought; no model thinks faster than this.
            tokens_out += ceil(elapsed_s * HIDDEN_TOKENS_PER_S_MAX) * call.facts.choices
        if call.ceiling is not None and not call.is_overrun:
            tops = [n for meter, n in call.ceiling.counts.items() if meter in OUTPUT_METERS]
            tokens_out = min(tokens_out, int(sum(tops)))
        return tokens_out


def _with_fees(usage: Usage, fees: Mapping[Meter, Quantity]) -> Usage:
    if not fees or usage.basis in (Basis.NONE, Basis.UNKNOWN):
        return usage
    return Usage(counts={**usage.counts, **fees}, basis=usage.basis, flags=usage.flags)


def _with_prompt(reported: Usage, tokens: int, how: str) -> Usage:
    counts: dict[Meter, Quantity] = {Meter.INPUT: tokens} if tokens else {}
    flag = f"the provider did not count the prompt: {how}"
    return Usage(
        counts={**counts, **reported.counts},
        basis=Basis.PARTIAL,
        flags=(*reported.flags, flag),
    )


def _with_prompt_at_bound(call: OpenCall, reported: Usage) -> Usage:
    if call.ceiling is None:
        return unknown_usage("the provider did not count the prompt, and nothing bounds it")
    counts = call.ceiling.counts.items()
    tokens = sum(count for meter, count in counts if meter in INPUT_METERS)
    return _with_prompt(reported, int(tokens), "booked at the most it could be")


def _region_of(call: OpenCall) -> str | None:
    """The region class served: the provider's word, else what was asked, else its address."""
    told = call.answer.region
    if told is not None:
        return told or None
    asked = None if call.facts is None else call.facts.region
    return asked or (None if call.provider is None else call.provider.region)


def _at_the_bound(call: OpenCall, answer: Answer) -> Usage:
    if call.ceiling is None:
        return unknown_usage("no usage from the provider and nothing bounds the call")
    # The bound was taken at the dearest tier the provider may serve: it is rated there too.
    answer.tier = answer.tier or call.ceiling.tier
    answer.variants = call.ceiling.variants
    return Usage(
        counts=call.ceiling.counts,
        basis=Basis.ESTIMATED,
        flags=("no usage from the provider: booked at the most the call could come to",),
    )


def rate_answer(call: OpenCall, usage: Usage) -> tuple[Usage, Bill]:
    """Rate what a call used by what its answer says was served.

    Args:
        call: The call, with its answer.
        usage: What the model that served used.

    Returns:
        What all models used together, and the bill.
    """
    assert call.provider is not None
    assert call.facts is not None
    assert call.book is not None
    answer = call.answer
    served = Served(
        priced_as=call.provider.priced_as,
        asked=call.model,
        behind=call.provider.deployments.get(call.model),
        model=answer.model,
        tier=answer.tier,
        tier_asked=call.facts.tier,
        region=_region_of(call),
        at=call.at,
        payer=None if call.caller is None else call.caller.payer,
        variants=answer.variants or call.facts.variants,
        prompt_tokens=answer.prompt_tokens,
    )
    if answer.others:
        bill = rate_several(usage, answer.others, served, call.card, call.book)
        usage = sum_usage(usage, answer.others)
    else:
        bill = rate_call(usage, served, call.card, call.book)
        if answer.prompt_tokens is not None:
            # Of the record alone nobody could tell in which context bands the prompts were.
            bill = msgspec.structs.replace(bill, served=None, priced_model="")
    if answer.provider_cost is not None and answer.text_chars <= answer.usage_chars:
        is_final = usage.basis is not Basis.PARTIAL
        bill = bill_reported(bill, answer.provider_cost, is_final=is_final)
    return usage, bill


def to_record(
    call: OpenCall, ending: Ending, usage: Usage, bill: Bill, ended_at_us: int
) -> LedgerRecord:
    """Write what the ledger keeps of a call.

    Args:
        call: The call, with its answer.
        ending: How it ended.
        usage: What it used.
        bill: What that costs.
        ended_at_us: When it was settled, microseconds since 1970.

    Returns:
        The record, not journalled yet.
    """
    answer, caller = call.answer, call.caller
    if call.origin is not None:
        call.flags.append(f"translated from {call.origin.partition(' ')[2]}")
    flags = (*call.flags, *usage.flags, *answer.flags, *bill.flags, *ending.flags)
    cost_pico = None if bill.cost is None else bill.cost.pico
    if cost_pico is not None and call.ceiling_pico is not None and cost_pico > call.ceiling_pico:
        flags = (*flags, f"cost exceeds the ceiling of {call.ceiling_pico} pico that was held")
    facts = call.facts
    input_total, output_total = usage.totals()
    served = bill.served
    return LedgerRecord(
        id=call.id,
        started_at_us=call.started_at_us,
        ended_at_us=max(ended_at_us, call.started_at_us),
        outcome=ending.outcome,
        http_status=ending.http_status,
        stream=facts is not None and facts.stream,
        api=UNKNOWN_API if call.provider is None and call.surface is None else call.format.api,
        provider=None if call.provider is None else call.provider.id,
        model_requested=None if facts is None else facts.model or None,
        model=answer.model or call.model or None,
        provider_request_id=answer.request_id,
        organization=None if caller is None else caller.organization,
        team=None if caller is None else caller.team,
        project=None if caller is None else caller.project,
        key=None if caller is None else caller.key,
        user=call.user,
        tags=dict(call.tags),
        usage=to_ledger_usage(usage.counts),
        input_total=input_total,
        output_total=output_total,
        basis=_BASIS[usage.basis],
        user_input_tokens=None if call.prompt_parts is None else call.prompt_parts["user"],
        input_parts=UNSET if call.prompt_parts is None else dict(sorted(call.prompt_parts.items())),
        cost_pico=cost_pico,
        list_cost_pico=None if bill.list_cost is None else bill.list_cost.pico,
        provider_cost_pico=None if bill.provider_cost is None else bill.provider_cost.pico,
        price_version=bill.version,
        cost_status=bill.status,
        lines=to_ledger_lines(bill.lines),
        flags=flags,
        ceiling_pico=call.ceiling_pico,
        ceiling_tokens=call.ceiling_tokens,
        priced_as=UNSET if served is None else served.priced_as,
        priced_model=bill.priced_model or UNSET,
        tier=bill.tier or UNSET,
        region=UNSET if served is None else served.region or UNSET,
        variants=UNSET if served is None else to_ledger_variants(served.variants) or UNSET,
        model_asked=UNSET if served is None else served.asked,
        model_behind=UNSET if served is None else served.behind or UNSET,
        tier_asked=UNSET if served is None else served.open_tier or UNSET,
    )
