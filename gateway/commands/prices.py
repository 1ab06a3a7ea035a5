"""``taximeter prices``: the prices in force, and why one applies. Must never change a price.

What changes them is in ``gateway.commands.price_changes`` and ``gateway.commands.candidates``.
"""

import argparse
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.commands import candidates, price_changes
from gateway.commands.books import read_book
from gateway.commands.cards import (
    AskedModel,
    add_payer,
    add_provider_and_at,
    find_card,
    payer_of,
    shelves_of,
)
from gateway.commands.context import read_settings
from gateway.commands.entities import instant_text
from gateway.commands.output import write_fields, write_json, write_line, write_note, write_table
from gateway.commands.parsing import Actions, add_json, parse_count
from pricing.agreements import Override, Payer
from pricing.explain import Considered, Explanation, PriceQuestion, explain_price, terms_of
from pricing.meters import Meter
from pricing.rates import CompiledRate, RateCard
from pricing.sku import STANDARD_TIER

_METER_ORDER: Final = {meter: position for position, meter in enumerate(Meter)}
# Columns that are left out of a table in which no price has anything to say there.
_SOMETIMES: Final = frozenset({"LIST PRICE", "PROMPT OVER", "REGION", "VARIANT", "HOURS", "AGREED"})
_PAYERS_MAX: Final = 5
_NUMBERS: Final = ("PRICE", "LIST PRICE", "PER", "PROMPT OVER")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    show = actions.add(
        "show",
        "show every price of a model in force, or why one of them applies",
        "show gpt-5\n"
        "show anthropic/claude-sonnet-4-5 --at 2026-06-01 --json\n"
        "show gpt-5 --team search\n"
        "show gemini-2.5-pro --why input --input-tokens 250000",
    )
    show.add_argument("model", help="model, or provider/model; aliases and snapshots are found")
    show.add_argument("--tier", help="one service tier only, such as standard or batch")
    show.add_argument(
        "--why", type=_parse_meter, metavar="METER", help="explain the price of a meter in a call"
    )
    show.add_argument("--input-tokens", type=parse_count, default=0, help="tokens of its prompt")
    show.add_argument("--region", help="region class it was served in")
    show.add_argument("--variant", help="make that was sold, such as 1024x1024")
    add_provider_and_at(show)
    add_payer(show)
    add_json(show)
    candidates.add_arguments(actions)
    price_changes.add_arguments(actions)


def run(args: argparse.Namespace) -> int:
    """Show prices, or change them.

    Args:
        args: As parsed.

    Returns:
        Exit code.
    """
    work = {**candidates.ACTIONS, **price_changes.ACTIONS}.get(args.action)
    return _show(args) if work is None else work(args)


def _show(args: argparse.Namespace) -> int:
    now = SystemClock().now()
    at: datetime = args.at or now
    settings, payer = read_settings(args), payer_of(args)
    book = read_book(settings, at=at)
    asked = AskedModel(model=args.model, provider=args.provider)
    card = find_card(shelves_of(settings, book), book, at, asked, payer)
    if args.why is not None:
        return _explain(args, explain_price(book, _question(args, card, at, payer)))
    if args.json:
        write_json([_row(card, rate) for rate in _prices_of(card, args.tier)])
        return 0
    start = book.version.effective_from
    since = f", in force from {instant_text(start)}" if start > now else ""
    write_line(f"{card.provider}/{card.model}  {card.currency}  price book {card.version}{since}")
    _write_prices(_prices_of(card, args.tier))
    if payer is None:
        _tell_agreed(book.overrides, card, at)
    return 0


def _tell_agreed(overrides: Iterable[Override], card: RateCard, at: datetime) -> None:
    """Say for whom there are other prices than the published ones that were asked for."""
    found = [
        one for one in overrides if one.is_for_model(card.provider, card.model) and one.holds_at(at)
    ]
    if not found:
        return
    named = sorted({_option(one) for one in found})
    who = ", ".join(named[:_PAYERS_MAX]) + (", ..." if len(named) > _PAYERS_MAX else "")
    rates = (
        f"{len(found)} agreed rate applies"
        if len(found) == 1
        else (f"{len(found)} agreed rates apply")
    )
    write_note(f"{rates} to some payers: {who}")


def _option(override: Override) -> str:
    """What to ask with for the prices of the payer an agreement names."""
    names = ("organization", "team", "project")
    given = [f"--{name} {value}" for name in names if (value := getattr(override, name))]
    return " ".join(given) or "everybody, with any --team"


def _parse_meter(text: str) -> Meter:
    if text not in set(Meter):
        known = ", ".join(meter.value for meter in Meter)
        raise argparse.ArgumentTypeError(f"{text!r} is not a meter; there are {known}")
    return Meter(text)


def _prices_of(card: RateCard, tier: str | None) -> list[CompiledRate]:
    wanted = [price for price in card.all_prices() if tier in (None, price.rate.tier)]
    # Tiers and meters in the order of the catalog, the base band before the ones above it.
    return sorted(
        wanted,
        key=lambda p: (
            p.rate.tier != STANDARD_TIER,
            p.rate.tier,
            p.rate.region or "",
            _METER_ORDER[p.rate.meter],
            p.rate.variant or "",
            p.band,
        ),
    )


