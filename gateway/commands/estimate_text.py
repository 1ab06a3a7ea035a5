"""Estimates and comparisons for people. Must never compute: it lays out what the API shows."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.commands.output import write_line, write_note, write_table

Shown = Mapping[str, Any]

_COLUMNS: Final = ("meter", "quantity", "unit_price", "per", "cost", "price_id")
_COSTS: Final = ("cost", "low", "expected", "ceiling")


def write_rated(shown: Shown) -> None:
    """Write rated usage.

    Args:
        shown: As the API shows it.
    """
    _write_head(shown)
    _write_lines(shown["lines"])
    write_line(f"cost {shown['cost']} {shown['currency']}")
    _write_comparison(shown)


def write_estimate(shown: Shown) -> None:
    """Write an estimate.

    Args:
        shown: As the API shows it.
    """
    _write_head(shown)
    if shown["note"] is not None:
        write_note(f"warning: {shown['note']}")
    currency = shown["currency"]
    low, expected, ceiling = shown["low"], shown["expected"], shown["ceiling"]
    cached = any(line["meter"] == "cache_read" for line in low["lines"])
    prompt = "the prompt out of the cache" if cached else "the prompt"
    _write_part("low", low, currency, f"{prompt}, {_tokens(low['output_tokens'])} of answer")
    if expected is None:
        write_line(f"\nexpected unknown: {shown['no_history']}; --output-tokens says it")
    else:
        _write_part("expected", expected, currency, _basis_of(shown))
    if ceiling is None:
        write_line(f"\nceiling unknown: {shown['unbounded']}; --max-output-tokens sets a limit")
    else:
        told = f"at most {_tokens(ceiling['output_tokens'])} of answer; fees come on top"
        _write_part("ceiling", ceiling, currency, told)
    _write_comparison(shown)


def _write_head(shown: Shown) -> None:
    region = "" if shown["region"] is None else f"  region {shown['region']}"
    write_line(
        f"{shown['provider']}/{shown['model']}  tier {shown['service_tier']}{region}"
        f"  price book {shown['price_version']}"
    )


def _tokens(count: int) -> str:
    return f"{count:,} token" + ("" if count == 1 else "s")


def _basis_of(shown: Shown) -> str:
    answer = f"{_tokens(shown['expected']['output_tokens'])} of answer"
    usual = shown["history"]
    if usual is None:
        return f"{answer} as given, nothing out of a cache"
    whose = "of everybody" if usual["id"] is None else f"of {usual['scope']} {usual['id']}"
    days = usual["first_day"]
    if usual["last_day"] != days:
        days = f"{days} to {usual['last_day']}"
    given = " as given" if shown["expected_from"] == "given" else ""
    calls = f"{usual['records']} call" + ("" if usual["records"] == 1 else "s")
    return f"{answer}{given}, {usual['cached_percent']} % cached, from {calls} {whose}, {days}"


def _write_part(name: str, part: Shown, currency: str, why: str) -> None:
    write_line(f"\n{name} {part['cost']} {currency}  ({why})")
    _write_lines(part["lines"])


def _write_lines(lines: Sequence[Shown]) -> None:
    write_table(
        ("METER", "QUANTITY", "PRICE", "PER", "COST", "PRICE ID"),
        [[line[column] for column in _COLUMNS] for line in lines],
        right=("QUANTITY", "PRICE", "PER", "COST"),
    )


def _write_comparison(shown: Shown) -> None:
    comparison = shown.get("comparison")
    if comparison is None:
        return
    models = comparison["models"]
    costs = [name for name in _COSTS if name in models[0]]
    headings = [name.upper() for name in costs]
    write_line(f"\nthe same call, compared by {comparison['by']} ({shown['currency']})")
    write_table(
        ("MODEL", *headings, "RATIO", "NOTE"),
        [
            [
                f"{row['provider']}/{row['model']}",
                *(row[name] or "" for name in costs),
                "" if row["ratio"] is None else f"{row['ratio']}x",
                _note_of(row),
            ]
            for row in models
        ],
        right=(*headings, "RATIO"),
    )


def _note_of(row: Shown) -> str:
    counted = [f"{meter} counted as {there}" for meter, there in row["counted_as"].items()]
    return "; ".join([*counted, *([row["note"]] if row["note"] else [])])
