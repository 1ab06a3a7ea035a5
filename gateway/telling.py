"""What answers say about budgets beside their rest: rate limits in the usual headers, and warnings.

Must never contradict a tighter limit that the provider itself tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from gateway.budgets.counters import Account, RollingAccount
from gateway.budgets.holds import Hold
from gateway.budgets.rules import BudgetExhausted, BudgetStatus, Unit, is_rate_budget
from gateway.clock import epoch_us, to_rfc3339
from gateway.headers import RawHeaders
from gateway.routes import Surface

WARNING: Final = "x-taximeter-budget-warning"
_ANTHROPIC: Final = "anthropic."
_MISTRAL: Final = "mistral."
# No remaining amount is longer; what is, is no number worth reading.
_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A rate limit as of an instant.

    Attributes:
        unit: Requests or tokens.
        limit: Most in a window.
        remaining: What is left of it.
        reset_at: When all of it is there again.
    """

    unit: Unit
    limit: int
    remaining: int
    reset_at: datetime


# Limit and remaining, and reset where there is a name for it.
Names = tuple[str, ...]


def _openai_names(unit: Unit) -> Names:
    return (
        f"x-ratelimit-limit-{unit}",
        f"x-ratelimit-remaining-{unit}",
        f"x-ratelimit-reset-{unit}",
    )


def _anthropic_names(unit: Unit) -> Names:
    prefix = f"anthropic-ratelimit-{unit}"
    return f"{prefix}-limit", f"{prefix}-remaining", f"{prefix}-reset"


# Sources: https://platform.openai.com/docs/guides/rate-limits and
# https://platform.claude.com/docs/en/api/rate-limits, checked 2026-11-23. Mistral documents none;
# these are in its answers of 2026-06. Google, Bedrock, Cohere and Ollama tell none (Cohere does to
# trial keys only): their callers get OpenAI's, which other APIs have taken up.
_OPENAI_NAMES: Final[Mapping[Unit, Names]] = MappingProxyType(
    {unit: _openai_names(unit) for unit in (Unit.REQUESTS, Unit.TOKENS)}
)
_ANTHROPIC_NAMES: Final[Mapping[Unit, Names]] = MappingProxyType(
    {unit: _anthropic_names(unit) for unit in (Unit.REQUESTS, Unit.TOKENS)}
)
_MISTRAL_NAMES: Final[Mapping[Unit, Names]] = MappingProxyType(
    {
        unit: (f"x-ratelimit-limit-{word}-minute", f"x-ratelimit-remaining-{word}-minute")
        for unit, word in ((Unit.REQUESTS, "req"), (Unit.TOKENS, "tokens"))
    }
)


def rate_limits(hold: Hold, at: datetime) -> tuple[RateLimit, ...]:
    """Find the tightest rate limit of a call in each unit.

    Args:
        hold: Of the call, ended or not.
        at: Aware instant.

    Returns:
        At most one limit of requests and one of tokens.
    """
    best: dict[Unit, RateLimit] = {}
    for account in hold.told:
        if not account.is_rate:
            continue
        status = account.status(at)
        reset_at = status.window.end
        if isinstance(account, RollingAccount):
            reset_at = account.counter.fresh_at(at)
        if reset_at is not None:
            _keep_tighter(best, _limit_of(status, reset_at))
    return tuple(best.values())


def refused_limits(exhausted: BudgetExhausted) -> tuple[RateLimit, ...]:
    """Tell the rate limit that refused a call.

    Args:
        exhausted: Why it was refused.

    Returns:
        That limit; nothing where another kind of budget refused.
    """
    reset_at = exhausted.room_at or exhausted.window.end
    if reset_at is None or not is_rate_budget(exhausted.budget):
        return ()
    return (
        RateLimit(
            unit=exhausted.budget.unit,
            limit=exhausted.limit,
            remaining=max(0, exhausted.limit - exhausted.spent - exhausted.held),
            reset_at=reset_at,
        ),
    )


def _limit_of(status: BudgetStatus, reset_at: datetime) -> RateLimit:
    return RateLimit(
        unit=status.budget.unit,
        limit=status.limit,
        remaining=max(0, status.remaining),
        reset_at=reset_at,
    )


def _keep_tighter(best: dict[Unit, RateLimit], limit: RateLimit) -> None:
    known = best.get(limit.unit)
    if known is None or limit.remaining < known.remaining:
        best[limit.unit] = limit


def words_of(api: str, surface: Surface | None) -> str:
    """Tell in whose words a caller is told of rate limits.

    Args:
        api: Name of the wire format the caller speaks.
        surface: What the address told; ``None`` where nothing did.

    Returns:
        The same; Mistral's at its own address, where chats are in OpenAI's format.
    """
    own = None if surface is None else surface.provider
    return _MISTRAL if own is not None and own.kind == "mistral" else api


def add_rate_limits(
    headers: RawHeaders, limits: Sequence[RateLimit], api: str, at: datetime
) -> RawHeaders:
    """Write rate limits in the words of the caller's API.

    Args:
        headers: Of the answer so far.
        limits: At most one of each unit.
        api: As ``words_of`` gives it.
        at: Aware instant.

    Returns:
        The same headers with the limits. Where the provider tells one of the same unit, the one
        with less remaining stands.
    """
    is_anthropic = api.startswith(_ANTHROPIC)
    names_of = _ANTHROPIC_NAMES if is_anthropic else _OPENAI_NAMES
    if api.startswith(_MISTRAL):
        names_of = _MISTRAL_NAMES
    for limit in limits:
        names = names_of[limit.unit]
        told = next((value for name, value in headers if name == names[1]), "")
        if told.isdecimal() and len(told) <= _DIGITS_MAX and int(told) < limit.remaining:
            continue
        reset = to_rfc3339(epoch_us(limit.reset_at)) if is_anthropic else _duration(limit, at)
        values = (str(limit.limit), str(limit.remaining), reset)
        headers = [header for header in headers if header[0] not in names]
        headers += zip(names, values[: len(names)], strict=True)
    return headers


def _duration(limit: RateLimit, at: datetime) -> str:
    """Write a span as OpenAI does: ``250ms``, ``1s``, ``6m0s``; never shorter than it is."""
    milliseconds = max(0, -(-(epoch_us(limit.reset_at) - epoch_us(at)) // 1000))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, seconds = divmod(-(-milliseconds // 1000), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def warnings_of(hold: Hold, at: datetime) -> RawHeaders:
    """Tell which budgets that warn are past a threshold or their limit.

    Args:
        hold: Of the call, ended or not.
        at: Aware instant.

    Returns:
        One header that lists them with the share of the limit that is spent; none where all is
        well.
    """
    said = [
        text
        for account in hold.told
        if account.budget.actions.warns and (text := _warning_of(account, at))
    ]
    return [(WARNING, ", ".join(said))] if said else []


def _warning_of(account: Account, at: datetime) -> str:
    status = account.status(at)
    percent = status.spent * 100 // status.limit
    crossed = min((*account.budget.thresholds, 100))
    return f"{status.budget.id}={percent}%" if percent >= crossed else ""