def _write_prices(prices: Sequence[CompiledRate]) -> None:
    rows = [_cells(price) for price in prices]
    headings = [
        name
        for name in (rows[0] if rows else ())
        if name not in _SOMETIMES or any(row[name] for row in rows)
    ]
    write_table(
        headings,
        [[row[name] for name in headings] for row in rows],
        right=[name for name in _NUMBERS if name in headings],
    )


def _cells(price: CompiledRate) -> dict[str, str]:
    rate, listed = price.rate, price.listed
    return {
        "METER": rate.meter.value,
        "PRICE": price.amount_text,
        "PER": f"{price.per:,}",
        "LIST PRICE": "" if listed is None else listed.amount_text,
        "AGREED": price.agreement or "",
        "TIER": rate.tier,
        "PROMPT OVER": "" if rate.over is None else f"{rate.over:,}",
        "REGION": rate.region or "",
        "VARIANT": rate.variant or "",
        "HOURS": "" if rate.hours is None else str(rate.hours),
        "VALID FROM": rate.valid_from.date().isoformat(),
        "PRICE ID": price.price_id,
        "SOURCE": rate.source,
    }


def _row(card: RateCard, price: CompiledRate) -> dict[str, Any]:
    rate, listed = price.rate, price.listed
    return {
        "provider": rate.provider,
        "model": rate.model,
        "meter": rate.meter.value,
        "price_id": price.price_id,
        "amount": price.amount_text,
        "per": str(price.per),
        "currency": rate.currency,
        "list_amount": None if listed is None else listed.amount_text,
        "list_per": None if listed is None else str(listed.per),
        "agreement": price.agreement,
        "tier": rate.tier,
        "over": rate.over,
        "region": rate.region,
        "variant": rate.variant,
        "hours": None if rate.hours is None else str(rate.hours),
        "valid_from": instant_text(rate.valid_from),
        "valid_to": None if rate.valid_to is None else instant_text(rate.valid_to),
        "version": card.version,
        "source": rate.source,
        "checked_at": rate.checked_at.isoformat(),
    }


# --- why


def _question(
    args: argparse.Namespace, card: RateCard, at: datetime, payer: Payer | None
) -> PriceQuestion:
    return PriceQuestion(
        provider=card.provider,
        name=card.model,
        meter=args.why,
        at=at,
        tier=args.tier or STANDARD_TIER,
        region=args.region,
        variant=args.variant,
        input_total=args.input_tokens,
        payer=payer,
    )


def _explain(args: argparse.Namespace, found: Explanation) -> int:
    """Explain one meter; 1 where it has no price."""
    if args.json:
        write_json([_explanation_row(found)])
    else:
        _write_explanation(found)
    return 0 if found.price is not None else 1


def _write_explanation(found: Explanation) -> None:
    asked, price = found.question, found.price
    name = f"{asked.provider}/{found.model}"
    write_line(f"{name}  {asked.meter.value}  tier {asked.tier}  at {instant_text(asked.at)}")
    fields = [("price", "none" if price is None else _terms(price))]
    if price is not None:
        fields.append(("price id", price.price_id))
        if price.listed is not None:
            fields.append(("published", _terms(price.listed)))
    fields += [("because" if not n else "", reason) for n, reason in enumerate(found.reasons)]
    if price is not None:
        fields.append(("source", f"{found.source}, checked {found.checked_at}"))
    fields.append(("price book", f"{found.version}, recorded {instant_text(found.recorded_at)}"))
    write_fields(fields)
    _write_considered("PRICE ID", "PUBLISHED PRICE", found.rates)
    _write_considered("OVERRIDE", "TERMS", found.overrides)


def _terms(price: CompiledRate) -> str:
    return terms_of(price.amount_text, price.per, price.rate.currency)


def _write_considered(name: str, terms: str, considered: Sequence[Considered]) -> None:
    if considered:
        write_line()
        write_table(
            (name, terms, "VERDICT"), [(one.name, one.terms, one.verdict) for one in considered]
        )


def _explanation_row(found: Explanation) -> dict[str, Any]:
    asked, price = found.question, found.price
    return {
        "provider": asked.provider,
        "model": found.model,
        "meter": asked.meter.value,
        "tier": asked.tier,
        "region": asked.region,
        "variant": asked.variant,
        "input_tokens": asked.input_total,
        "at": instant_text(asked.at),
        "price_id": None if price is None else price.price_id,
        "amount": None if price is None else price.amount_text,
        "per": None if price is None else str(price.per),
        "list_amount": None if price is None else (price.listed or price).amount_text,
        "list_per": None if price is None else str((price.listed or price).per),
        "agreement": None if price is None else price.agreement,
        "reasons": list(found.reasons),
        "source": found.source,
        "checked_at": None if found.checked_at is None else found.checked_at.isoformat(),
        "version": found.version,
        "recorded_at": instant_text(found.recorded_at),
        "rates": [_considered_row(one) for one in found.rates],
        "overrides": [_considered_row(one) for one in found.overrides],
    }


def _considered_row(one: Considered) -> dict[str, str]:
    return {"name": one.name, "terms": one.terms, "verdict": one.verdict}
