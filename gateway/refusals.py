"""Every way the gateway says no, and the one table that gives each its status and code.

Must never say more about another caller, a key or a prompt than the caller already knows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from gateway.budgets.rules import BudgetExhausted, amount_to_text, is_rate_limit
from gateway.budgets.windows import RollingWindow
from gateway.clock import epoch_us, to_rfc3339
from gateway.upstream import UpstreamFailed, UpstreamTimedOut, UpstreamUnsent
from gateway.wire.facts import ErrorBody

RETRY_AFTER_S_MAX: Final = 60


class Refusal(Exception):
    """A normal "no": nothing is wrong with the gateway and nothing was sent to a provider."""


@dataclass(eq=False)
class KeyRefused(Refusal):
    """The key is missing, unknown, revoked or expired.

    Attributes:
        is_missing: Whether the request carried no key at all.
    """

    is_missing: bool


@dataclass(eq=False)
class ModelNotAllowed(Refusal):
    """The key may not call this model, or no provider serves it.

    Attributes:
        model: As the client named it.
        hint: What to do.
    """

    model: str
    hint: str


@dataclass(eq=False)
class TagsRefused(Refusal):
    """The tags break the tag policy.

    Attributes:
        violations: One sentence each.
    """

    violations: tuple[str, ...]


@dataclass(eq=False)
class UnpricedModel(Refusal):
    """The price book has no price for the model, or for the tier asked for.

    Attributes:
        provider: Provider id.
        model: As the client named it.
        version: Book version asked.
        reason: What has no price.
    """

    provider: str
    model: str
    version: str
    reason: str


@dataclass(eq=False)
class BudgetRefused(Refusal):
    """A budget has no room for the call.

    Attributes:
        exhausted: Which budget, and its numbers.
        retry_after_s: Seconds until a rate limit's window ends; ``None`` for a spent budget.
    """

    exhausted: BudgetExhausted
    retry_after_s: int | None = None


@dataclass(eq=False)
class RequestTooLarge(Refusal):
    """The body is larger than ``server.body_bytes_max``.

    Attributes:
        limit: That many bytes.
    """

    limit: int


@dataclass(eq=False)
class InvalidRequest(Refusal):
    """The request cannot be understood.

    Attributes:
        reason: What is wrong and what to do.
        status: 400, or 404 and 405 for paths and methods that are not metered.
    """

    reason: str
    status: int = 400


@dataclass(eq=False)
class StoreDown(Refusal):
    """A store this request's guarantees need is down.

    Attributes:
        store: Which.
    """

    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one refusal looks on the wire.

    Attributes:
        status: HTTP status.
        code: Stable code.
        kind: Error type in OpenAI's words.
    """

    status: int
    code: str
    kind: str


ROWS: Final[Mapping[type[Refusal], Row]] = MappingProxyType(
    {
        KeyRefused: Row(status=401, code="invalid_api_key", kind="invalid_request_error"),
        ModelNotAllowed: Row(status=403, code="model_not_allowed", kind="permission_error"),
        TagsRefused: Row(status=400, code="tag_policy", kind="invalid_request_error"),
        UnpricedModel: Row(status=403, code="unpriced_model", kind="permission_error"),
        BudgetRefused: Row(status=429, code="budget_exceeded", kind="insufficient_quota"),
        RequestTooLarge: Row(status=413, code="request_too_large", kind="invalid_request_error"),
        InvalidRequest: Row(status=400, code="invalid_request", kind="invalid_request_error"),
        StoreDown: Row(status=503, code="store_unavailable", kind="server_error"),
    }
)

NO_DETAILS: Final[Mapping[str, object]] = MappingProxyType({})
UNREACHABLE: Final = Row(status=502, code="upstream_unreachable", kind="server_error")
TIMED_OUT: Final = Row(status=504, code="upstream_timeout", kind="server_error")
RATE_LIMITED: Final = Row(status=429, code="rate_limited", kind="rate_limit_error")


