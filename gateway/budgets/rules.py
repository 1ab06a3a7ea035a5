"""What a budget is, whom it applies to and what a refusal says. Pure.

Must never keep a counter or ask for the time.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType, NotRequired, TypedDict

import msgspec

from gateway.budgets.windows import BudgetWindow, WindowRule, parse_window
from pricing.money import money_from_text, pico_to_text

BudgetId = NewType("BudgetId", str)


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
    """

    id: BudgetId
    scope: Mapping[str, str]
    limit: int
    unit: Unit
    window: WindowRule
    mode: Mode = Mode.HARD
    thresholds: tuple[int, ...] = ()


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
        spent: Settled and parked so far in that window, in the budget's unit.
        held: Held by open calls in that window.
        asked: What the call asked for; ``None`` when nothing bounds it.
        room_at: When the same call would fit if no other came; ``None`` when it never would, or
            when that rests on calls still open.
    """

    budget: Budget
    window: BudgetWindow
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
    """

    budget: Budget
    window: BudgetWindow
    spent: int
    held: int
    parked: int

    @property
    def remaining(self) -> int:
        """Limit minus spent minus held; negative when a soft budget is overrun."""
        return self.budget.limit - self.spent - self.held


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


def is_rate_limit(window: BudgetWindow) -> bool:
    """Tell whether a refusal in this window is a rate limit rather than a spent budget.

    Args:
        window: The window that said no.

    Returns:
        True for windows of a minute or less.
    """
    return window.end is not None and (window.end - window.start).total_seconds() <= 60


def window_of(budget: Budget, at: datetime) -> BudgetWindow:
    """Find the window an instant falls in.

    Args:
        budget: Any budget.
        at: Aware instant.

    Returns:
        Half-open window with ``start <= at < end``; ``end`` is ``None`` for ``total``.
    """
    return budget.window.window_at(at)


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
        mode: ``hard``, ``soft`` or ``observe``; ``hard`` when not given.
        thresholds: Percentages of the limit that raise an alert; none when not given.
    """

    id: str
    scope: Mapping[str, str]
    limit: str
    window: str
    timezone: NotRequired[str]
    mode: NotRequired[str]
    thresholds: NotRequired[Sequence[int]]


def budget_from_config(definition: BudgetDefinition) -> Budget:
    """Read a budget as the configuration and the API write it.

    Args:
        definition: Fields of the right types; what they say is checked here.

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
    return Budget(
        id=BudgetId(definition["id"]),
        scope=scope,
        limit=limit,
        unit=unit,
        window=parse_window(definition["window"], definition.get("timezone", "UTC")),
        mode=Mode(mode),
        thresholds=thresholds,
    )


def budget_to_config(budget: Budget) -> BudgetDefinition:
    """Write a budget so that ``budget_from_config`` reads the same one back.

    Args:
        budget: Any budget.

    Returns:
        Every field, defaults written out.
    """
    return BudgetDefinition(
        id=budget.id,
        scope=dict(budget.scope),
        limit=f"{amount_to_text(budget.limit, budget.unit)} {budget.unit.value}",
        window=budget.window.text,
        timezone=budget.window.timezone,
        mode=budget.mode.value,
        thresholds=list(budget.thresholds),
    )
