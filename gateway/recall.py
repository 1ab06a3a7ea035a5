"""Answers that tell of use known already, or of an earlier call: metered once, completed once.

Must never book one use twice, and never take what an earlier call used for this call's own.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gateway.admission import OpenCall
from gateway.budgets.protocol import BudgetStore
from gateway.budgets.rules import Demand, Subject
from gateway.callers import Caller
from gateway.clock import Clock, epoch_us, from_epoch_us
from gateway.earlier import Metered, Posted, complete
from gateway.ending import Ending, RecordJournal, rate_answer, to_record
from gateway.ids import IdSource
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.record import LedgerRecord
from gateway.wire.facts import Answer
from pricing.usage import NOTHING, Basis, Usage

log = logging.getLogger("taximeter.call")


def _tell_nobody(_: LedgerRecord) -> None:
    """Nobody wants to know."""


class Completion(NamedTuple):
    """What an earlier call turned out to have used.

    Attributes:
        posted: The call as the ledger has it.
        call: The same, taken up where it ended, with the answer that has come since.
        usage: What it used.
    """

    posted: Posted
    call: OpenCall
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Remembers what was metered under a provider's own id, and adds what was missing.

    Attributes:
        clock: When a correction is made.
        ids: Mints the ids of corrections.
        metered: What has been metered.
        budgets: Told of corrections.
        journal: Where corrections are written.
        on_correction: Told of each.
    """

    clock: Clock
    ids: IdSource
    metered: Metered
    budgets: BudgetStore
    journal: RecordJournal
    on_correction: Callable[[LedgerRecord], None] = _tell_nobody

    async def find(self, call: OpenCall) -> Completion | None:
        """Find what of an answer is known already, and take it out of the answer.

        Args:
            call: Its answer says under which id the use is known.

        Returns:
            What is to be added to the record of an earlier call, by ``settle``; ``None`` where
            nothing is.
        """
        answer = call.answer
        assert call.provider is not None
        assert call.facts is not None
        if answer.once is None or not call.facts.is_free:
            return None  # the call that made it
        # By it the record is found again.
        answer.request_id = answer.once
        posted = None
        if _tells(answer) and not self.metered.is_final(call.provider.id, answer.once):
            try:
                posted = await self.metered.find(call.provider.id, answer.once)
            except StoreUnavailable as down:
                log.warning("earlier call not looked up id=%s reason=%s", call.id, down)
                call.flags.append("the ledger could not be asked what was metered before")
            if posted is None and not answer.is_earlier:
                return None  # told for the first time: this record is its own
        completion = None
        if posted is not None and posted.is_final:
            self.metered.note(posted.record, is_final=True)
        elif posted is not None and answer.usage is not None and not _is_part(answer.usage):
            completion = Completion(posted, _reopen(call, posted.record), answer.usage)
            call.flags.append(f"completes {posted.record.id}")
        call.answer = msgspec.structs.replace(
            answer,
            usage=NOTHING,
            others=(),
            provider_cost=None,
            flags=(),
            text=[],
            text_chars=0,
            usage_chars=0,
        )
        return completion

    def settle(self, record: LedgerRecord, completion: Completion | None) -> None:
        """Remember what was metered, and write what an earlier call turned out to have used.

        Args:
            record: Of the call that has ended, as journalled.
            completion: What ``find`` found.

        Raises:
            StoreUnavailable: The journal takes no more.
        """
        self.metered.note(record)
        if completion is None:
            return
        posted, then, usage = completion
        earlier = posted.record
        assert then.provider is not None
        # Two calls that are told the same at once must not both complete it.
        if self.metered.is_final(then.provider.id, earlier.provider_request_id or ""):
            return
        ending = Ending(
            outcome=earlier.outcome,
            http_status=earlier.http_status or 200,
            is_billable=True,
            flags=(f"completes the record by what {record.id} was told",),
        )
        now_us = epoch_us(self.clock.now())
        usage, bill = rate_answer(then, usage)
        truth = to_record(then, ending, usage, bill, now_us)
        if truth.cost_pico is None and earlier.cost_pico is not None:
            log.warning("what a call came to has no price id=%s", earlier.id)
            return
        correction = complete(posted, truth, self.ids.mint(now_us // 1000))
        correction = self.journal.append_record(correction)
        self.on_correction(correction)
        self.metered.note(correction, is_final=usage.basis is Basis.REPORTED)
        self._tell_budgets(then, posted, truth)

    def _tell_budgets(self, then: OpenCall, posted: Posted, truth: LedgerRecord) -> None:
        """Count what a call came to beyond what its budgets have counted."""
        assert then.provider is not None
        assert then.caller is not None
        record = posted.record
        subject = Subject(
            organization=then.caller.organization,
            team=then.caller.team,
            project=then.caller.project,
            key=then.caller.key,
            provider=then.provider.id,
            model=(record.model_requested or "").removeprefix(then.provider.id + "/"),
            user=then.user,
            tags=then.tags,
        )
        cost, parked_cost = _change(truth.cost_pico, posted.cost_pico, record.ceiling_pico)
        tokens, parked_tokens = _change(_tokens(truth), posted.tokens, record.ceiling_tokens)
        self.budgets.correct(
            subject,
            then.at,
            Demand(cost_pico=cost, tokens=tokens, requests=0),
            Demand(cost_pico=parked_cost, tokens=parked_tokens, requests=0),
        )


def _tells(answer: Answer) -> bool:
    usage = answer.usage
    return answer.is_billed is True or (usage is not None and bool(usage.counts))


def _is_part(usage: Usage) -> bool:
    return usage.basis in (Basis.PARTIAL, Basis.UNKNOWN)


def _change(now: int | None, before: int | None, parked: int | None) -> tuple[int, int]:
    """The difference to what was counted, and what is parked no longer."""
    if now is None:
        return 0, 0
    return (now, parked or 0) if before is None else (now - before, 0)


def _tokens(record: LedgerRecord) -> int | None:
    if record.input_total is None or record.output_total is None:
        return None
    return record.input_total + record.output_total


def _reopen(call: OpenCall, record: LedgerRecord) -> OpenCall:
    """Take up an earlier call where it ended, with the answer that has come for it since."""
    assert call.provider is not None
    assert call.book is not None
    assert call.facts is not None
    at = from_epoch_us(record.started_at_us)
    caller = Caller(
        organization=record.organization or "",
        team=record.team or "",
        project=record.project or "",
        key=record.key or "",
        tags=record.tags,
        models=(),
        expires_at=None,
    )
    asked = record.model_asked or record.priced_model or record.model or ""
    # Where the provider does not say what it served, the dearer of what it may have served counts.
    tier = record.tier_asked or record.tier or None
    facts = msgspec.structs.replace(
        call.facts, model=record.model_requested or "", stream=record.stream, tier=tier
    )
    return OpenCall(
        id=record.id,
        at=at,
        started_at_us=record.started_at_us,
        started_s=call.started_s,
        headers=[],
        format=call.format,
        caller=caller,
        facts=facts,
        provider=call.provider,
        model=asked,
        user=record.user,
        tags=record.tags,
        flags=[],
        book=call.book,
        card=call.book.find_card(
            call.provider.priced_as, call.provider.model_behind(asked), at, caller.payer
        ),
        answer=call.answer,
    )