def to_error(refusal: Refusal) -> ErrorBody:
    """Put a refusal in words.

    Args:
        refusal: Any refusal.

    Returns:
        Status, code, type, message and the facts a program may want.

    Raises:
        KeyError: The refusal has no row; a test keeps this from happening.
    """
    row = ROWS[type(refusal)]
    status, details = row.status, NO_DETAILS
    if isinstance(refusal, BudgetRefused):
        details = _budget_facts(refusal.exhausted)
        if refusal.retry_after_s is not None:
            details = {**details, "retry_after_s": refusal.retry_after_s}
        no = refusal.exhausted
        row = RATE_LIMITED if is_rate_limit(no.budget, no.window) else row
    elif isinstance(refusal, InvalidRequest):
        status = refusal.status
    return ErrorBody(
        status=status,
        code=row.code,
        kind=row.kind,
        message=_WORDS[type(refusal)](refusal),
        details=details,
    )


def _say_key(refused: KeyRefused) -> str:
    if refused.is_missing:
        return "no API key: send the virtual key where the SDK puts its API key"
    return "this API key is unknown, revoked or expired: ask an admin for a new one"


def _say_model(refused: ModelNotAllowed) -> str:
    return f"model {refused.model!r} is not available to this key: {refused.hint}"


def _say_tags(refused: TagsRefused) -> str:
    return "the tags of this request break the tag policy: " + "; ".join(refused.violations)


def _say_unpriced(refused: UnpricedModel) -> str:
    return (
        f"price book {refused.version} has no price for {refused.provider}/{refused.model} "
        f"({refused.reason}); unpriced models are blocked by metering.unpriced. "
        "GET /v1/models lists those with a price; an admin can set one: taximeter prices set"
    )


def _say_budget(refused: BudgetRefused) -> str:
    return _budget_message(refused.exhausted)


def _say_size(refused: RequestTooLarge) -> str:
    return f"the request body is larger than {refused.limit} bytes (server.body_bytes_max)"


def _say_invalid(refused: InvalidRequest) -> str:
    return refused.reason


def _say_store(refused: StoreDown) -> str:
    return f"the {refused.store} this request's guarantees need is down; try again later"


_WORDS: Final[Mapping[type[Refusal], Callable[[Any], str]]] = MappingProxyType(
    {
        KeyRefused: _say_key,
        ModelNotAllowed: _say_model,
        TagsRefused: _say_tags,
        UnpricedModel: _say_unpriced,
        BudgetRefused: _say_budget,
        RequestTooLarge: _say_size,
        InvalidRequest: _say_invalid,
        StoreDown: _say_store,
    }
)


def to_failure(failed: UpstreamFailed) -> ErrorBody:
    """Put a failure of the provider in words.

    Args:
        failed: What went wrong.

    Returns:
        Status, code, type and message; nothing of the provider's answer.
    """
    row = TIMED_OUT if isinstance(failed, UpstreamTimedOut) else UNREACHABLE
    match failed:
        case UpstreamTimedOut():
            message = "the provider was silent for longer than its timeout_s"
        case UpstreamUnsent():
            message = "the provider cannot be reached; nothing was sent"
        case _:
            message = "the provider broke off its answer"
    return ErrorBody(status=row.status, code=row.code, kind=row.kind, message=message, details={})


def _budget_facts(exhausted: BudgetExhausted) -> Mapping[str, object]:
    budget, unit = exhausted.budget, exhausted.budget.unit
    end = exhausted.window.end
    return {
        "budget": budget.id,
        "unit": unit.value,
        "limit": amount_to_text(exhausted.limit, unit),
        "spent": amount_to_text(exhausted.spent, unit),
        "reserved": amount_to_text(exhausted.held, unit),
        "asked": None if exhausted.asked is None else amount_to_text(exhausted.asked, unit),
        "window_start": to_rfc3339(epoch_us(exhausted.window.start)),
        "window_end": None if end is None else to_rfc3339(epoch_us(end)),
    }


def _budget_message(exhausted: BudgetExhausted) -> str:
    facts = _budget_facts(exhausted)
    unit, asked = facts["unit"], facts["asked"]
    until = f"until {facts['window_end']}" if facts["window_end"] else "for good"
    if isinstance(exhausted.budget.window, RollingWindow):
        # Its window ends now, at any time: what counts is when enough has aged out.
        room_at = exhausted.room_at
        until = "for now" if room_at is None else f"until {to_rfc3339(epoch_us(room_at))}"
    wanted = (
        "this call has no upper bound: set max_completion_tokens"
        if asked is None
        else f"this call could need {asked} {unit}"
    )
    return (
        f"budget {facts['budget']!r} has no room {until}: limit {facts['limit']} {unit}, "
        f"spent {facts['spent']}, reserved {facts['reserved']}; {wanted}"
    )
