"""``taximeter estimate``: what a call would cost, or what counted usage did cost.

Must never compute a cost itself: every figure comes out of the one rating function.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.commands.cards import add_provider_and_at, find_cards
from gateway.commands.context import read_book, read_settings
from gateway.commands.output import CommandFailed, write_json, write_line, write_table
from gateway.commands.parsing import (
    add_json,
    parse_count,
    parse_list,
    parse_pair,
    show_example,
)
from gateway.ledger.lines import to_ledger_lines
from pricing.meters import Meter
from pricing.money import decimal_from_text, pico_to_text
from pricing.rates import RateCard
from pricing.rating import (
    RatedLine,
    Reach,
    Unbounded,
    UnpricedSku,
    rate_ceiling,
    rate_usage,
    total_cost,
)
from pricing.sku import STANDARD_TIER
from pricing.usage import Quantity

# What a text call can touch; the dearest of each side makes the ceiling.
_TEXT_METERS: Final = frozenset(
    {
        Meter.INPUT,
        Meter.CACHE_READ,
        Meter.CACHE_WRITE,
        Meter.CACHE_WRITE_1H,
        Meter.CACHE_WRITE_12H,
        Meter.OUTPUT,
        Meter.REASONING,
    }
)
_WHOLE_METERS: Final = frozenset(Meter) - {
    Meter.AUDIO_SECOND,
    Meter.VIDEO_SECOND,
    Meter.GPU_SECOND,
}
_BOUNDS: Final = {
    "low": "the prompt read from cache where that has a price, and no answer",
    "expected": "the prompt at its plain price and the answer in full",
    "ceiling": "the most it can cost; what a hard budget holds is this or more",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimate:
    """One bound; ``lines`` is empty when it cannot be stated, and ``reason`` says why."""

    name: str
    lines: tuple[RatedLine, ...]
    reason: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.add_argument("--model", required=True, help="model, or provider/model")
    parser.add_argument("--input-tokens", type=parse_count, metavar="N", help="of the prompt")
    parser.add_argument(
        "--max-output-tokens", type=parse_count, metavar="N", help="limit (the model's own)"
    )
    parser.add_argument(
        "--usage",
        type=_parse_usage,
        metavar="METER=N[,METER=N]",
        help="counted usage instead, such as input=224,cache_read=1024,output=210",
    )
    parser.add_argument("--tier", default=STANDARD_TIER, help="service tier (%(default)s)")
    parser.add_argument("--region", help="region class, where prices differ by region")
    add_provider_and_at(parser)
    add_json(parser)
    parser.epilog = show_example(
        "taximeter estimate --model gpt-5 --input-tokens 1248 --max-output-tokens 500\n"
        "taximeter estimate --model gpt-5 --usage input=224,cache_read=1024,output=210"
    )


def run(args: argparse.Namespace) -> int:
    """Estimate or rate.

    Args:
        args: As parsed.

    Returns:
        Exit code.

    Raises:
        CommandFailed: Wrong use, or something has no price.
    """
    if (args.usage is None) == (args.input_tokens is None):
        raise CommandFailed("give either --input-tokens or --usage", exit_code=2)
    if args.usage is not None and args.max_output_tokens is not None:
        raise CommandFailed("--max-output-tokens goes with --input-tokens only", exit_code=2)
    clock = SystemClock()
    cards = find_cards(args, read_book(read_settings(args)), args.at or clock.now())
    if len(cards) > 1:
        names = ", ".join(card.provider for card in cards)
        raise CommandFailed(f"{args.model} is sold by {names}; add --provider", exit_code=2)
    card = cards[0]
    if args.tier not in card.tiers:
        raise CommandFailed(
            f"{card.provider}/{card.model} has no tier {args.tier!r}; "
            f"there are {', '.join(sorted(card.tiers))}"
        )
    try:
        if args.usage is not None:
            return _show_usage(args, card)
        return _show_bounds(args, card)
    except UnpricedSku as gap:
        raise CommandFailed(str(gap)) from gap


def _parse_usage(text: str) -> dict[Meter, Quantity]:
    counts: dict[Meter, Quantity] = {}
    for item in parse_list(text):
        name, value = parse_pair(item)
        if name not in set(Meter):
            known = ", ".join(meter.value for meter in Meter)
            raise argparse.ArgumentTypeError(f"{name!r} is not a meter; there are {known}")
        meter = Meter(name)
        if meter in counts:
            raise argparse.ArgumentTypeError(f"{name} is given twice")
        try:
            counts[meter] = (
                parse_count(value) if meter in _WHOLE_METERS else decimal_from_text(value)
            )
        except ValueError as broken:
            raise argparse.ArgumentTypeError(f"{name}: {broken}") from None
        if counts[meter] < 0:
            raise argparse.ArgumentTypeError(f"{name}: a quantity cannot be negative")
    return counts


def _show_usage(args: argparse.Namespace, card: RateCard) -> int:
    lines = rate_usage(args.usage, card, tier=args.tier, region=args.region)
    if args.json:
        write_json({**_head(args, card), **_priced(lines, card)})
        return 0
    _write_head(args, card)
    _write_lines(lines)
    write_line(f"cost {total_cost(lines, card.currency)} {card.currency}")
    return 0


def _show_bounds(args: argparse.Namespace, card: RateCard) -> int:
    estimates = _bounds(args, card)
    if args.json:
        shown = {
            estimate.name: {
                **(_priced(estimate.lines, card) if estimate.lines else {"cost": None}),
                **({"reason": estimate.reason} if estimate.reason else {}),
            }
            for estimate in estimates
        }
        write_json({**_head(args, card), **shown})
        return 0
    _write_head(args, card)
    for estimate in estimates:
        cost = (
            f"{total_cost(estimate.lines, card.currency)} {card.currency}"
            if estimate.lines
            else f"unknown: {estimate.reason}"
        )
        write_line(f"\n{estimate.name} {cost}  ({_BOUNDS[estimate.name]})")
        if estimate.lines:
            _write_lines(estimate.lines)
    return 0


def _bounds(args: argparse.Namespace, card: RateCard) -> list[_Estimate]:
    cached = {Meter.CACHE_READ: args.input_tokens}
    low = rate_usage(cached, card, tier=args.tier, region=args.region)
    tokens_out = args.max_output_tokens
    if tokens_out is None:
        tokens_out = card.output_tokens_max
    if tokens_out is None:
        reason = "nothing bounds the output tokens; add --max-output-tokens"
        return [
            _Estimate(name="low", lines=low),
            _Estimate(name="expected", lines=(), reason=reason),
            _Estimate(name="ceiling", lines=(), reason=reason),
        ]
    plain: dict[Meter, Quantity] = {Meter.INPUT: args.input_tokens}
    if tokens_out > 0:
        plain[Meter.OUTPUT] = tokens_out
    expected = rate_usage(plain, card, tier=args.tier, region=args.region)
    return [
        _Estimate(name="low", lines=low),
        _Estimate(name="expected", lines=expected),
        _ceiling(args, card, tokens_out),
    ]


def _ceiling(args: argparse.Namespace, card: RateCard, tokens_out: int) -> _Estimate:
    reach = Reach(
        input_tokens_max=args.input_tokens,
        output_tokens_max=tokens_out,
        meters=_TEXT_METERS,
        fees={},
        tiers=frozenset({args.tier}),
        region=args.region,
    )
    try:
        return _Estimate(name="ceiling", lines=rate_ceiling(reach, card))
    except (Unbounded, UnpricedSku) as gap:
        return _Estimate(name="ceiling", lines=(), reason=str(gap))


def _head(args: argparse.Namespace, card: RateCard) -> dict[str, Any]:
    return {
        "provider": card.provider,
        "model": card.model,
        "price_version": card.version,
        "tier": args.tier,
        "currency": card.currency,
    }


def _write_head(args: argparse.Namespace, card: RateCard) -> None:
    write_line(f"{card.provider}/{card.model}  tier {args.tier}  price book {card.version}")


def _priced(lines: tuple[RatedLine, ...], card: RateCard) -> dict[str, Any]:
    cost = str(total_cost(lines, card.currency))
    return {"cost": cost, "list_cost": cost, "lines": list(_line_rows(lines))}


def _line_rows(lines: tuple[RatedLine, ...]) -> Iterable[dict[str, str]]:
    for line in to_ledger_lines(lines):
        yield {
            "sku": line.sku,
            "price_id": line.price_id,
            "meter": line.meter,
            "quantity": line.quantity,
            "unit_price": line.unit_price,
            "per": str(line.per),
            "list_cost": pico_to_text(line.list_cost_pico),
            "cost": pico_to_text(line.cost_pico),
        }


def _write_lines(lines: tuple[RatedLine, ...]) -> None:
    columns = ("meter", "quantity", "unit_price", "per", "cost", "price_id")
    write_table(
        ("METER", "QUANTITY", "PRICE", "PER", "COST", "PRICE ID"),
        [[row[column] for column in columns] for row in _line_rows(lines)],
        right=("QUANTITY", "PRICE", "PER", "COST"),
    )
