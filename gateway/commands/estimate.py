"""``taximeter estimate``: what a call would cost, what counted usage did cost, what a run costs.

Must never compute a cost itself: ``gateway.estimating`` does, for the API too.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.commands.books import read_book, read_shipped_book
from gateway.commands.cards import AskedModel, add_provider_and_at, find_card, shelves_of
from gateway.commands.context import config_path, read_settings
from gateway.commands.estimate_check import add_check, check_run
from gateway.commands.estimate_text import write_estimate, write_rated
from gateway.commands.output import CommandFailed, write_json, write_note
from gateway.commands.parsing import add_json, parse_count, parse_list, parse_pair, show_example
from gateway.commands.usual_calls import add_whose, find_payer, first_reason, load_usual
from gateway.counting import VocabularyMissing, count_tokens
from gateway.estimate_public import (
    Choice,
    choice_of,
    choice_of_rated,
    choose,
    comparison_to_public,
    estimate_to_public,
    offer_to_public,
    rated_to_public,
)
from gateway.estimating import (
    Messages,
    NoSuchTier,
    Offer,
    PlannedCall,
    count_messages,
    estimate_call,
    make_offer,
    plan_call,
    rate_exactly,
    rate_same,
    read_quantity,
    read_terms,
)
from gateway.recorded_run import CallRefused, Tools
from gateway.settings import Settings
from gateway.token_families import family_of
from gateway.usual import NoHistory, Usual
from pricing.book import Book
from pricing.meters import Meter
from pricing.rates import RateCard
from pricing.rating import UnpricedSku
from pricing.usage import Quantity

_EXAMPLES: Final = """\
taximeter estimate --model gpt-5 --input-tokens 1248 --max-output-tokens 500 --project rag
taximeter estimate --model gpt-5 --messages prompt.json --compare claude-sonnet-4-5,gemini-2.5-pro
taximeter estimate --model gpt-5 --usage input=224,cache_read=1024,output=210
taximeter estimate --model gpt-5 --usage input=224,output=210 --team ads
taximeter estimate --check run.jsonl --limit "1.50 USD" --baseline main.json --max-growth 10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.add_argument("--model", help="model, or provider/model")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--input-tokens", type=parse_count, metavar="N", help="of the prompt")
    prompt.add_argument(
        "--messages",
        type=Path,
        metavar="FILE",
        help="JSON list of chat messages to count (- reads)",
    )
    prompt.add_argument(
        "--usage",
        type=_parse_usage,
        metavar="METER=N[,METER=N]",
        help="counted usage instead, such as input=224,cache_read=1024,output=210",
    )
    parser.add_argument(
        "--output-tokens", type=parse_count, metavar="N", help="expected (what calls had lately)"
    )
    parser.add_argument(
        "--max-output-tokens", type=parse_count, metavar="N", help="limit (the model's own)"
    )
    add_whose(parser)
    parser.add_argument(
        "--compare",
        type=parse_list,
        default=(),
        metavar="MODEL[,MODEL]",
        help="price the same on other models, too",
    )
    parser.add_argument("--tier", help="service tier, such as batch or flex (standard)")
    parser.add_argument("--region", help="region class, where prices differ by region")
    add_provider_and_at(parser)
    parser.add_argument("--price-version", metavar="V", help="price book (the newest)")
    add_check(parser)
    add_json(parser)
    parser.epilog = show_example(_EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Estimate, rate, or check a run.

    Args:
        args: As parsed.

    Returns:
        Exit code.

    Raises:
        CommandFailed: Wrong use, or something has no price.
    """
    _refuse_wrong_use(args)
    clock = SystemClock()
    settings, book = _read_prices(args)
    payer = find_payer(args, settings)
    find = partial(find_card, shelves_of(settings, book), book, payer=payer)
    now = clock.now()
    if args.check is not None:
        tools = Tools(
            book=book, now=now, at=args.at, find=partial(_find_for_run, find), count=_count
        )
        return check_run(args, tools)
    at = args.at or now
    offer = _offer(args, find(at, AskedModel(model=args.model, provider=args.provider)))
    others = [find(at, AskedModel(model=name, provider=None)) for name in args.compare]
    try:
        if args.usage is not None:
            return _show_usage(args, offer, others, at)
        usual = load_usual(args, book.find_model(offer.provider, offer.model), clock)
        return _show_estimate(args, offer, others, at, usual)
    except UnpricedSku as gap:
        raise CommandFailed(str(gap)) from gap


_CALL_ONLY: Final = (
    *("model", "provider", "input_tokens", "messages", "usage", "output_tokens"),
    *("max_output_tokens", "team", "project", "no_history", "compare", "tier", "region"),
)
_CHECK_ONLY: Final = ("limit", "baseline", "max_growth", "save", "worst")
_PLAN_ONLY: Final = ("output_tokens", "max_output_tokens", "no_history")


def _refuse_wrong_use(args: argparse.Namespace) -> None:
    if args.check is not None:
        _refuse(args, _CALL_ONLY, "does not go with --check")
        if args.baseline is None:
            _refuse(args, ("max_growth",), "goes with --baseline only")
        return
    _refuse(args, _CHECK_ONLY, "goes with --check only")
    if args.model is None:
        raise CommandFailed("give --model, or --check FILE", exit_code=2)
    if args.usage is not None:
        _refuse(args, _PLAN_ONLY, "does not go with --usage")
    elif args.input_tokens is None and args.messages is None:
        raise CommandFailed("give --input-tokens, --messages or --usage", exit_code=2)
    limit, expected = args.max_output_tokens, args.output_tokens
    if limit is not None and expected is not None and expected > limit:
        raise CommandFailed("--output-tokens is more than --max-output-tokens", exit_code=2)


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """An option that changes nothing would mislead, so it is wrong use."""
    for name in names:
        given = getattr(args, name)
        if given is not None and given is not False and given != ():
            raise CommandFailed(f"--{name.replace('_', '-')} {why}", exit_code=2)


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
            counts[meter] = read_quantity(meter, value.replace("_", ""))
        except ValueError as broken:
            raise argparse.ArgumentTypeError(str(broken)) from None
    return counts


def _read_prices(args: argparse.Namespace) -> tuple[Settings, Book]:
    """Read what prices need; in a build the secrets that the settings name may not be there."""
    try:
        settings = read_settings(args)
    except CommandFailed as broken:
        file = config_path(args)
        if file is not None and not _is_readable(file):
            # Somebody named it: prices of another installation are no answer.
            raise
        write_note(f"note: these are the prices that came with taximeter: {first_reason(broken)}")
        return Settings(), read_shipped_book(args.price_version)
    return settings, read_book(settings, args.price_version)


def _is_readable(file: Path) -> bool:
    return os.access(file, os.R_OK) and not file.is_dir()


def _find_for_run(
    find: Callable[[datetime, AskedModel], RateCard],
    model: str,
    provider: str | None,
    at: datetime,
) -> RateCard:
    try:
        return find(at, AskedModel(model=model, provider=provider))
    except CommandFailed as unknown:
        raise CallRefused(str(unknown)) from unknown


def _offer(args: argparse.Namespace, card: RateCard) -> Offer:
    try:
        return _make_offer(args, card)
    except NoSuchTier as gap:
        raise CommandFailed(str(gap)) from gap


def _make_offer(args: argparse.Namespace, card: RateCard) -> Offer:
    return make_offer(card.provider, card.model, card, read_terms(args.tier, args.region))


def _count(messages: Messages, model: str) -> int:
    def count(texts: Sequence[str]) -> int:
        try:
            family = family_of(model)
            return family.scale(count_tokens(texts, family.vocabulary))
        except VocabularyMissing as missing:
            raise CallRefused(f"{missing}; count them elsewhere and give input_tokens") from missing

    return count_messages(messages, count)


def _read_messages(path: Path) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except OSError as broken:
        raise CommandFailed(f"cannot read {path}: {broken.strerror}", exit_code=2) from broken
    except (ValueError, RecursionError) as broken:
        raise CommandFailed(f"{path} is not JSON: {broken}", exit_code=2) from broken
    messages = found.get("messages") if isinstance(found, dict) else found
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(message, dict) for message in messages)
    ):
        raise CommandFailed(f"{path} holds no list of chat messages", exit_code=2)
    return messages


def _plan(args: argparse.Namespace, model: str) -> PlannedCall:
    try:
        return plan_call(
            args.input_tokens if args.messages is None else _read_messages(args.messages),
            lambda messages: _count(messages, model),
            output_tokens=args.output_tokens,
            output_tokens_max=args.max_output_tokens,
        )
    except CallRefused as refused:
        raise CommandFailed(str(refused)) from refused


def _compare(
    args: argparse.Namespace,
    first: Choice,
    others: list[RateCard],
    choice: Callable[[Offer], Choice],
) -> dict[str, Any]:
    if not others:
        return {}
    choices = [
        choose(
            (card.provider, card.model),
            first.costs,
            partial(_choose_card, args, card, choice),
        )
        for card in others
    ]
    return {"comparison": comparison_to_public([first, *choices])}


def _choose_card(
    args: argparse.Namespace, card: RateCard, choice: Callable[[Offer], Choice]
) -> Choice:
    return choice(_make_offer(args, card))


def _show_usage(
    args: argparse.Namespace, offer: Offer, others: list[RateCard], at: datetime
) -> int:
    rated = rate_exactly(offer, args.usage)
    compared = _compare(
        args,
        choice_of_rated(offer, rated),
        others,
        lambda other: choice_of_rated(other, rate_same(other, args.usage)),
    )
    shown = {**offer_to_public(offer, at), **rated_to_public(rated), **compared}
    if args.json:
        write_json(shown)
    else:
        write_rated(shown)
    return 0


def _show_estimate(
    args: argparse.Namespace,
    offer: Offer,
    others: list[RateCard],
    at: datetime,
    usual: Usual | NoHistory,
) -> int:
    call = _plan(args, offer.model)
    estimate = estimate_call(offer, call, usual)
    compared = _compare(
        args,
        choice_of(estimate),
        others,
        lambda other: choice_of(estimate_call(other, call, usual)),
    )
    shown = {
        **offer_to_public(offer, at),
        "input_tokens_from": "given" if args.messages is None else "counted",
        **estimate_to_public(estimate),
        **compared,
    }
    if args.json:
        write_json(shown)
    else:
        write_estimate(shown)
    return 0
