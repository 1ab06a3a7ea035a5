"""Watches a stream for the line that its hold draws, and ends it where budgets have no more.

Must never end an answer that is within what is held for it, nor look at more than every so many
bytes.
"""

import logging
from typing import Final

import msgspec

from gateway.admission import OpenCall
from gateway.budgets.protocol import BudgetStore, BudgetsUnavailable
from gateway.budgets.rules import BudgetExhausted, Demand
from gateway.ending import CountingFailed, RecordJournal, TokenCounter, rate_answer
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.lines import to_ledger_usage, to_ledger_variants
from gateway.ledger.record import Raised
from pricing.rating import Ceiling, Reach, Unbounded, UnpricedSku, find_ceiling
from pricing.usage import Basis, Usage

log = logging.getLogger("taximeter.call")

# How much of a stream passes between two looks at what it has come to.
LOOK_BYTES: Final = 16 * 1024
STEP_CHARS_MIN: Final = 1024
# What is counted here may be another tokenizer's count: it has to be over by a quarter and this.
SPARE_TOKENS: Final = 64
# Steps of a quarter in which a bound is looked for that comes to what is held.
_STEPS_MAX: Final = 8


class StreamGuard:
    """Looks at one stream now and then.

    Attributes:
        look_at: Bytes of the stream after which it looks next.
        exhausted: The budget that had no more; ``None`` while none has said no.
        store_down: The store that could not say whether there is more; ``None`` while all could.
    """

    __slots__ = (
        "_budgets",
        "_call",
        "_count_at",
        "_counter",
        "_held",
        "_journal",
        "_output_max",
        "_reach",
        "_tokens_in",
        "_usage",
        "exhausted",
        "look_at",
        "store_down",
    )

    def __init__(
        self,
        call: OpenCall,
        reach: Reach,
        budgets: BudgetStore,
        counter: TokenCounter,
        journal: RecordJournal,
    ) -> None:
        """Prepare.

        Args:
            call: Held and sent.
            reach: What it was held for; its output is bounded.
            budgets: Where more is held at need.
            counter: Counts text off the path.
            journal: Where it is written down that more is held.
        """
        self.look_at = LOOK_BYTES
        self.exhausted: BudgetExhausted | None = None
        self.store_down: str | None = None
        self._call = call
        self._reach = reach
        self._budgets = budgets
        self._counter = counter
        self._journal = journal
        self._tokens_in = reach.input_tokens_max or 0
        self._held = Demand(cost_pico=call.ceiling_pico, tokens=call.ceiling_tokens, requests=0)
        self._output_max = reach.output_tokens_max or 0
        # A token of text is a character at least, but for rare signs.
        self._count_at = self._output_max
        self._usage: Usage | None = None

    async def may_go_on(self, seen_bytes: int) -> bool:
        """Look at what a stream has come to, and hold more where it is over.

        Args:
            seen_bytes: How much has passed.

        Returns:
            False where a hard budget has no more for it.
        """
        self.look_at = seen_bytes + LOOK_BYTES
        if self._call.answer.is_finished:
            return True
        used = self._reported() or await self._counted()
        if used is None:
            return True
        return await self._hold_more(used)

    def _reported(self) -> Demand | None:
        """What the provider has reported so far, where that is more than is held."""
        usage = self._call.answer.usage
        if usage is None or usage is self._usage or not usage.counts:
            return None
        self._usage = usage
        usage, bill = rate_answer(self._call, usage)
        tokens_in, tokens_out = usage.totals()
        tokens = None if tokens_in is None or tokens_out is None else tokens_in + tokens_out
        cost = None if bill.cost is None else bill.cost.pico
        self._tokens_in = tokens_in or 0
        return self._if_over(Demand(cost_pico=cost, tokens=tokens, requests=0))

    async def _counted(self) -> Demand | None:
        """What the text that has passed comes to, where that is clearly more than is held."""
        answer = self._call.answer
        if answer.text_chars <= self._count_at:
            return None
        kept, chars = sum(map(len, answer.text)), answer.text_chars
        try:
            # In one piece: a token may reach over the border of two events.
            tokens = await self._counter.count(("".join(answer.text),), self._call.model)
        except CountingFailed as failed:
            log.warning("stream not counted id=%s reason=%s", self._call.id, failed)
            return None
        if chars > kept > 0:
            tokens = tokens * chars // kept
        most = self._output_max * 5 // 4 + SPARE_TOKENS
        self._count_at = chars + max(STEP_CHARS_MIN, most - tokens)
        if tokens <= most:
            return None
        reach = msgspec.structs.replace(self._reach, output_tokens_max=tokens)
        tokens_in = reach.input_tokens_max
        cost = None
        if self._call.card is not None:
            try:
                cost = find_ceiling(reach, self._call.card).cost_pico
            except (Unbounded, UnpricedSku):
                return None
        total = None if tokens_in is None else tokens_in + tokens
        return self._if_over(Demand(cost_pico=cost, tokens=total, requests=0))

    def _if_over(self, used: Demand) -> Demand | None:
        pairs = (
            (used.cost_pico, self._held.cost_pico),
            (used.tokens, self._held.tokens),
        )
        is_over = any(
            amount is not None and held is not None and amount > held for amount, held in pairs
        )
        return used if is_over else None

    async def _hold_more(self, used: Demand) -> bool:
        """Hold what the stream is over, and a quarter of all on top where there is room."""
        call = self._call
        assert call.hold is not None
        call.is_overrun = True
        for part in (4, 0):
            wanted = Demand(
                cost_pico=_with_part(used.cost_pico, part),
                tokens=_with_part(used.tokens, part),
                requests=0,
            )
            more = Demand(
                cost_pico=_beyond(wanted.cost_pico, self._held.cost_pico),
                tokens=_beyond(wanted.tokens, self._held.tokens),
                requests=0,
            )
            hold_id = f"{call.id}+{len(call.further_holds) + 1}"
            try:
                held = await self._budgets.reserve(hold_id, call.hold.subject, more, call.hold.at)
            except BudgetsUnavailable as down:
                self.store_down = down.store
                break
            if not isinstance(held, BudgetExhausted):
                call.further_holds.append(held)
                self._held = Demand(
                    cost_pico=_larger(self._held.cost_pico, wanted.cost_pico),
                    tokens=_larger(self._held.tokens, wanted.tokens),
                    requests=0,
                )
                self._write_down()
                return True
            self.exhausted = held
        _mark_partial(call)
        return False

    def _write_down(self) -> None:
        """Note what is held now: a process that is killed has booked that, not the first hold."""
        call, held = self._call, self._held
        bound = self._bound() or call.ceiling
        raised = Raised(
            ceiling_pico=held.cost_pico,
            ceiling_tokens=held.tokens,
            bound_usage={} if bound is None else to_ledger_usage(bound.counts),
            bound_tier="" if bound is None else bound.tier,
            bound_region=None if bound is None else bound.region,
            bound_variants={} if bound is None else to_ledger_variants(bound.variants),
        )
        try:
            self._journal.raise_intent(call.id, raised)
        except StoreUnavailable as down:
            # The stream goes on: its record is written however full the disk is.
            log.warning("more is held than is written down id=%s reason=%s", call.id, down)

    def _bound(self) -> Ceiling | None:
        """Find counts that come to what is held; ``None`` where the call has no price."""
        card, held = self._call.card, self._held
        if card is None or self._call.ceiling is None:
            return None
        tokens_out = max((held.tokens or 0) - self._tokens_in, self._output_max)
        found = None
        for _ in range(_STEPS_MAX):
            reach = msgspec.structs.replace(self._reach, output_tokens_max=tokens_out)
            try:
                found = find_ceiling(reach, card)
            except (Unbounded, UnpricedSku):
                return found
            if found.cost_pico >= (held.cost_pico or 0):
                return found
            tokens_out += tokens_out // 4 + 1
        return found


