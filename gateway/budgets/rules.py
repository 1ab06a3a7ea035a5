"""What a budget is, whom it applies to and what a refusal says. Pure.

Must never keep a counter or ask for the time.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, NewType, NotRequired, TypedDict

import msgspec

from gateway.budgets.actions import NO_ACTIONS, BudgetActions, parse_actions
from gateway.budgets.windows import (
    BudgetWindow,
    RollingWindow,
    TotalWindow,
    WindowRule,
    parse_window,
)
from gateway.clock import EPOCH
from pricing.money import money_from_text, pico_to_text

BudgetId = NewType("BudgetId", str)

_TICK: Final = timedelta(microseconds=1)
_RATE_LIMIT_S_MAX: Final = 60


OnStoreDown = Literal["closed", "open"]


class Unit(StrEnum):
    """What a budget limits; amounts are 10^-12 USD for ``USD`` and whole counts otherwise."""

    USD = "USD"
    TOKENS = "tokens"
    REQUESTS = "requests"


class Mode(StrEnum):
    """What happens at the limit: refuse, warn, or only count."""

    HARD = "hard"
    SOFT = "soft"
    OBSERVE = "observe"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a call that a budget's scope can name.

    Attributes:
        organization: Organisation id. The next three likewise.
        team: Team id.
        project: Project id.
        key: Key id.
        provider: Provider id of the configuration.
        model: Model as requested, without the provider prefix.
        user: End user, when named.
        tags: Tags in force.
    """

    organization: str
    team: str
    project: str
    key: str
    provider: str
    model: str
    user: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """An amount added to one window of a budget, once.

    Attributes:
        at: An instant of the window.
        amount: In the budget's unit; more than nothing.
    """

    at: datetime
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit over a window for a scope.

    Attributes:
        id: Name of the budget.
        scope: Scope key (``organization``, ``team``, ``project``, ``key``, ``user``, ``model``,
            ``provider``, ``tag.<name>``) to the value it must have; all must match; empty matches
            every call.
        limit: Largest amount in a window, in ``unit``.
        unit: What is limited.
        window: When the counter starts again.
        mode: What happens at the limit.
        thresholds: Percentages of the limit that raise an alert.
        valid_from: First instant whose calls count; ``None`` for any.
        valid_to: First instant whose calls count no longer; ``None`` for never.
        rollover_max: Most that a window takes over of what the one before left; ``None`` for
            nothing.
        top_ups: What was added to single windows.
        actions: What it does beside refusing.
        on_store_down: Whether calls go on where the store that workers share cannot be asked;
            ``None`` closes hard budgets and leaves others open.
    """

    id: BudgetId
    scope: Mapping[str, str]
    limit: int
    unit: Unit
    window: WindowRule
    mode: Mode = Mode.HARD
    thresholds: tuple[int, ...] = ()
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    rollover_max: int | None = None
    top_ups: tuple[TopUp, ...] = ()
    actions: BudgetActions = NO_ACTIONS

    def is_in_force(self, at: datetime) -> bool:
        """Tell whether calls of an instant count.

        Args:
            at: Aware instant.

        Returns:
            Whether it lies between ``valid_from`` and ``valid_to``.
        """
        return not (
            (self.valid_from is not None and at < self.valid_from)
            or (self.valid_to is not None and at >= self.valid_to)
        )

    on_store_down: OnStoreDown | None = None


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a call asks to hold, or has used, in every unit at once.

    Attributes:
        cost_pico: Money in 10^-12 USD; ``None`` when it cannot be bounded or is unknown.
        tokens: Input plus output tokens; ``None`` likewise.
        requests: Number of requests.
    """

    cost_pico: int | None
    tokens: int | None
    requests: int = 1

    def amount(self, unit: Unit) -> int | None:
        """Read the amount in one unit.

        Args:
            unit: Any unit.

        Returns:
            The amount, or ``None`` when it is unknown.
        """
        if unit is Unit.USD:
            return self.cost_pico
        return self.tokens if unit is Unit.TOKENS else self.requests


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetExhausted:
    """A hold that did not fit; nothing was held anywhere.

    Attributes:
        budget: The budget that said no.
        window: The window it said no for.
        limit: Largest amount in that window.
        spent: Settled and parked so far in that window, in the budget's unit.
        held: Held by open calls in that window.
        asked: What the call asked for; ``None`` when nothing bounds it.
        room_at: When the same call would fit if no other came; ``None`` when it never would, or
            when that rests on calls still open.
    """

    budget: Budget
    window: BudgetWindow
    limit: int
    spent: int
    held: int
    asked: int | None
    room_at: datetime | None = None


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A budget's counters at one instant.

    Attributes:
        budget: The budget.
        window: The window that holds now.
        spent: Settled plus parked, in the budget's unit.
        held: Held by open calls.
        parked: The part of ``spent`` whose true amount is not known; counted at its ceiling.
        limit: Largest amount in the window, with what was topped up and rolled over.
        topped_up: The part of ``limit`` that was added to this window alone.
        rolled_over: The part of ``limit`` that the window before left.
        is_in_force: Whether calls count now; where not, the window is the first or the last one.
        since: First instant that has been counted where the window's start does not tell;
            ``None`` where it does, or nobody knows.
    """

    budget: Budget
    window: BudgetWindow
    spent: int
    held: int
    parked: int
    limit: int
    topped_up: int = 0
    rolled_over: int = 0
    is_in_force: bool = True
    since: datetime | None = None

    @property
    def remaining(self) -> int:
        """Limit minus spent minus held; negative when a soft budget is overrun."""
        return self.limit - self.spent - self.held


def is_in_scope(scope: Mapping[str, str], subject: Subject) -> bool:
    """Tell whether every part of a scope matches a call.

    Args:
        scope: As in ``Budget.scope``.
        subject: The call.

    Returns:
        True when all parts match; an empty scope matches every call.
    """
    return all(read_part(part, subject) == wanted for part, wanted in scope.items())


def read_part(part: str, subject: Subject) -> str | None:
    """Read what a call has for one part of a scope.

    Args:
        part: A key of ``Budget.scope``.
        subject: The call.

    Returns:
        The value; ``None`` when the call names no user or lacks the tag.
    """
    if part.startswith("tag."):
        return subject.tags.get(part.removeprefix("tag."))
    value: str | None = getattr(subject, part)
    return value


def is_rate_limit(budget: Budget, window: BudgetWindow) -> bool:
    """Tell whether a refusal in this window is a rate limit rather than a spent budget.

    Args:
        budget: The budget that said no.
        window: Its window that said no.

    Returns:
        True for windows of a minute or less; not for a longer one that the budget's own beginning
        or end has cut short.
    """
    if window.end is None:
        return False
    length_s = (window.end - window.start).total_seconds()
    if length_s > _RATE_LIMIT_S_MAX:
        return False
    whole = budget.window.window_at(window.start)
    return whole.end is not None and (whole.end - whole.start).total_seconds() <= _RATE_LIMIT_S_MAX


def is_rate_budget(budget: Budget) -> bool:
    """Tell whether a budget is a rate limit, of which answers tell in the usual headers.

    Args:
        budget: Any budget.

    Returns:
        True for a limit of requests or tokens over a minute or less.
    """
    if budget.unit is Unit.USD or budget.mode is Mode.OBSERVE:
        return False
    return is_rate_limit(budget, budget.window.window_at(EPOCH))


def window_of(budget: Budget, at: datetime) -> BudgetWindow:
    """Find the window an instant falls in, cut to the time in which the budget is in force.

    Args:
        budget: Any budget.
        at: Aware instant.

    Returns:
        Half-open window with ``start <= at < end``; ``end`` is ``None`` when it never ends. Before
        the budget is in force its first window, and afterwards its last one.
    """
    first, last = budget.valid_from, budget.valid_to
    if first is None and last is None:
        return budget.window.window_at(at)
    if last is not None and at >= last:
        at = last - _TICK
    if first is not None and at < first:
        at = first
    window = budget.window.window_at(at)
    start, end = window.start, window.end
    return BudgetWindow(
        start if first is None or start > first else first,
        last if end is None or (last is not None and last < end) else end,
    )


PARTS: Final = ("organization", "team", "project", "key", "user", "model", "provider")
_LIMIT: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]+)?) (USD|tokens|requests)", re.ASCII)


def parse_limit(text: str) -> tuple[int, Unit]:
    """Read the limit of a budget.

    Args:
        text: ``500 USD``, ``2000000 tokens`` or ``100 requests``.

    Returns:
        The limit and its unit; 10^-12 USD for money, whole counts otherwise.

    Raises:
        ValueError: Not positive, finer than 10^-12 USD, or another form; says what is accepted.
    """
    match = _LIMIT.fullmatch(text)
    if match:
        amount, unit = match[1], Unit(match[2])
        try:
            limit = money_from_text(amount).pico if unit is Unit.USD else int(amount)
        except ValueError:
            limit = 0
        if limit > 0:
            return limit, unit
    raise ValueError(
        f'limit {text!r} is not accepted; write "<decimal> USD" with at most 12 decimals, '
        '"<int> tokens" or "<int> requests", greater than zero'
    )


def amount_to_text(amount: int, unit: Unit) -> str:
    """Write an amount the way the API and refusals show it.

    Args:
        amount: In 10^-12 USD for money, whole counts otherwise.
        unit: Its unit.

    Returns:
        Exact decimal text for money, digits otherwise; the unit is not part of it.
    """
    return pico_to_text(amount) if unit is Unit.USD else str(amount)


# As tags of a request are named: gateway.tags.TAG_NAME.
_TAG_PART: Final = re.compile(r"tag\.[a-z0-9._-]{1,64}")


def check_scope(scope: Mapping[str, str]) -> None:
    """Refuse a scope that could never be evaluated.

    Args:
        scope: As in ``Budget.scope``.

    Raises:
        ValueError: A part is not known or a value is empty; says what is accepted.
    """
    for part, value in scope.items():
        if part not in PARTS and not _TAG_PART.fullmatch(part):
            raise ValueError(
                f"scope part {part!r} is not known; write {', '.join(PARTS)} or tag.<name>, "
                "the name of a-z 0-9 . _ -"
            )
        if not value:
            raise ValueError(f"scope part {part!r} has no value; leave it out to match every call")


class BudgetDefinition(TypedDict):
    """A budget as the configuration and the API write it.

    Attributes:
        id: Name of the budget.
        scope: As in ``Budget.scope``.
        limit: Text for ``parse_limit``.
        window: Text for ``gateway.budgets.windows.parse_window``.
        timezone: IANA name; UTC when not given.
        anchor: Where windows begin, for ``parse_window``; the calendar's own when not given.
        mode: ``hard``, ``soft`` or ``observe``; ``hard`` when not given.
        thresholds: Percentages of the limit that raise an alert; none when not given.
        actions: Texts for ``gateway.budgets.actions.parse_actions``; none when not given.
        rollover: Whether a window takes over what the one before left, at most the limit; or the
            most it takes over, as text for ``parse_limit``. Not when not given.
        valid_from: First instant that counts; any when not given.
        valid_to: First instant that counts no longer; never when not given.
        on_store_down: ``closed`` or ``open``; by the mode when not given.
    """

    id: str
    scope: Mapping[str, str]
    limit: str
    window: str
    timezone: NotRequired[str]
    anchor: NotRequired[str | None]
    mode: NotRequired[str]
    thresholds: NotRequired[Sequence[int]]
    actions: NotRequired[Sequence[str]]
    rollover: NotRequired[bool | str]
    valid_from: NotRequired[datetime | None]
    valid_to: NotRequired[datetime | None]
    on_store_down: NotRequired[OnStoreDown | None]


def budget_from_config(definition: BudgetDefinition, top_ups: Iterable[TopUp] = ()) -> Budget:
    """Read a budget as the configuration and the API write it.

    Args:
        definition: Fields of the right types; what they say is checked here.
        top_ups: What was added to single windows of it, in its unit.

    Returns:
        The budget.

    Raises:
        ValueError: A field says something that is not accepted; names it and what is accepted.
    """
    scope = dict(definition["scope"])
    check_scope(scope)
    limit, unit = parse_limit(definition["limit"])
    thresholds = tuple(definition.get("thresholds", ()))
    if any(percent <= 0 for percent in thresholds):
        raise ValueError(f"thresholds {thresholds} are not accepted; write percentages above zero")
    mode = definition.get("mode", Mode.HARD.value)
    if mode not in {known.value for known in Mode}:
        raise ValueError(f"mode {mode!r} is not known; write hard, soft or observe")
    window = parse_window(
        definition["window"], definition.get("timezone", "UTC"), definition.get("anchor")
    )
    valid_from, valid_to = _read_validity(definition)
    rollover_max = _read_rollover(definition.get("rollover", False), limit, unit)
    if rollover_max is not None:
        _check_rollover(window, valid_from)
    return Budget(
        id=BudgetId(definition["id"]),
        scope=scope,
        limit=limit,
        unit=unit,
        window=window,
        mode=Mode(mode),
        thresholds=thresholds,
        actions=parse_actions(definition.get("actions", ()), mode, window),
        valid_from=valid_from,
        valid_to=valid_to,
        rollover_max=rollover_max,
        top_ups=tuple(top_ups),
        on_store_down=definition.get("on_store_down"),
    )


def _read_validity(definition: BudgetDefinition) -> tuple[datetime | None, datetime | None]:
    first, last = definition.get("valid_from"), definition.get("valid_to")
    for name, at in (("valid_from", first), ("valid_to", last)):
        if at is not None and at.tzinfo is None:
            raise ValueError(f"{name} {at.isoformat()} has no zone; end it with Z or an offset")
    if first is not None and last is not None and last <= first:
        raise ValueError("valid_to is not after valid_from: the budget would never be in force")
    return (
        None if first is None else first.astimezone(UTC),
        None if last is None else last.astimezone(UTC),
    )


def _read_rollover(rollover: bool | str, limit: int, unit: Unit) -> int | None:
    if isinstance(rollover, bool):
        return limit if rollover else None
    most = _amount_in(unit, rollover)
    if most is None:
        raise ValueError(
            f"rollover {rollover!r} is not accepted; write true, false or the most that is taken "
            f'over, such as "100 {unit.value}"'
        )
    return most


def _amount_in(unit: Unit, text: str) -> int | None:
    try:
        amount, its_unit = parse_limit(text)
    except ValueError:
        return None
    return amount if its_unit is unit else None


def _check_rollover(window: WindowRule, valid_from: datetime | None) -> None:
    has_earlier = not isinstance(window, TotalWindow | RollingWindow)
    if not has_earlier:
        raise ValueError(f"rollover does not fit the window {window.text!r}: none comes before it")
    if valid_from is None:
        raise ValueError(
            "rollover needs valid_from, where its first window begins: nothing is taken over from "
            "before"
        )


def budget_to_config(budget: Budget) -> BudgetDefinition:
    """Write a budget so that ``budget_from_config`` reads the same one back, but for its top-ups.

    Args:
        budget: Any budget.

    Returns:
        Every field, defaults written out.
    """

    def text(amount: int) -> str:
        return f"{amount_to_text(amount, budget.unit)} {budget.unit.value}"

    return BudgetDefinition(
        id=budget.id,
        scope=dict(budget.scope),
        limit=text(budget.limit),
        window=budget.window.text,
        timezone=budget.window.timezone,
        anchor=budget.window.anchor,
        mode=budget.mode.value,
        thresholds=list(budget.thresholds),
        actions=list(budget.actions.texts),
        rollover=False if budget.rollover_max is None else text(budget.rollover_max),
        valid_from=budget.valid_from,
        valid_to=budget.valid_to,
        on_store_down=budget.on_store_down,
    )
