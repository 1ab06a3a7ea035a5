"""``taximeter ledger``. Must never change a record."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, get_args

from sqlalchemy import Engine

from gateway.clock import SystemClock, epoch_us, to_rfc3339
from gateway.commands.catch_up import catch_up
from gateway.commands.context import read_settings
from gateway.commands.database import opened_database
from gateway.commands.output import (
    CommandFailed,
    Progress,
    opened_output,
    pairs_text,
    write_fields,
    write_json,
    write_line,
    write_note,
    write_table,
)
from gateway.commands.parsing import Actions, add_json, parse_instant, parse_pair
from gateway.commands.rollups import CHECK, REBUILD, run_rollups
from gateway.ledger.corrected import posted_call
from gateway.ledger.export import ExportFormat, ExportRefused, export_records
from gateway.ledger.filters import QueryRefused, RecordFilter
from gateway.ledger.queries import Queries
from gateway.ledger.record import LedgerLine, LedgerRecord, Outcome, to_public
from gateway.own_rates import book_finder
from gateway.prices.store import PriceStore
from gateway.rederive import DerivedLine, cost_at, derive_lines
from pricing.money import pico_to_text, round_to_pico
from pricing.rates import CompiledRate

_FILTERS: Final = ("team", "project", "key", "model", "provider", "user")
_PICO: Final = 10**12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    _add_export(actions)
    add_json(actions.add("verify", "recompute the hash chain of every record", "verify"))
    rollups = actions.add(
        "rollups",
        "compare the sums of usage with the records, or make them again",
        "rollups check\nrollups rebuild",
    )
    rollups.add_argument("what", choices=(CHECK, REBUILD), help="what to do with the sums")
    add_json(rollups)
    show = actions.add(
        "show",
        "show a record and derive its cost again",
        "show 01JDC4Q8V6C1Y3W9S5N7T2B4KM",
    )
    show.add_argument("id", help="the x-taximeter-request-id of the response")
    add_json(show)


def _add_export(actions: Actions) -> None:
    export = actions.add(
        "export",
        "write records, oldest first",
        "export --from 2026-11-01 --to 2026-12-01 --format csv --out november.csv\n"
        "export --from 2026-11-23 --team search | jq .cost",
    )
    export.add_argument(
        "--from", dest="start", type=parse_instant, metavar="T", help="first instant (the oldest)"
    )
    export.add_argument(
        "--to", dest="end", type=parse_instant, metavar="T", help="first instant after (the newest)"
    )
    export.add_argument(
        "--format",
        choices=get_args(ExportFormat),
        default="jsonl",
        help="%(default)s unless given; parquet needs pyarrow",
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="where to (standard output)")
    for name in _FILTERS:
        export.add_argument(f"--{name}", help=f"records of this {name} only")
    export.add_argument(
        "--outcome", choices=get_args(Outcome), help="records that ended this way only"
    )
    export.add_argument(
        "--tag",
        action="append",
        default=[],
        type=parse_pair,
        metavar="NAME=VALUE",
        help="records with this tag only; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Do one action.

    Args:
        args: As parsed.

    Returns:
        Exit code.
    """
    settings = read_settings(args)
    with opened_database(settings) as engine:
        if args.action == "export":
            # Before anything is shipped: wrong use must not have effects.
            _refuse_bad_export(args)
        catch_up(settings, engine, SystemClock())
        match args.action:
            case "export":
                return _export(engine, args)
            case "verify":
                return _verify(engine, args)
            case "rollups":
                return run_rollups(engine, args)
            case _:
                return _show(engine, args)


def _refuse_bad_export(args: argparse.Namespace) -> None:
    if args.start is not None and args.end is not None and args.end <= args.start:
        raise CommandFailed("--to must be later than --from; it is not included", exit_code=2)
    if args.format == "parquet" and args.out is None and sys.stdout.isatty():
        raise CommandFailed("parquet is not for a terminal; add --out FILE", exit_code=2)


