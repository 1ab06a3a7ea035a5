"""``taximeter rerate``. Must never change a record: corrections are appended."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.clock import SystemClock, epoch_us, to_rfc3339
from gateway.commands.catch_up import catch_up
from gateway.commands.context import actor_name, read_settings
from gateway.commands.database import opened_database
from gateway.commands.output import (
    CommandFailed,
    Progress,
    write_json,
    write_line,
    write_note,
    write_table,
)
from gateway.commands.parsing import add_json, parse_instant, parse_pair, show_example
from gateway.ledger.filters import QueryRefused, RecordFilter
from gateway.price_versions import GatewayVersions, check_version
from gateway.prices.store import PriceStore
from gateway.rerate_runs import EmptySpan, RerateRequest, Rerates
from pricing.book import BookBroken
from pricing.shelf import NoSuchVersion

_FILTERS: Final = ("organization", "team", "project", "key", "user", "provider", "model")
_NUMBERS: Final = ("RECORDS", "CHANGED", "LEFT", "BEFORE", "AFTER", "DIFFERENCE", "PERCENT")
_PREVIEW_SPAN: Final = timedelta(days=30)
_EXAMPLE: Final = """\
taximeter rerate --dry-run
taximeter rerate --from 2026-11-01 --to 2026-12-01 --price-version 2026-11-23.1 --dry-run
taximeter rerate --from 2026-11-01 --to 2026-12-01 --as-of 2026-12-05 --team ads --why "late list"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.epilog = show_example(_EXAMPLE)
    parser.add_argument(
        "--from",
        dest="start",
        type=parse_instant,
        metavar="T",
        help="first instant (in a dry run 30 days before the end)",
    )
    parser.add_argument(
        "--to",
        dest="end",
        type=parse_instant,
        metavar="T",
        help="first instant after (in a dry run now)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--price-version", metavar="V", help="with the prices of this version")
    which.add_argument(
        "--as-of",
        type=parse_instant,
        metavar="T",
        help="with the prices as they were known then (in a dry run now)",
    )
    for name in _FILTERS:
        parser.add_argument(f"--{name}", help=f"calls of this {name} only")
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        type=parse_pair,
        metavar="NAME=VALUE",
        help="calls with this tag only; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the difference alone")
    parser.add_argument("--why", metavar="TEXT", help="stands in every correction")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Price calls again.

    Args:
        args: As parsed.

    Returns:
        Exit code: 0 when done, also when nothing changes or some calls cannot be priced.

    Raises:
        CommandFailed: The version, the span of time or the reason is missing or makes no sense.
    """
    clock = SystemClock()
    # The next whole second: what was recorded until now is known by then.
    now = clock.now().replace(microsecond=0) + timedelta(seconds=1)
    if args.dry_run:
        _fill_in(args, now)
    else:
        _refuse_gaps(args, now)
    settings = read_settings(args)
    with opened_database(settings) as engine:
        store = PriceStore(engine, clock)
        versions = GatewayVersions(settings, store)
        rerates = Rerates(engine, versions, clock)
        try:
            request = _read_request(args, store, versions)
            catch_up(settings, engine, clock)
            with Progress("calls", rerates.count(request.wanted)) as progress:
                if args.dry_run:
                    shown = rerates.preview(request, progress.step)
                else:
                    done = rerates.run(request, actor_name(), args.why.strip(), progress.step)
                    shown = done.to_public()
        except (NoSuchVersion, EmptySpan, QueryRefused, BookBroken) as refused:
            raise CommandFailed(str(refused), exit_code=2) from refused
    if args.json:
        write_json(shown)
    else:
        _write(shown)
    return 0


def _fill_in(args: argparse.Namespace, now: datetime) -> None:
    """A look changes nothing, so what is left out is the last 30 days and what is known now."""
    if args.price_version is None and args.as_of is None:
        args.as_of = now
    args.end = args.end or now
    args.start = args.start or args.end - _PREVIEW_SPAN


def _refuse_gaps(args: argparse.Namespace, now: datetime) -> None:
    """Corrections stay, so nothing about them is taken for granted."""
    is_open = args.price_version is None and args.as_of is None
    needed = {
        "--from": args.start is None,
        "--to": args.end is None,
        "--price-version or --as-of": is_open,
    }
    missing = [name for name, is_missing in needed.items() if is_missing]
    if missing:
        today = f"{now:%Y-%m-%d}"
        raise CommandFailed(
            f"say {', '.join(missing)}: corrections stay. A whole command is\n"
            f"  taximeter rerate --from {now - _PREVIEW_SPAN:%Y-%m-%d} --to {today} "
            f'--as-of {_short(to_rfc3339(epoch_us(now)))} --why "late list"\n'
            "or look first with\n"
            "  taximeter rerate --dry-run",
            exit_code=2,
        )
    if not (args.why or "").strip():
        raise CommandFailed(
            "say --why: it stands in every correction; or look first with --dry-run", exit_code=2
        )


def _read_request(
    args: argparse.Namespace, store: PriceStore, versions: GatewayVersions
) -> RerateRequest:
    if not store.list_versions():
        # No gateway has started on this database yet.
        store.record_shipped("taximeter rerate")
    if args.as_of is None:
        version = check_version(versions, args.price_version)
    else:
        version = versions.known_at(args.as_of).version
    return RerateRequest(
        version=version,
        as_of_us=None if args.as_of is None else epoch_us(args.as_of),
        wanted=RecordFilter(
            from_us=epoch_us(args.start),
            to_us=epoch_us(args.end),
            tags=dict(args.tag),
            **{name: getattr(args, name) for name in _FILTERS},
        ),
    )


def _write(shown: Mapping[str, Any]) -> None:
    what = "would be re-rated" if shown["dry_run"] else "re-rated"
    span = f"calls from {_short(shown['from'])} to {_short(shown['to'])}"
    write_line(f"{what} with price book {shown['price_version']}: {span}")
    rows: Sequence[Mapping[str, Any]] = shown["teams"]
    if not rows:
        write_line("there is no call in this span of time")
        return
    totals = [{**row, "team": "all"} for row in shown["totals"]]
    write_table(
        ("TEAM", *_NUMBERS, "CURRENCY"),
        [
            [
                row["team"] or "",
                str(row["records"]),
                str(row["changed"]),
                str(row["cannot_rerate"]),
                row["before"],
                row["after"],
                row["difference"],
                "" if row["percent"] is None else f"{row['percent']}%",
                row["currency"],
            ]
            for row in (*rows, *totals)
        ],
        right=_NUMBERS,
    )
    _write_notes(shown)


def _short(instant: str) -> str:
    return instant.replace(".000000Z", "Z")


def _write_notes(shown: Mapping[str, Any]) -> None:
    newly = sum(row["newly_priced"] for row in shown["totals"])
    if newly:
        write_line(f"{newly} of them had no cost before, so BEFORE does not hold them")
    for left in shown["cannot_rerate"]:
        write_line(f"{left['records']} left as they are: {left['detail']}")
        for example in left["examples"]:
            write_line(f"  {example}")
    if shown["dry_run"]:
        write_note("nothing was changed; leave out --dry-run and say --why to append corrections")
    else:
        write_line(f"run {shown['id']}: {shown['corrections']} corrections appended")
