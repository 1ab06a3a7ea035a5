"""``taximeter estimate --check``: fails a build whose recorded test run costs too much.

Must never need a gateway or a database, nor say yes to a run whose cost it does not know.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final

from gateway.budgets.rules import Unit, parse_limit
from gateway.clock import epoch_us, to_rfc3339
from gateway.commands.output import CommandFailed, Progress, write_json, write_line, write_table
from gateway.commands.parsing import parse_count
from gateway.recorded_run import RunBroken, RunCall, RunTotal, Tools, price_run
from pricing.money import Money, decimal_from_text, money_from_text

_GROWTH_PERCENT: Final = Decimal(10)
_WORST: Final = 5
_PERCENT: Final = Decimal("0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Baseline:
    """A total saved before, and how much of it a run may cost more."""

    cost: Money
    version: str
    percent_max: Decimal


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of a check.

    Args:
        parser: The command's own.
    """
    group = parser.add_argument_group(
        "check a recorded run",
        "FILE has one call a line: records of `taximeter ledger export`, or bodies of\n"
        "POST /api/v1/estimates. Counted usage is rated; a planned call counts with\n"
        "its output_tokens, or else at its ceiling. Needs no gateway and no database.",
    )
    group.add_argument(
        "--check", type=Path, metavar="FILE", help="price every call of a run (- reads)"
    )
    group.add_argument("--limit", type=_parse_money, metavar='"N USD"', help="most it may cost")
    group.add_argument(
        "--baseline", type=Path, metavar="FILE", help="total of an earlier run, from --save"
    )
    group.add_argument(
        "--max-growth",
        type=_parse_percent,
        metavar="PERCENT",
        help=f"how much more than the baseline it may cost ({_GROWTH_PERCENT})",
    )
    group.add_argument("--save", type=Path, metavar="FILE", help="keep this total")
    group.add_argument(
        "--worst",
        type=parse_count,
        metavar="N",
        help=f"how many of the dearest calls to show ({_WORST})",
    )


def check_run(args: argparse.Namespace, tools: Tools) -> int:
    """Price a run and compare it with what it may cost.

    Args:
        args: As parsed.
        tools: Prices.

    Returns:
        0 when it may cost that much, 1 when not.

    Raises:
        CommandFailed: The run or the baseline cannot be used; every line at fault is named.
    """
    growth = _GROWTH_PERCENT if args.max_growth is None else args.max_growth
    baseline = None if args.baseline is None else _read_baseline(args.baseline, growth)
    worst = _WORST if args.worst is None else args.worst
    try:
        with _opened_run(args.check) as file, Progress("lines") as progress:
            run = price_run(partial(_rewound, file), tools, worst=worst, step=progress.step)
    except OSError as broken:
        raise CommandFailed(f"cannot read {args.check}: {broken.strerror}", exit_code=2) from broken
    except RunBroken as broken:
        told = "\n".join(f"{args.check}: {problem}" for problem in broken.problems)
        raise CommandFailed(f"the run cannot be priced:\n{told}", exit_code=2) from broken
    currency = run.cost.currency
    limits = {"--limit": args.limit, "--baseline": None if baseline is None else baseline.cost}
    for what, amount in limits.items():
        if amount is not None and amount.currency != currency:
            raise CommandFailed(f"{what} is in {amount.currency}, the run in {currency}", 2)
    reasons = _find_reasons(run, args.limit, baseline)
    shown = _to_public(args, tools, run, baseline, reasons)
    if args.save is not None:
        _save(args.save, shown)
    if args.json:
        write_json(shown)
    else:
        _write_text(shown)
    return 1 if reasons else 0


def _parse_money(text: str) -> Money:
    try:
        amount, unit = parse_limit(text)
    except ValueError as broken:
        raise argparse.ArgumentTypeError(str(broken)) from None
    if unit is not Unit.USD:
        raise argparse.ArgumentTypeError(f'{text!r} is not money, such as "1.50 USD"')
    return Money(amount, unit.value)


def _parse_percent(text: str) -> Decimal:
    try:
        percent = decimal_from_text(text.removesuffix("%").strip())
    except ValueError as broken:
        raise argparse.ArgumentTypeError(str(broken)) from None
    if percent < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return percent


@contextmanager
def _opened_run(path: Path) -> Iterator[BinaryIO]:
    """A run is read twice, so what comes through a pipe is copied first."""
    with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
        if file.seekable():
            yield file
            return
        with TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            yield copy


def _rewound(file: BinaryIO) -> Iterable[bytes]:
    file.seek(0)
    return file


def _read_baseline(path: Path, percent_max: Decimal) -> _Baseline:
    try:
        saved = json.loads(path.read_text("utf-8"))
        return _Baseline(
            cost=money_from_text(saved["total"], saved["currency"]),
            version=str(saved["price_version"]),
            percent_max=percent_max,
        )
    except OSError as broken:
        raise CommandFailed(f"cannot read {path}: {broken.strerror}", exit_code=2) from broken
    except (KeyError, TypeError, ValueError) as broken:
        told = f"{path} is no total that --save wrote: {broken!r}"
        raise CommandFailed(told, exit_code=2) from broken