def _export(engine: Engine, args: argparse.Namespace) -> int:
    wanted = RecordFilter(
        from_us=None if args.start is None else epoch_us(args.start),
        to_us=None if args.end is None else epoch_us(args.end),
        outcome=args.outcome,
        tags=dict(args.tag),
        **{name: getattr(args, name) for name in _FILTERS},
    )
    records = Queries(engine).stream_records(wanted)
    try:
        with opened_output(args.out) as out, Progress("records") as progress:
            count = export_records(_counted(records, progress), args.format, out)
    except (ExportRefused, QueryRefused) as refused:
        raise CommandFailed(str(refused), exit_code=2) from refused
    if args.out is not None:
        write_note(f"{count} records written to {args.out}")
    return 0


def _counted(records: Iterable[LedgerRecord], progress: Progress) -> Iterator[LedgerRecord]:
    for record in records:
        yield record
        progress.step()


def _verify(engine: Engine, args: argparse.Namespace) -> int:
    queries = Queries(engine)
    journals = dict(queries.seqs())
    with Progress("records", sum(journals.values())) as progress:
        problems = list(queries.verify(progress.step))
    if args.json:
        rows = [asdict(problem) for problem in problems]
        write_json({"ok": not problems, "journals": journals, "problems": rows})
        return 1 if problems else 0
    if problems:
        write_table(
            ("WHAT", "JOURNAL", "NUMBER", "RECORD", "DETAIL"),
            [
                [
                    problem.kind,
                    problem.writer or "",
                    "" if problem.seq is None else str(problem.seq),
                    problem.record_id or "",
                    problem.detail,
                ]
                for problem in problems
            ],
            right=("NUMBER",),
        )
        write_note(f"problems: {len(problems)}; this is not what the gateway wrote")
        return 1
    count = sum(journals.values())
    write_line(f"intact: {count} records in {len(journals)} journals, every hash recomputed")
    return 0


def _show(engine: Engine, args: argparse.Namespace) -> int:
    record = Queries(engine).find_record(args.id)
    if record is None:
        raise CommandFailed(f"there is no record {args.id} in the ledger")
    derived = _derive(engine, args, record)
    later = Queries(engine).find_corrections(args.id)
    trouble = [problem for one in (record, *later) for problem in _find_trouble(one)]
    trouble += [one.problem for one in derived if one.problem]
    if args.json:
        rows = [_derived_row(one) for one in derived]
        write_json(
            {
                **to_public(record),
                "derived": {"ok": not trouble, "problems": trouble, "lines": rows},
                "corrections": [to_public(one) for one in later],
                "effective": _effective(record, later),
            }
        )
        return 1 if trouble else 0
    write_fields(_fields_of(record))
    if record.lines:
        _write_lines(record, derived)
    if later:
        _write_corrections(record, later)
    for problem in trouble:
        write_note(f"does not add up: {problem}")
    if record.provider_cost_pico is not None and not trouble:
        write_line("the provider itself said what this call costs; no price book was asked")
    elif derived and not trouble:
        write_line(f"price book {record.price_version} says the same of every line")
    return 1 if trouble else 0


def _derive(
    engine: Engine, args: argparse.Namespace, record: LedgerRecord
) -> tuple[DerivedLine, ...]:
    """Ask the price book again; a correction holds differences, which no book has."""
    if record.corrects is not None or record.price_version is None:
        return ()
    return derive_lines(record, book_finder(read_settings(args), PriceStore(engine).load_book))


def _write_lines(record: LedgerRecord, derived: Sequence[DerivedLine]) -> None:
    write_line()
    write_table(
        ("METER", "QUANTITY x PRICE / PER", "= COST", "BOOKED", "PRICE ID"),
        [
            [
                line.meter,
                f"{line.quantity} x {line.unit_price} / {line.per}",
                pico_to_text(derive_cost(line)),
                pico_to_text(line.cost_pico),
                line.price_id,
            ]
            for line in record.lines
        ],
        right=("QUANTITY x PRICE / PER", "= COST", "BOOKED"),
    )
    total = sum(line.cost_pico for line in record.lines)
    write_line(f"sum of the lines {pico_to_text(total)} {record.currency}")
    prices = [(one.line, one.price) for one in derived if one.price is not None]
    if prices:
        write_line()
        write_table(
            ("METER", "PRICE IN THE BOOK", "PUBLISHED", "OVERRIDE", "CHECKED", "SOURCE"),
            [
                [
                    line.meter,
                    f"{price.amount_text} / {price.per}",
                    _terms(price.listed or price),
                    price.agreement or "",
                    price.rate.checked_at.isoformat(),
                    price.rate.source,
                ]
                for line, price in prices
            ],
        )


