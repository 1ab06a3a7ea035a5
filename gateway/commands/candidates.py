"""``taximeter prices import | diff | approve | reject | versions``: from a list to prices in force.

Must never put a price in force that nobody approved.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any, Final

from sqlalchemy import Engine

from gateway.commands.books import opened_engine_prices, opened_prices
from gateway.commands.context import actor_name
from gateway.commands.entities import instant_text
from gateway.commands.output import (
    CommandFailed,
    Progress,
    write_fields,
    write_json,
    write_line,
    write_note,
    write_table,
)
from gateway.commands.parsing import Actions, add_json, parse_count
from gateway.commands.price_changes import Work, add_signature, version_to_public, write_versions
from gateway.ledger.queries import Queries
from gateway.prices.asked import Signature
from gateway.prices.importing import (
    Allowed,
    find_own_prices,
    make_candidate,
    read_lists,
    to_row_own,
)
from gateway.prices.rows import StoredVersion
from gateway.prices.terms import Standings, stand
from pricing.importers.by_hand import OwnPrice
from pricing.importers.catalogs import catalog_of_book
from pricing.importers.compare import price_text
from pricing.importers.diff import Diff, Effect, Kind, PriceChange, diff_catalogs, effect_of
from pricing.importers.sources import SOURCES
from pricing.money import Money, pico_to_text
from pricing.months import Span
from pricing.sku import PriceId
from pricing.usage import Quantity

_DAYS: Final = 30
_ROWS: Final = 40
_MARK: Final = {Kind.ADDED: "new", Kind.REMOVED: "gone"}


def add_arguments(actions: Actions) -> None:
    """Declare the actions about versions and candidates.

    Args:
        actions: Those of ``taximeter prices``.
    """
    versions = actions.add("versions", "list the versions of the price book", "versions")
    add_json(versions)
    read = actions.add(
        "import",
        "read price lists and propose what they say as a candidate",
        "import\nimport --source genai-prices --source downloads/prices.json",
    )
    read.add_argument(
        "--source",
        action="append",
        metavar="NAME|FILE",
        help=f"{' or '.join(SOURCES)} as installed, or a file of such a list; may be repeated, "
        "the more trusted one first (both)",
    )
    read.add_argument(
        "--may-shrink",
        action="append",
        default=[],
        metavar="PROVIDER",
        help="a provider that may lose models; may be repeated",
    )
    read.add_argument(
        "--replace-own",
        action="store_true",
        help="let the lists replace prices that were set by hand here",
    )
    read.add_argument("--why", default="", help="for whoever asks later")
    add_json(read)
    diff = actions.add(
        "diff",
        "compare a candidate with the prices in force, and with what was used",
        "diff\ndiff 2026-12-01.1 --days 7 --json",
    )
    diff.add_argument("version", nargs="?", help="the candidate (the newest)")
    diff.add_argument(
        "--days", type=parse_count, default=_DAYS, help="price the use of this many days (30)"
    )
    diff.add_argument("--all", action="store_true", help=f"every change, not the first {_ROWS}")
    add_json(diff)
    approve = actions.add(
        "approve",
        "put a candidate in force",
        'approve 2026-12-01.1 --why "read the diff"\n'
        'approve 2026-12-01.1 --effective-from 2027-01-01 --why "new year"',
    )
    approve.add_argument("version", help="the candidate")
    approve.add_argument(
        "--replace", action="store_true", help="also where prices were changed since it was made"
    )
    add_signature(approve)
    reject = actions.add(
        "reject",
        "decide that a candidate, or a version still to come, is not to hold",
        'reject 2026-12-01.1 --why "the page says otherwise"',
    )
    reject.add_argument("version", help="the candidate")
    reject.add_argument("--why", required=True, help="for whoever asks later")
    add_json(reject)


def _list(args: argparse.Namespace) -> int:
    with opened_prices(args) as (store, _):
        versions = store.list_versions()
        standings = stand(versions, store.clock.now())
    if args.json:
        write_json([version_to_public(one, standings) for one in versions])
        return 0
    headings = ("VERSION", "STATUS", "IN FORCE FROM", "TO", "AGE", "BY", "WHY")
    write_table(headings, [_version_cells(one, standings) for one in versions], right=["AGE"])
    return 0


def _version_cells(one: StoredVersion, standings: Standings) -> tuple[str, ...]:
    standing = standings.of(one)
    return (
        one.version,
        standing.text,
        "" if standing.since is None else instant_text(standing.since),
        "" if standing.until is None else instant_text(standing.until),
        f"{max(0, (standings.at - one.recorded_at).days)} d",
        one.recorded_by,
        one.why,
    )


def _import(args: argparse.Namespace) -> int:
    sources = args.source or list(SOURCES)
    with opened_prices(args) as (store, desk), Progress("steps", 4) as progress:
        day = store.clock.now().astimezone(UTC).date()
        lists = read_lists(sources, day)
        progress.step()
        book = store.load_book()
        own = find_own_prices(store, book)
        progress.step()
        allowed = Allowed(may_shrink=args.may_shrink, replaces_own=args.replace_own)
        made = make_candidate(book, lists, day, own=own, allowed=allowed)
        progress.step()
        found = ", ".join(one.source for one in lists)
        signed = Signature(who=actor_name(), why=f"{args.why} ({found})" if args.why else found)
        kept = [to_row_own(one) for one in made.own if not one.is_replaced]
        candidate = desk.propose(made.contents, signed, book.version.version, kept)
        standings = stand(store.list_versions(), store.clock.now())
        progress.step()
    kinds = diff_catalogs(catalog_of_book(book), made.catalog).count_kinds()
    if args.json:
        shown = None if candidate is None else version_to_public(candidate, standings)
        write_json(
            {
                "candidate": shown,
                "base": book.version.version,
                "lists": [
                    {"source": one.source, "left_out": [str(row) for row in one.left_out]}
                    for one in lists
                ],
                "changes": {kind.value: kinds[kind] for kind in Kind},
                "kept": kept,
                "replaced": [to_row_own(one) for one in made.own if one.is_replaced],
            }
        )
        return 0
    for one in lists:
        write_line(f"{one.source}: {one.rate_count:,} rates, {len(one.left_out):,} rows left out")
    _write_own(made.own)
    if candidate is None:
        _write_disputed(kept)
        write_line(f"nothing changes: price book {book.version.version} says the same")
        return 0
    write_line(f"candidate {candidate.version}, made from {candidate.base}: {_counted(kinds)}")
    write_note(f"compare it with `taximeter prices diff {candidate.version}`")
    return 0


def _write_own(own: Sequence[OwnPrice]) -> None:
    """Say what became of prices that were set by hand."""
    if not own:
        return
    replaced = [one for one in own if one.is_replaced]
    kept = [one for one in own if not one.is_replaced]
    disputed = sum(one.listed is not None for one in kept)
    parts = [f"{len(kept):,} kept; the lists say otherwise of {disputed:,}"]
    if replaced:
        parts.insert(0, f"{len(replaced):,} replaced")
    hint = ", --replace-own lets them win" if disputed else ""
    write_line(f"prices set by hand: {', '.join(parts)}{hint}")


def _write_disputed(kept: Sequence[Mapping[str, Any]]) -> None:
    """List the prices set by hand that lists say otherwise of."""
    disputed = [one for one in kept if one["list_amount"] is not None]
    if disputed:
        write_table(
            ("KEPT, SET BY HAND", "PRICE", "PER", "FROM", "LIST SAYS", "PER", "LIST"),
            [
                (
                    one["price_id"],
                    one["amount"],
                    one["per"],
                    one["valid_from"][:10],
                    one["list_amount"],
                    one["list_per"],
                    one["list_source"],
                )
                for one in disputed
            ],
            right=["PRICE", "PER", "LIST SAYS"],
        )


def _counted(kinds: Mapping[Kind, int]) -> str:
    return ", ".join(f"{kinds[kind]:,} {kind.value}" for kind in Kind)


def _diff(args: argparse.Namespace) -> int:
    with opened_engine_prices(args) as (engine, store, desk):
        name = args.version or _newest_candidate(store.list_versions())
        book = store.load_book()
        now = store.clock.now()
        diff = diff_catalogs(
            catalog_of_book(book), catalog_of_book(store.open_book(desk.preview(name)))
        )
        span = Span(now - timedelta(days=args.days), now)
        used = _sum_used(engine, span, args.days)
        kept = store.find_version(name).kept
    effects = {one.change: one for one in effect_of(diff, used, now)}
    if args.json:
        row = _diff_row(diff, effects, (book.version.version, name), args.days)
        write_json({**row, "kept": list(kept)})
    else:
        _write_diff(args, diff, effects, (book.version.version, name))
        _write_kept(kept)
    return 0


def _newest_candidate(versions: Sequence[StoredVersion]) -> str:
    for one in reversed(versions):
        if one.status == "candidate":
            return one.version
    raise CommandFailed("there is no candidate; `taximeter prices import` makes one")


def _sum_used(engine: Engine, span: Span, days: int) -> Mapping[PriceId, Quantity]:
    with Progress("days of the ledger", days) as progress:
        return Queries(engine).sum_priced(span, progress.step)


def _write_diff(
    args: argparse.Namespace,
    diff: Diff,
    effects: Mapping[PriceChange, Effect],
    names: tuple[str, str],
) -> None:
    old, new = names
    write_line(f"{old} -> {new}: {_counted(diff.count_kinds())}")
    for label, found in (
        ("models added", diff.models_added),
        ("models removed", diff.models_removed),
    ):
        if found:
            write_line(f"{label}: {len(found):,}")
    # What was used comes first: it is what changes a bill.
    changes = sorted(diff.changes, key=lambda c: (c not in effects, c.price_id, c.since))
    shown = changes if args.all else changes[:_ROWS]
    if shown:
        write_line()
        days = f"{args.days} D"
        write_table(
            ("PRICE ID", "FROM", "TO", "CHANGE", "SINCE", f"{days} BEFORE", f"{days} AFTER"),
            [_cells(change, effects.get(change)) for change in shown],
            right=["CHANGE", f"{days} BEFORE", f"{days} AFTER"],
        )
    if len(shown) < len(changes):
        write_line(f"... and {len(changes) - len(shown):,} more; --all shows them")
    write_line()
    total = _total(effects.values())
    write_fields(
        [
            (f"cost of {args.days} days at these prices, now", pico_to_text(total[0])),
            ("with the candidate", pico_to_text(total[1])),
            ("difference", pico_to_text(total[1] - total[0])),
        ]
    )


def _write_kept(kept: Sequence[Mapping[str, Any]]) -> None:
    if kept:
        write_line()
        write_line(f"prices set by hand that it keeps: {len(kept):,}")
        _write_disputed(kept)


def _cells(change: PriceChange, effect: Effect | None) -> tuple[str, ...]:
    percent = change.percent
    return (
        change.price_id,
        "" if change.before is None else price_text(change.before),
        "" if change.after is None else price_text(change.after),
        _MARK.get(change.kind, "") if percent is None else f"{percent:+} %",
        instant_text(change.since)[:10],
        "" if effect is None or effect.before is None else str(effect.before),
        "" if effect is None or effect.after is None else str(effect.after),
    )


def _total(effects: Iterable[Effect]) -> tuple[int, int]:
    """Both sides of every change whose two sides are known, in 10^-12 units."""
    both = [
        (one.before.pico, one.after.pico)
        for one in effects
        if one.before is not None and one.after is not None
    ]
    return sum(before for before, _ in both), sum(after for _, after in both)


def _diff_row(
    diff: Diff, effects: Mapping[PriceChange, Effect], names: tuple[str, str], days: int
) -> dict[str, Any]:
    before, after = _total(effects.values())
    return {
        "from": names[0],
        "to": names[1],
        "days": days,
        "changes": [_change_row(change, effects.get(change)) for change in diff.changes],
        "models_added": ["/".join(name) for name in diff.models_added],
        "models_removed": ["/".join(name) for name in diff.models_removed],
        "cost_before": pico_to_text(before),
        "cost_after": pico_to_text(after),
    }


def _change_row(change: PriceChange, effect: Effect | None) -> dict[str, Any]:
    counted = None if effect is None else f"{effect.quantity:f}"
    return {
        "price_id": change.price_id,
        "kind": change.kind.value,
        "since": instant_text(change.since),
        "until": None if change.until is None else instant_text(change.until),
        "amount_before": None if change.before is None else f"{change.before.amount:f}",
        "per_before": None if change.before is None else str(change.before.per),
        "amount_after": None if change.after is None else f"{change.after.amount:f}",
        "per_after": None if change.after is None else str(change.after.per),
        "percent": None if change.percent is None else f"{change.percent:f}",
        "quantity": counted,
        "cost_before": _money(None if effect is None else effect.before),
        "cost_after": _money(None if effect is None else effect.after),
    }


def _money(money: Money | None) -> str | None:
    return None if money is None else pico_to_text(money.pico)


def _approve(args: argparse.Namespace) -> int:
    signed = Signature(who=actor_name(), why=args.why)
    with opened_prices(args) as (store, desk):
        made = desk.approve(args.version, signed, args.effective_from, replaces=args.replace)
        standings = stand(store.list_versions(), store.clock.now())
    return write_versions(args, made, standings)


def _reject(args: argparse.Namespace) -> int:
    with opened_prices(args) as (store, desk):
        found = desk.reject(args.version, Signature(who=actor_name(), why=args.why))
        standings = stand(store.list_versions(), store.clock.now())
    return write_versions(args, found, standings)


ACTIONS: Final[Mapping[str, Work]] = {
    "versions": _list,
    "import": _import,
    "diff": _diff,
    "approve": _approve,
    "reject": _reject,
}