def _save(path: Path, shown: dict[str, Any]) -> None:
    partly = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partly.write_text(json.dumps(shown, indent=2) + "\n", "utf-8")
        partly.replace(path)
    except OSError as broken:
        raise CommandFailed(f"cannot write {path}: {broken.strerror}") from broken
    finally:
        partly.unlink(missing_ok=True)


def _find_reasons(run: RunTotal, limit: Money | None, baseline: _Baseline | None) -> list[str]:
    """Why the answer is no, in words; empty when it is yes."""
    cost, currency = run.cost, run.cost.currency
    reasons = []
    if run.unknown:
        calls = "1 call is" if run.unknown == 1 else f"{run.unknown} calls are"
        reasons.append(f"{calls} of unknown size, so the true cost is higher than the total")
    if limit is not None and limit < cost:
        over = cost - limit
        reasons.append(f"{cost} {currency} is {over} over the limit of {limit} {currency}")
    if baseline is not None:
        most = baseline.cost.pico * (100 + baseline.percent_max)
        if cost.pico * 100 > most:
            reasons.append(
                f"{cost} {currency} is more than {baseline.cost} {currency} of the baseline "
                f"and {baseline.percent_max} %"
            )
    return reasons


def _to_public(
    args: argparse.Namespace,
    tools: Tools,
    run: RunTotal,
    baseline: _Baseline | None,
    reasons: list[str],
) -> dict[str, Any]:
    return {
        "file": str(args.check),
        "price_version": tools.book.version.version,
        "at": to_rfc3339(epoch_us(tools.at or tools.now)),
        "calls": run.calls,
        "unbilled": run.unbilled,
        "unknown": run.unknown,
        "currency": run.cost.currency,
        "total": str(run.cost),
        "limit": None if args.limit is None else str(args.limit),
        "baseline": None if baseline is None else _baseline_to_public(baseline, run.cost),
        "models": [
            {"model": model, "calls": calls, "cost": str(cost)}
            for model, (calls, cost) in run.models.items()
        ],
        "worst": [_call_to_public(call) for call in run.worst],
        "ok": not reasons,
        "reasons": reasons,
    }


def _baseline_to_public(baseline: _Baseline, cost: Money) -> dict[str, Any]:
    growth = None
    if baseline.cost.pico:
        more = Decimal(100 * (cost.pico - baseline.cost.pico)) / Decimal(baseline.cost.pico)
        growth = f"{more.quantize(_PERCENT):f}"
    return {
        "total": str(baseline.cost),
        "price_version": baseline.version,
        "growth_percent": growth,
        "growth_percent_max": f"{baseline.percent_max:f}",
    }


def _call_to_public(call: RunCall) -> dict[str, Any]:
    return {
        "line": call.line,
        "id": call.id,
        "model": call.model,
        "priced_by": call.basis,
        "input_tokens": call.rated.tokens("input"),
        "output_tokens": call.rated.tokens("output"),
        "cost": str(call.rated.cost),
    }


def _write_text(shown: dict[str, Any]) -> None:
    write_line(
        f"{shown['file']}  {shown['calls']:,} calls  price book {shown['price_version']} "
        f"at {shown['at'][:10]}"
    )
    write_table(
        ("MODEL", "CALLS", "COST"),
        [[row["model"], f"{row['calls']:,}", row["cost"]] for row in shown["models"]],
        right=("CALLS", "COST"),
    )
    if shown["worst"]:
        write_line("\ndearest calls")
        write_table(
            ("LINE", "MODEL", "INPUT", "OUTPUT", "COST", "PRICED BY", "RECORD"),
            [
                [
                    str(row["line"]),
                    row["model"],
                    f"{row['input_tokens']:,}",
                    f"{row['output_tokens']:,}",
                    row["cost"],
                    row["priced_by"],
                    row["id"] or "",
                ]
                for row in shown["worst"]
            ],
            right=("LINE", "INPUT", "OUTPUT", "COST"),
        )
    write_line()
    if shown["unbilled"]:
        write_line(f"not billed {shown['unbilled']:,} (refused, or never begun)")
    baseline = shown["baseline"]
    if baseline is not None:
        growth = baseline["growth_percent"]
        told = "" if growth is None else f", {growth} % growth"
        write_line(f"baseline {baseline['total']} {shown['currency']}{told}")
        if baseline["price_version"] != shown["price_version"]:
            write_line(f"the baseline was priced with book {baseline['price_version']}")
    write_line(f"total {shown['total']} {shown['currency']}")
    for reason in shown["reasons"]:
        write_line(f"no: {reason}")
    if shown["ok"] and (shown["limit"] is not None or baseline is not None):
        write_line("yes: within what it may cost")
