"""What becomes of a call that a budget has no room for: a delay, a cheaper model, a capped answer.

Must never send a call under a smaller hold than the most it can come to, never lower a limit that
the client gave itself, and never try twice what has been tried.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Protocol

import msgspec

from gateway.admission import Admission, OpenCall, subject_of
from gateway.budgets.protocol import BudgetStore
from gateway.budgets.rules import BudgetExhausted, Demand
from gateway.capping import Capped, Outline, Room, find_cap
from gateway.client import Client, ClientGone
from gateway.clock import epoch_us
from gateway.refusals import BudgetRefused, InvalidRequest, ModelNotAllowed, UnpricedModel
from gateway.routes import Surface
from gateway.translate import IN_PLACE_OF
from gateway.wire.caps import cap_output, limit_fields
from gateway.wire.facts import BadRequest, RequestFacts
from gateway.wire.splice import scan_members
from pricing.rating import Unbounded, UnpricedSku

log = logging.getLogger("taximeter.call")

# Every try learns of one more budget that has too little room.
TRIES_MAX: Final = 8
# Models that a call is tried with in place of its own.
FALLBACKS_MAX: Final = 4
WAIT_S_MIN: Final = 0.001
# Addresses of a wire format whose requests take no limit.
_UNCAPPED: Final = ("/compact",)
# What of a call is another with another model.
_OF_MODEL: Final = (
    "surface",
    "format",
    "asked",
    "path",
    "is_translated",
    "facts",
    "provider",
    "model",
    "flags",
    "card",
    "gpus",
    "is_request_priced",
    "ceiling",
    "ceiling_pico",
    "ceiling_tokens",
    "reach",
    "notes",
    "replaced",
)
_UNBOUNDED_OUTPUT: Final = "nothing bounds the output tokens of this call"
_THROTTLED: Final = "throttled for"

# Reads a request that another body stands for; raises ``BadRequest``.
Reader = Callable[[bytes], RequestFacts]
# Waits until the client has left.
Leaving = Callable[[], Awaitable[object]]


class ActionWatcher(Protocol):
    """Somebody who counts what budgets do about calls."""

    def acted(self, budget: str, action: str) -> None:
        """A budget has capped, thrown back or slowed down a call, or cut its answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliefPolicy:
    """Settings that decide how far a call may be changed.

    Attributes:
        output_cap_min: Smallest limit of an answer; with less left the call is refused.
        output_cap_max: Largest limit of an answer of a model whose own maximum is not known.
    """

    output_cap_min: int = 16
    output_cap_max: int = 8192


