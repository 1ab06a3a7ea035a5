"""Estimates and comparisons as the API and the command line show them.

Must never compute a cost: what is written here was rated before.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, Final

from gateway.clock import epoch_us, to_rfc3339
from gateway.estimating import Estimate, NoSuchTier, Offer, Rated
from gateway.ledger.lines import to_ledger_lines
from gateway.ledger.record import line_to_public
from gateway.usual import Usual
from pricing.money import Money
from pricing.rating import UnpricedSku

# What two models are compared by: the first of these that is known of the model asked for.
_TELLING: Final = ("cost", "expected", "ceiling", "low")
_RATIO_DIGITS: Final = Context(prec=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One model of a comparison.

    Attributes:
        provider: Provider as the caller knows it.
        model: Model likewise.
        costs: What the call costs there, by ``cost`` or by ``low``, ``expected`` and ``ceiling``;
            ``None`` where that is not known.
        counted_as: As in ``Rated``.
        note: Why nothing is known, or what speaks against the call; ``None`` when all is well.
    """

    provider: str
    model: str
    costs: Mapping[str, Money | None]
    counted_as: Mapping[str, str]
    note: str | None = None


def offer_to_public(offer: Offer, at: datetime) -> dict[str, Any]:
    """Write at which prices something was worked out.

    Args:
        offer: Any offer.
        at: Instant the prices hold at.

    Returns:
        Fields in their published order.
    """
    return {
        "provider": offer.provider,
        "model": offer.model,
        "price_version": offer.card.version,
        "currency": offer.card.currency,
        "service_tier": offer.terms.tier,
        "region": offer.terms.region,
        "at": to_rfc3339(epoch_us(at)),
    }


def rated_to_public(rated: Rated) -> dict[str, Any]:
    """Write rated usage.

    Args:
        rated: Any.

    Returns:
        Cost and lines as a record has them.
    """
    return {
        "cost": str(rated.cost),
        "list_cost": str(rated.list_cost),
        "lines": [line_to_public(line) for line in to_ledger_lines(rated.lines)],
    }


def estimate_to_public(estimate: Estimate) -> dict[str, Any]:
    """Write an estimate.

    Args:
        estimate: Any.

    Returns:
        The three costs, what each rests on, and why one is missing.
    """
    usual = estimate.usual
    return {
        "low": _bound_to_public(estimate.low),
        "expected": _bound_to_public(estimate.expected),
        "expected_from": estimate.expected_from,
        "history": _usual_to_public(usual) if isinstance(usual, Usual) else None,
        "no_history": None if isinstance(usual, Usual) else usual.why,
        "ceiling": _bound_to_public(estimate.ceiling),
        "unbounded": estimate.unbounded,
        "note": estimate.note,
    }


def choice_of(estimate: Estimate) -> Choice:
    """Take an estimate into a comparison.

    Args:
        estimate: Any.

    Returns:
        Its three costs.
    """
    parts = {"low": estimate.low, "expected": estimate.expected, "ceiling": estimate.ceiling}
    return Choice(
        provider=estimate.offer.provider,
        model=estimate.offer.model,
        costs={name: None if part is None else part.cost for name, part in parts.items()},
        counted_as={} if estimate.expected is None else _names(estimate.expected),
        note=estimate.note,
    )


def choice_of_rated(offer: Offer, rated: Rated) -> Choice:
    """Take rated usage into a comparison.

    Args:
        offer: At which prices.
        rated: The usage.

    Returns:
        Its cost.
    """
    return Choice(
        provider=offer.provider,
        model=offer.model,
        costs={"cost": rated.cost},
        counted_as=_names(rated),
    )


def choose(names: tuple[str, str], parts: Iterable[str], work_out: Callable[[], Choice]) -> Choice:
    """Take a model into a comparison, also one on which the call is not sold.

    Args:
        names: Provider and model.
        parts: Names of the costs compared.
        work_out: Makes the choice.

    Returns:
        The choice, or one whose costs are unknown and that says why.
    """
    try:
        return work_out()
    except (NoSuchTier, UnpricedSku) as gap:
        return Choice(
            provider=names[0],
            model=names[1],
            costs=dict.fromkeys(parts),
            counted_as={},
            note=str(gap),
        )


def comparison_to_public(choices: list[Choice]) -> dict[str, Any]:
    """Write a comparison.

    Args:
        choices: At least one; the others are compared with the first.

    Returns:
        ``by``: the cost compared. ``models``: each with its costs and, as decimal text of four
        digits, how many times the first one's that is; null where either is unknown or zero.
    """
    first = choices[0]
    by = next(name for name in _TELLING if first.costs.get(name) is not None)
    return {
        "by": by,
        "models": [
            {
                "provider": choice.provider,
                "model": choice.model,
                **{name: None if n is None else str(n) for name, n in choice.costs.items()},
                "ratio": _ratio(choice.costs.get(by), first.costs[by]),
                "counted_as": dict(choice.counted_as),
                "note": choice.note,
            }
            for choice in choices
        ],
    }


def _ratio(cost: Money | None, base: Money | None) -> str | None:
    if cost is None or base is None or not base.pico or cost.currency != base.currency:
        return None
    return f"{_RATIO_DIGITS.divide(Decimal(cost.pico), Decimal(base.pico)).normalize():f}"


def _bound_to_public(rated: Rated | None) -> dict[str, Any] | None:
    if rated is None:
        return None
    shown = rated_to_public(rated)
    return {
        "cost": shown["cost"],
        "list_cost": shown["list_cost"],
        "input_tokens": rated.tokens("input"),
        "output_tokens": rated.tokens("output"),
        "counted_as": _names(rated),
        "lines": shown["lines"],
    }


def _usual_to_public(usual: Usual) -> dict[str, Any]:
    return {
        "scope": usual.scope,
        "id": usual.id,
        "records": usual.calls.records,
        "first_day": to_rfc3339(usual.calls.first_us)[:10],
        "last_day": to_rfc3339(usual.calls.last_us)[:10],
        "output_tokens": usual.output_tokens,
        "cached_percent": usual.cached_percent,
    }


def _names(rated: Rated) -> dict[str, str]:
    return {meter.value: there.value for meter, there in rated.counted_as.items()}
