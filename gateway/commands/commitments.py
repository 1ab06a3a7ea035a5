"""``taximeter commitments``: what was paid for in advance, and what it was worth.

Must never show a rounded amount as JSON: tables are rounded, ``--json`` is exact.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from gateway.clock import Clock, SystemClock
from gateway.commands.books import read_book
from gateway.commands.catch_up import catch_up
from gateway.commands.context import read_settings
from gateway.commands.database import directory_answers, opened_database
from gateway.commands.entities import instant_text
from gateway.commands.output import (
    CommandFailed,
    Progress,
    bar_text,
    write_json,
    write_line,
    write_note,
    write_table,
)
from gateway.commands.parsing import Actions, add_json, parse_count
from gateway.directory import Directory
from gateway.fixed_costs import (
    DAYS_MEASURED,
    CommitmentReport,
    HostingReport,
    SharedReport,
    commitments_to_public,
    hosting_to_public,
    kind_of,
    list_payers,
    month_of,
    permille_text,
    report_commitments,
    report_hosting,
    report_shared,
    share_permille,
    shared_to_public,
    unit_text,
)
from gateway.ledger.queries import Queries
from gateway.settings import Settings
from pricing.commitments import from_pico
from pricing.drawdown import Account
from pricing.money import round_to_pico
from pricing.months import Month, Span, parse_month
from pricing.selfhosted import TokenTerms, explain

_DOLLAR_PICO: Final = 10**12
_DAYS_SHOWN: Final = 14
_DAYS_MAX: Final = 3660
_REPORT_HEADINGS: Final = (
    "ID",
    "KIND",
    "USED",
    "COMMITTED",
    "UNUSED",
    "OVERFLOW",
    "UNIT",
    "SHARE USED",
    "FEE SO FAR",
    "ON DEMAND",
    "SAVING",
    "PER UNIT",
    "LASTS UNTIL",
)
_NUMBERS: Final = (
    "USED",
    "COMMITTED",
    "UNUSED",
    "OVERFLOW",
    "FEE SO FAR",
    "ON DEMAND",
    "SAVING",
)
_SHARE_HEADINGS: Final = ("WHO", "USED", "SHARE", "PERCENT", "AMOUNT")
_HOSTING_HEADINGS: Final = (
    "MODEL",
    "BUSY",
    "TOKENS/S",
    "OUTPUT %",
    "GPU COST",
    "BILLED",
    "NOT RECOVERED",
    "REAL /1M",
    "INPUT /1M",
    "OUTPUT /1M",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    report = actions.add(
        "report",
        "show what is used and left of every commitment, what it cost and what it saved",
        "report --month 2026-11\nreport openai-pack\nreport --json",
    )
    report.add_argument("id", nargs="?", help="one commitment, with its days; all unless given")
    _add_month(report)
    add_json(report)
    shared = actions.add(
        "shared",
        "split the shared costs of a month between teams or projects",
        "shared --month 2026-11\nshared --json",
    )
    _add_month(shared)
    add_json(shared)
    hosted = actions.add(
        "self-hosted",
        "show what the tokens of self-hosted models really cost, beside what was assumed",
        "self-hosted\nself-hosted --days 7 --json",
    )
    hosted.add_argument(
        "--days",
        type=parse_count,
        default=DAYS_MEASURED,
        metavar="N",
        help="measure the last N days (%(default)s)",
    )
    add_json(hosted)


def _add_month(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--month",
        type=_parse_month,
        metavar="YYYY-MM",
        help="a calendar month of each one's own zone (the current one)",
    )


def _parse_month(text: str) -> Month:
    try:
        return parse_month(text)
    except ValueError as broken:
        raise argparse.ArgumentTypeError(str(broken)) from None


def run(args: argparse.Namespace) -> int:
    """Make one report.

    Args:
        args: As parsed.

    Returns:
        Exit code.

    Raises:
        CommandFailed: The settings or the database cannot be used, or there is no such commitment.
    """
    clock = SystemClock()
    settings = read_settings(args)
    _check_wish(args, settings)
    with opened_database(settings) as engine:
        catch_up(settings, engine, clock)
        queries = Queries(engine)
        match args.action:
            case "report":
                return _report(args, settings, queries, clock)
            case "shared":
                with directory_answers(args):
                    payers = list_payers(Directory(engine, settings))
                now = clock.now()
                month = args.month or month_of(now)
                return _shared(args, report_shared(settings, queries, payers, month, now), month)
            case _:
                return _self_hosted(args, settings, queries, clock)


def _check_wish(args: argparse.Namespace, settings: Settings) -> None:
    """Say what is missing before the database is opened."""
    wanted = getattr(args, "id", None)
    known = [one.id for one in settings.commitments]
    if wanted is not None and wanted not in known:
        there = ", ".join(known) or "none"
        raise CommandFailed(
            f"there is no commitment {wanted!r} in the settings; there are: {there}"
        )
    if args.action == "self-hosted" and not 1 <= args.days <= _DAYS_MAX:
        raise CommandFailed(f"--days is a number from 1 to {_DAYS_MAX}", exit_code=2)


def _report(args: argparse.Namespace, settings: Settings, queries: Queries, clock: Clock) -> int:
    now = clock.now()
    when = (args.month or month_of(now), now)
    with Progress("sums of use read", clock=clock) as progress:
        report = report_commitments(settings, read_book(settings), queries, when, progress.step)
    accounts = [one for one in report.accounts if args.id in (None, one.commitment.id)]
    if args.json:
        shown = commitments_to_public(report)
        shown["items"] = [one for one in shown["items"] if args.id in (None, one["id"])]
        write_json(shown)
    elif not accounts:
        write_line(f"no commitments in {report.month}")
    else:
        write_table(_REPORT_HEADINGS, [_account_cells(one) for one in accounts], right=_NUMBERS)
        if args.id is not None:
            for account in accounts:
                _write_days(account)
        _write_remarks(report, accounts)
    return 0


def _account_cells(account: Account) -> list[str]:
    return [
        account.commitment.id,
        kind_of(account.commitment.terms),
        _amount(account, account.used),
        _amount(account, account.committed),
        _amount(account, account.unused),
        _amount(account, account.overflow),
        unit_text(account),
        bar_text(account.used, account.committed),
        _usd(account.amortised_pico),
        _usd(account.on_demand_pico),
        _usd(account.saving_pico),
        _effective(account),
        _lasts(account),
    ]


def _effective(account: Account) -> str:
    if account.effective_pico is None:
        return ""
    per = "1M" if account.effective_per > 1 else "one"
    return f"{_fine(account.effective_pico)} / {per}"


def _lasts(account: Account) -> str:
    if account.exhausted_at is not None:
        return f"used up {_minute(account.exhausted_at)}"
    if account.projected_at is None or account.projected_at >= account.period.end:
        return f"its end {_minute(account.period.end)}"
    return f"about {_minute(account.projected_at)}"


def _write_days(account: Account) -> None:
    """Draw how it was drawn down, the last days of it."""
    hidden = len(account.days) - _DAYS_SHOWN
    write_line(f"\n{account.commitment.id} by day ({account.commitment.zone.key})")
    if hidden > 0:
        write_line(f"({hidden} earlier days are in --json)")
    most = max((day.used for day in account.days), default=0)
    keeps = any(day.left is not None for day in account.days)
    rows = [
        [
            day.day.isoformat(),
            _amount(account, day.used),
            bar_text(account.committed - day.left, account.committed)
            if day.left is not None
            else bar_text(day.used, most or 1),
            "" if day.left is None else _amount(account, day.left),
            _usd(day.amortised_pico),
            _usd(day.on_demand_pico),
        ]
        for day in account.days[-_DAYS_SHOWN:]
    ]
    drawn = "DRAWN SO FAR" if keeps else "OF ITS BEST DAY"
    headings = ("DAY", "USED", drawn, "LEFT", "FEE", "ON DEMAND")
    write_table(headings, rows, right=("USED", "LEFT", "FEE", "ON DEMAND"))


def _write_remarks(report: CommitmentReport, accounts: Sequence[Account]) -> None:
    over = sum(account.overflow_cost_pico for account in accounts)
    if over:
        write_note(f"what overflowed cost {_usd(over)} USD on demand")
    for account in accounts:
        if account.unpriced_quantity:
            quantity = _number(account.unpriced_quantity)
            write_note(
                f"{account.commitment.id}: {quantity} of it had no price on demand, so what it "
                "saved is not fully known"
            )
    if report.unknown_requests:
        write_note(
            f"{report.unknown_requests} calls that could be covered are of unknown size; "
            "they are not in this report"
        )


def _shared(args: argparse.Namespace, reports: Sequence[SharedReport], month: Month) -> int:
    if args.json:
        write_json(shared_to_public(reports, month))
        return 0
    if not reports:
        write_line(f"no shared costs in {month}")
    for number, report in enumerate(reports):
        if number:
            write_line()
        _write_split(report)
    return 0


def _write_split(report: SharedReport) -> None:
    split = report.split
    cost = split.cost
    state = "" if report.is_final else ", so far"
    write_line(
        f"{cost.id}  {_usd(cost.amount_pico)} USD of {split.month} by {cost.measure} among "
        f"{cost.payers}s{state}"
    )
    whole = sum(share.weight for share in split.shares)
    is_money = cost.measure == "cost"
    rows = [
        [
            share.payer or f"(no {cost.payers})",
            _usd(share.weight) if is_money else f"{share.weight:,}",
            bar_text(share.weight, whole or 1).partition("]")[0] + "]",
            permille_text(share_permille(share, split)) or "",
            _usd(share.amount_pico),
        ]
        for share in split.shares
    ]
    if split.unallocated_pico:
        rows.append(["(unallocated)", "", "", "", _usd(split.unallocated_pico)])
    write_table(_SHARE_HEADINGS, rows, right=("USED", "PERCENT", "AMOUNT"))
    if report.unknown_requests:
        write_note(f"{cost.id}: {report.unknown_requests} calls of unknown size are in no share")


def _self_hosted(
    args: argparse.Namespace, settings: Settings, queries: Queries, clock: Clock
) -> int:
    now = clock.now()
    span = Span(now - timedelta(days=args.days), now)
    with Progress("calls measured", clock=clock) as progress:
        reports = report_hosting(settings, queries, span, progress.step)
    if args.json:
        write_json([hosting_to_public(report) for report in reports])
        return 0
    if not reports:
        write_line("no self-hosted models in the settings")
        return 0
    write_table(
        _HOSTING_HEADINGS,
        [_hosting_cells(report) for report in reports],
        right=_HOSTING_HEADINGS[2:],
    )
    for report in reports:
        _write_assumed(report)
    return 0


def _hosting_cells(report: HostingReport) -> list[str]:
    real = report.reality
    return [
        f"{real.provider}/{real.model}",
        bar_text(real.busy_us, real.span_us or 1),
        "" if real.tokens_per_s is None else f"{real.tokens_per_s:,}",
        "" if real.output_share is None else f"{real.output_share}",
        _usd(real.gpu_cost_pico),
        _usd(real.billed_pico),
        _usd(real.unrecovered_pico),
        *(
            "" if pico is None else _fine(pico)
            for pico in (real.blended_pico, real.input_pico, real.output_pico)
        ),
    ]


def _write_assumed(report: HostingReport) -> None:
    """Say what the price in force rests on, and what to write to make it what was measured."""
    real = report.reality
    days = instant_text(real.span.start)
    write_line(f"\n{real.provider}/{real.model} since {days}")
    write_line(f"  assumed   {explain(report.deployment)}")
    if real.tokens_per_s and real.utilization:
        share = ""
        if isinstance(report.deployment.terms, TokenTerms) and real.output_weight != 1:
            share = f', output_share: "{real.output_share}"'
        write_line(
            f'  measured  tokens_per_s: "{real.tokens_per_s}", '
            f'utilization: "{real.utilization}"{share}'
        )
    else:
        write_line("  measured  nothing yet")


def _amount(account: Account, pico: int) -> str:
    return _usd(pico) if kind_of(account.commitment.terms) == "money" else _number(pico)


def _number(pico: int) -> str:
    return f"{from_pico(pico):,}"


def _usd(pico: int) -> str:
    """Write money in whole cents; less than a dollar to the millionth of it."""
    if 0 < abs(pico) < _DOLLAR_PICO:
        return f"{Decimal(round_to_pico(pico, 10**6)) / 10**6:,.6f}"
    return f"{Decimal(round_to_pico(pico, 10**10)) / 100:,.2f}"


def _fine(pico: int) -> str:
    """Write a unit price in hundredths of cents."""
    return f"{Decimal(round_to_pico(pico, 10**8)) / 10_000:,.4f}"


def _minute(at: datetime) -> str:
    return instant_text(at)[:16] + "Z"