def guard_of(
    call: OpenCall, budgets: BudgetStore, counter: TokenCounter, journal: RecordJournal
) -> StreamGuard | None:
    """Make the guard of a stream, where one is needed.

    Args:
        call: Held and sent.
        budgets: Where more is held at need.
        counter: Counts text off the path.
        journal: Where it is written down that more is held.

    Returns:
        ``None`` where no hard budget applies, or where nothing bounds the call's output.
    """
    hold, reach = call.hold, call.reach
    if hold is None or not hold.is_hard or reach is None or reach.output_tokens_max is None:
        return None
    return StreamGuard(call, reach, budgets, counter, journal)


def _mark_partial(call: OpenCall) -> None:
    """Nobody will report what comes after the cut."""
    usage = call.answer.usage
    if usage is not None and usage.basis is Basis.REPORTED:
        call.answer.usage = msgspec.structs.replace(usage, basis=Basis.PARTIAL)


def _with_part(amount: int | None, part: int) -> int | None:
    return amount if amount is None or not part else amount + amount // part


def _beyond(wanted: int | None, held: int | None) -> int:
    return 0 if wanted is None or held is None else max(0, wanted - held)


def _larger(held: int | None, wanted: int | None) -> int | None:
    return held if held is None or wanted is None else max(held, wanted)