class CapSettings(Protocol):
    """The settings a policy is made of."""

    @property
    def output_cap_min(self) -> int:
        """Smallest limit of an answer."""
        ...

    @property
    def output_cap_max(self) -> int:
        """Largest limit where the model's own maximum is not known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """Finds room for calls that were refused.

    Attributes:
        admission: The steps of a call.
        budgets: Tell how far spending runs ahead.
        policy: Settings that decide.
        watcher: Counts what was done.
    """

    admission: Admission
    budgets: BudgetStore
    policy: ReliefPolicy
    watcher: ActionWatcher

    async def pace(self, call: OpenCall, client: Client, wait_gone: Leaving | None = None) -> None:
        """Wait where spending runs ahead of a budget that slows calls down; nothing is held then.

        Args:
            call: Tagged; after a wait it counts as arrived when that was over.
            client: The one who called.
            wait_gone: Waits until the client has left; ``None`` for the client's own.

        Raises:
            ClientGone: The client has left meanwhile.
            KeyRefused: The key has stopped working meanwhile.
            ModelNotAllowed: It may not call the model any more.
        """
        if IN_PLACE_OF in (call.origin or ""):
            return  # It has waited before it was sent to another model.
        subject, waited_s, now = subject_of(call), 0.0, call.at
        wait_s = self.budgets.ahead_s(subject, call.at, 0)
        if wait_s <= 0:
            return
        slow = self.budgets.slowed_by(subject, call.at)
        leaving = asyncio.ensure_future((wait_gone or client.wait_gone)())
        try:
            while wait_s > 0:
                step_s = max(wait_s, WAIT_S_MIN)
                done, _ = await asyncio.wait({leaving}, timeout=step_s)
                if done:
                    raise ClientGone
                waited_s += step_s
                now = call.at + timedelta(seconds=waited_s)
                wait_s = self.budgets.ahead_s(subject, now, waited_s)
        finally:
            leaving.cancel()
        # Its window, its price and its record are those of the instant it was let in.
        call.at = now
        call.started_at_us = epoch_us(now)
        call.started_s += waited_s
        self._look_again(call, client)
        call.flags.append(f"{_THROTTLED} {waited_s:.3f} s")
        call.notes.append(("x-taximeter-throttled", f"{waited_s:.3f}"))
        if slow is not None:
            self.watcher.acted(slow, "throttle")

    def _look_again(self, call: OpenCall, client: Client) -> None:
        """Ask anew what may have changed while a call waited: its key, its tags, the prices."""
        assert call.provider is not None
        assert call.facts is not None
        admission = self.admission
        admission.identify(call, client)
        assert call.caller is not None
        admission.check_allowed(call.caller, call.provider.id, call.model, call.facts)
        call.book = admission.prices.at(call.at)
        call.flags = []
        admission.tag(call, client)

    async def find_room(self, call: OpenCall, client: Client, refused: BudgetRefused) -> None:
        """Find another way to let a call in, and hold what it can come to there.

        Args:
            call: Priced; no budget holds anything for it.
            client: The one who called.
            refused: Why it was not let in as it is.

        Raises:
            BudgetRefused: There is none; the call is as it was.
        """
        for name, budget in self._fallbacks(call, refused.exhausted):
            if await self._fall_back(call, client, name, budget):
                self.watcher.acted(budget, "fallback")
                return
        if not await self._cap(call, refused, _reader_of(call)):
            raise refused

    async def find_cap(self, call: OpenCall, refused: BudgetRefused, read: Reader) -> None:
        """Limit the answer of a response in a session, so that it fits, and hold that.

        Args:
            call: Priced; no budget holds anything for it. Its body becomes the frame to send.
            refused: Why it was not let in as it is.
            read: Reads a frame.

        Raises:
            BudgetRefused: No limit makes it fit; the call is as it was.
        """
        if not await self._cap(call, refused, read):
            raise refused

    def _fallbacks(self, call: OpenCall, first: BudgetExhausted) -> list[tuple[str, str]]:
        """List the models that budgets without room for a call name, and the first that names each.

        The budget that refused comes first, then all others in their order.
        """
        found: dict[str, str] = {}
        asked = Demand(cost_pico=call.ceiling_pico, tokens=call.ceiling_tokens)
        for budget in (first.budget, *self.budgets.lacking(subject_of(call), asked, call.at)):
            if budget.actions.fallback is not None:
                found.setdefault(budget.actions.fallback, budget.id)
        return list(found.items())[:FALLBACKS_MAX]

    async def _fall_back(self, call: OpenCall, client: Client, name: str, budget: str) -> bool:
        """Send a call to another model, where that one is allowed and fits; capped at need."""
        assert call.provider is not None
        if name == f"{call.provider.id}/{call.model}" or IN_PLACE_OF in (call.origin or ""):
            return False
        before = {field: getattr(call, field) for field in _OF_MODEL}
        try:
            self._redirect(call, client, name, budget)
            if not call.is_translated:
                await self._hold(call)
        except (ModelNotAllowed, UnpricedModel, InvalidRequest, BadRequest, BudgetRefused) as no:
            log.info("no fallback id=%s budget=%s to=%s reason=%r", call.id, budget, name, no)
            for field, value in before.items():
                setattr(call, field, value)
            return False
        return True

    async def _hold(self, call: OpenCall) -> None:
        try:
            await self.admission.hold(call)
        except BudgetRefused as again:
            if not await self._cap(call, again, _reader_of(call)):
                raise

    def _redirect(self, call: OpenCall, client: Client, name: str, budget: str) -> None:
        """Go with a call through the steps up to its price once more, for another model."""
        assert call.surface is not None
        assert call.provider is not None
        assert call.facts is not None
        assert call.caller is not None
        assert call.book is not None
        admission, asked_for = self.admission, f"{call.provider.id}/{call.model}"
        found, surface = admission.router.find_fallback(
            call.surface, (call.asked.method, client.path), name, call.book
        )
        if not found.is_translated:
            self._rename(call, surface, found.model)
            call.format = found.format
            # The name in the record is the one the client asked for.
            facts = call.format.read_facts(call.asked)
            if not found.model.endswith(facts.model):
                raise InvalidRequest(f"the request cannot be sent to {name} instead")
            call.facts = msgspec.structs.replace(facts, model=call.facts.model)
        call.surface, call.is_translated = surface, found.is_translated
        call.provider, call.model, call.path = found.provider, found.model, found.path
        admission.check_allowed(call.caller, call.provider.id, call.model, call.facts)
        waited = [flag for flag in call.flags if flag.startswith(_THROTTLED)]
        _forget_price(call)
        admission.tag(call, client)
        call.flags += waited
        if not call.is_translated:
            admission.price(call)
        call.replaced = f"{asked_for}, which budget {budget} had no room for"
        call.flags.append(f"fallback: in place of {call.replaced}")
        call.notes = [*call.notes, ("x-taximeter-fallback", f"{call.provider.id}/{call.model}")]

    def _rename(self, call: OpenCall, surface: Surface, model: str) -> None:
        """Name another model, where the request names its own: in the address or in the body."""
        assert call.facts is not None
        body = call.asked.body
        if surface is call.surface:
            if all(member.name != "model" for member in scan_members(body)):
                raise InvalidRequest("the request has no place for the name of another model")
            facts = msgspec.structs.replace(call.facts, wants_usage=True)
            body = call.format.prepare_body(call.asked, facts, model)
        call.asked = msgspec.structs.replace(call.asked, body=body, names=surface.names)

    async def _cap(self, call: OpenCall, refused: BudgetRefused, read: Reader) -> bool:
        """Limit the output of a call that names no limit itself, so that it fits.

        Raises:
            BudgetRefused: What no limit of the output gives room in.
        """
        room = _narrowed(Room(), refused)
        outline = self._outline_of(call, room, read)
        if outline is None:
            return False
        for _ in range(TRIES_MAX):
            capped = find_cap(outline, room, self._limits_of(outline))
            if capped is None:
                return False
            try:
                await self.admission.hold(call, capped.demand)
            except BudgetRefused as again:
                refused = again
                room = _narrowed(room, refused)
                continue
            self._apply(call, capped, outline, refused.exhausted.budget.id)
            return True
        return False

    async def hold_least(self, call: OpenCall, refused: BudgetRefused) -> None:
        """Hold what a response with the shortest answer can come to: one like that would be let in.

        Args:
            call: Priced; no budget holds anything for it.
            refused: Why it was not let in as it is.

        Raises:
            BudgetRefused: Not even that one.
        """
        assert call.provider is not None
        facts, reach = call.facts, call.reach
        takes_limit = limit_fields(call.format.api, call.provider.priced_as)
        if facts is None or reach is None or not takes_limit or facts.output_tokens_max is not None:
            raise refused
        least = Outline(reach=reach, card=call.card, answers=1, extra=facts.extra_output_max)
        try:
            await self.admission.hold(call, least.under(self.policy.output_cap_min).demand)
        except (BudgetRefused, Unbounded, UnpricedSku):
            raise refused from None

    def _limits_of(self, outline: Outline) -> tuple[int, int]:
        published = None if outline.card is None else outline.card.output_tokens_max
        return self.policy.output_cap_min, published or self.policy.output_cap_max

    def _outline_of(self, call: OpenCall, room: Room, read: Reader) -> Outline | None:
        """Say what a call comes to by its limit; ``None`` where it has one, or takes none."""
        facts, reach = call.facts, call.reach
        assert facts is not None
        if reach is None or facts.output_tokens_max is not None or facts.is_free:
            return None
        # A spent budget is met by every call: look before the body is read another time.
        least = Outline(reach=reach, card=call.card, answers=1, extra=facts.extra_output_max)
        try:
            if not room.holds(least.under(self.policy.output_cap_min).demand):
                return None
            body = self._body_under(call, 1)
            answers = 0 if body is None else read(body).output_tokens_max
        except (BadRequest, Unbounded, UnpricedSku):
            return None
        return replace(least, answers=answers) if answers else None

    def _body_under(self, call: OpenCall, limit: int) -> bytes | None:
        assert call.provider is not None
        if call.path.endswith(_UNCAPPED):
            return None
        fields = limit_fields(call.format.api, call.provider.priced_as)
        return cap_output(call.asked.body, fields, limit)

    def _apply(self, call: OpenCall, capped: Capped, outline: Outline, budget: str) -> None:
        assert call.facts is not None
        body = self._body_under(call, capped.limit)
        assert body is not None
        tokens_out = capped.limit * outline.answers
        call.asked = msgspec.structs.replace(call.asked, body=body)
        # The prompt is as long as before: what is added is no part of it.
        call.facts = msgspec.structs.replace(call.facts, output_tokens_max=tokens_out)
        call.reach = msgspec.structs.replace(
            outline.reach, output_tokens_max=tokens_out + outline.extra
        )
        call.ceiling = capped.ceiling
        call.ceiling_pico, call.ceiling_tokens = capped.demand.cost_pico, capped.demand.tokens
        call.flags = [flag for flag in call.flags if flag != _UNBOUNDED_OUTPUT]
        call.flags.append(f"output capped at {capped.limit} tokens: budget {budget} has no more")
        call.notes.append(("x-taximeter-output-cap", str(capped.limit)))
        self.watcher.acted(budget, "cap")


def _reader_of(call: OpenCall) -> Reader:
    return lambda body: call.format.read_facts(msgspec.structs.replace(call.asked, body=body))


def _narrowed(room: Room, refused: BudgetRefused) -> Room:
    narrowed = room.within(refused.exhausted)
    if narrowed is None:
        # It is this one that keeps the call out, whatever the others have left.
        raise refused
    return narrowed


def _forget_price(call: OpenCall) -> None:
    call.flags, call.gpus, call.is_request_priced = [], 0, False
    call.card = call.reach = call.ceiling = None
    call.ceiling_pico = call.ceiling_tokens = None


def relief_of(admission: Admission, settings: CapSettings, watcher: ActionWatcher) -> Relief:
    """Build the part.

    Args:
        admission: The steps of a call.
        settings: What decides.
        watcher: Counts what was done.

    Returns:
        The part.
    """
    policy = ReliefPolicy(
        output_cap_min=settings.output_cap_min, output_cap_max=settings.output_cap_max
    )
    return Relief(admission=admission, budgets=admission.budgets, policy=policy, watcher=watcher)
