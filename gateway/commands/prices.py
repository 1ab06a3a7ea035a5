"""``taximeter prices``. Must never change a price."""

import argparse
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.commands.cards import add_provider_and_at, find_cards
from gateway.commands.context import read_book
from gateway.commands.entities import instant_text
from gateway.commands.output import write_json, write_line, write_table
from gateway.commands.parsing import Actions, add_json
from pricing.meters import Meter
from pricing.rates import CompiledRate, RateCard

_HEADINGS: Final = (
    "METER",
    "PRICE",
    "PER",
    "TIER",
    "PROMPT OVER",
    "REGION",
    "VALID FROM",
    "PRICE ID",
    "SOURCE",
)

_METER_ORDER: Final = {meter: position for position, meter in enumerate(Meter)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    show = actions.add(
        "show",
        "show every price of a model in force",
        "show gpt-5\nshow anthropic/claude-sonnet-4-5 --at 2026-06-01 --json",
    )
    show.add_argument("model", help="model, or provider/model; aliases and snapshots are found")
    show.add_argument("--tier", help="one service tier only, such as standard or batch")
    add_provider_and_at(show)
    add_json(show)


def run(args: argparse.Namespace) -> int:
    """Show prices.

    Args:
        args: As parsed.

    Returns:
        Exit code.
    """
    clock = SystemClock()
    cards = find_cards(args, read_book(), args.at or clock.now())
    if args.json:
        write_json([_row(card, rate) for card in cards for rate in _rates_of(card, args.tier)])
        return 0
    for number, card in enumerate(cards):
        if number:
            write_line()
        write_line(f"{card.provider}/{card.model}  {card.currency}  price book {card.version}")
        write_table(
            _HEADINGS, [_cells(rate) for rate in _rates_of(card, args.tier)], right=("PRICE", "PER")
        )
    return 0


def _rates_of(card: RateCard, tier: str | None) -> list[CompiledRate]:
    rates = [rate for bands in card.rates.values() for rate in bands]
    wanted = [rate for rate in rates if tier in (None, rate.rate.tier)]
    # Tiers and meters in the order of the catalog, the base band before the ones above it.
    return sorted(
        wanted,
        key=lambda r: (
            r.rate.tier != "standard",
            r.rate.tier,
            r.rate.region or "",
            _METER_ORDER[r.rate.meter],
            r.band,
        ),
    )


def _cells(compiled: CompiledRate) -> list[str]:
    rate = compiled.rate
    return [
        rate.meter.value,
        compiled.amount_text,
        f"{rate.per:,}",
        rate.tier,
        "" if rate.over is None else f"{rate.over:,}",
        rate.region or "",
        rate.valid_from.date().isoformat(),
        compiled.price_id,
        rate.source,
    ]


def _row(card: RateCard, compiled: CompiledRate) -> dict[str, Any]:
    rate = compiled.rate
    return {
        "provider": rate.provider,
        "model": rate.model,
        "meter": rate.meter.value,
        "price_id": compiled.price_id,
        "amount": compiled.amount_text,
        "per": str(rate.per),
        "currency": rate.currency,
        "tier": rate.tier,
        "over": rate.over,
        "region": rate.region,
        "valid_from": instant_text(rate.valid_from),
        "valid_to": None if rate.valid_to is None else instant_text(rate.valid_to),
        "version": card.version,
        "source": rate.source,
        "checked_at": rate.checked_at.isoformat(),
    }