def _terms(price: CompiledRate) -> str:
    return f"{price.amount_text} / {price.per}"


def _derived_row(one: DerivedLine) -> dict[str, Any]:
    price = one.price
    row: dict[str, Any] = {
        "meter": one.line.meter,
        "price_id": one.line.price_id,
        "quantity": one.line.quantity,
        "problem": one.problem,
    }
    if price is None:
        return row
    listed = price.listed or price
    return row | {
        "unit_price": price.amount_text,
        "per": str(price.per),
        "cost": pico_to_text(cost_at(one.line, price)),
        "list_unit_price": listed.amount_text,
        "list_cost": pico_to_text(cost_at(one.line, listed)),
        "override": price.agreement,
        "source": price.rate.source,
        "checked_at": price.rate.checked_at.isoformat(),
    }


def _effective(record: LedgerRecord, later: Sequence[LedgerRecord]) -> dict[str, str | None]:
    call = posted_call(record, later)
    return {
        "cost": None if call.cost_pico is None else pico_to_text(call.cost_pico),
        "list_cost": None if call.list_cost_pico is None else pico_to_text(call.list_cost_pico),
    }


def _write_corrections(record: LedgerRecord, later: Sequence[LedgerRecord]) -> None:
    write_line()
    write_table(
        ("CORRECTION", "MADE AT", "COST", "PRICE BOOK", "WHY"),
        [
            [
                one.id,
                to_rfc3339(one.ended_at_us),
                _money_text(one.cost_pico),
                one.price_version or "",
                "; ".join(one.flags),
            ]
            for one in later
        ],
        right=("COST",),
    )
    cost = _money_text(posted_call(record, later).cost_pico)
    first = _money_text(record.cost_pico)
    many = "1 correction" if len(later) == 1 else f"{len(later)} corrections"
    write_line(f"effective cost {cost} {record.currency} ({first} as recorded, {many})")


def _money_text(pico: int | None) -> str:
    return "unknown" if pico is None else pico_to_text(pico)


def derive_cost(line: LedgerLine) -> int:
    """Work a line's cost out from what stands beside it, without the price book.

    Args:
        line: As booked.

    Returns:
        Quantity times price by ``per``, in 10^-12 currency units, half to even.
    """
    exact = Fraction(line.quantity) * Fraction(line.unit_price) * _PICO / line.per
    return round_to_pico(exact.numerator, exact.denominator)


def _find_trouble(record: LedgerRecord) -> list[str]:
    trouble = [
        f"{line.meter}: {pico_to_text(derive_cost(line))} derived, "
        f"{pico_to_text(line.cost_pico)} booked"
        for line in record.lines
        if derive_cost(line) != line.cost_pico
    ]
    total = sum(line.cost_pico for line in record.lines)
    if record.lines and record.cost_pico != total:
        booked = "unknown" if record.cost_pico is None else pico_to_text(record.cost_pico)
        trouble.append(f"the lines come to {pico_to_text(total)}, the record says {booked}")
    return trouble


def _fields_of(record: LedgerRecord) -> list[tuple[str, str]]:
    public: dict[str, Any] = to_public(record)
    shown = []
    for name, value in public.items():
        match value:
            case _ if name == "lines":
                continue
            case None:
                text = ""
            case bool():
                text = "yes" if value else "no"
            case dict():
                text = pairs_text((key, str(item)) for key, item in value.items())
            case list():
                text = "; ".join(map(str, value))
            case _:
                text = str(value)
        shown.append((name, text))
    return shown
