"""``taximeter demo``: the fake provider, and traffic for it.

Must never call a real provider.
"""

import argparse
import asyncio
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from gateway.clock import SystemClock
from gateway.commands.output import CommandFailed, Progress, write_line, write_note, write_table
from gateway.commands.parsing import parse_count, show_example
from gateway.demo import serve_demo
from gateway.traffic.local import LocalFailed, started
from gateway.traffic.office import OfficeFailed
from gateway.traffic.player import NotTheDemo
from gateway.traffic.provider import provider_app
from gateway.traffic.run import DayDone, Options, planned_calls, run_days
from gateway.traffic.tally import Tally, TeamRow

_PORT: Final = 8081
_GATEWAY_PORT: Final = 8080
_SHOWN_MAX: Final = 5
_HEADINGS: Final = ("TEAM", "CALLS", "REFUSED", "FAILED", "INPUT", "OUTPUT", "UNPRICED", "COST USD")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port",
        type=parse_count,
        help=f"port to listen on ({_PORT}; with --traffic that of its gateway, {_GATEWAY_PORT})",
    )
    traffic = parser.add_argument_group("traffic", "play a made-up company against a gateway")
    traffic.add_argument(
        "--traffic", action="store_true", help="make calls instead of answering them"
    )
    traffic.add_argument(
        "--url",
        help="a gateway whose providers are this demo; without it one is started. Its admin token"
        " is taken from TAXIMETER_ADMIN_TOKEN or from --admin-token-file",
    )
    traffic.add_argument("--admin-token-file", type=Path, metavar="FILE")
    traffic.add_argument(
        "--folder",
        type=Path,
        default=Path("data/demo"),
        help="where the gateway that is started keeps its data (%(default)s)",
    )
    traffic.add_argument(
        "--rate", type=_positive, default=10.0, metavar="N", help="calls a second (%(default)s)"
    )
    traffic.add_argument(
        "--speed",
        type=_positive,
        default=288.0,
        metavar="N",
        help="company seconds in a second (%(default)s: a day in five minutes)",
    )
    traffic.add_argument(
        "--days",
        type=parse_count,
        default=1,
        help="company days; 0 goes on until it is stopped (%(default)s)",
    )
    traffic.add_argument("--calls", type=parse_count, metavar="N", help="stop after so many calls")
    traffic.add_argument(
        "--seed", type=parse_count, default=7, help="the same makes the same calls (%(default)s)"
    )
    parser.epilog = show_example(
        "taximeter demo --port 8081\n"
        "taximeter demo --traffic\n"
        "taximeter demo --traffic --url http://127.0.0.1:8080 --rate 20 --speed 1440 --days 2"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop, or play.

    Args:
        args: As parsed.

    Returns:
        Exit code; 1 where the ledger says something else than the callers.

    Raises:
        CommandFailed: No gateway to play against, or not one that is a demo.
    """
    if not args.traffic:
        return serve_demo(args.host, args.port or _PORT, provider_app)
    try:
        return uvloop.run(_play(args))
    except (OfficeFailed, NotTheDemo, LocalFailed) as failed:
        raise CommandFailed(str(failed)) from failed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    url: str
    admin_token: str


async def _play(args: argparse.Namespace) -> int:
    clock, stop = SystemClock(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as exits:
        if args.url is None:
            port = args.port or _GATEWAY_PORT
            own = await exits.enter_async_context(started(args.folder, port, clock))
            target = _Target(url=own.url, admin_token=own.admin_token)
            write_line(f"gateway  {own.url}, its metrics {own.url}/metrics")
        else:
            target = _Target(url=args.url.rstrip("/"), admin_token=_admin_token(args))
        options = Options(
            url=target.url,
            admin_token=target.admin_token,
            seed=args.seed,
            rate=args.rate,
            speed=args.speed,
            days=args.days,
            calls_max=args.calls,
        )
        tally = Tally()
        with Progress("calls", planned_calls(options), clock=clock) as progress:
            async for done in run_days(options, clock, on_call=progress.step, stop=stop):
                tally = done.tally
                write_line(_day_text(done))
        return _sum_up(tally)


def _admin_token(args: argparse.Namespace) -> str:
    if args.admin_token_file is not None:
        try:
            return str(args.admin_token_file.read_text("utf-8")).strip()
        except OSError as broken:
            raise CommandFailed(
                f"cannot read {args.admin_token_file}: {broken.strerror}", exit_code=2
            ) from broken
    token = os.environ.get("TAXIMETER_ADMIN_TOKEN")
    if not token:
        raise CommandFailed(
            "set TAXIMETER_ADMIN_TOKEN, or name the file it is in with --admin-token-file",
            exit_code=2,
        )
    return token


def _day_text(done: DayDone) -> str:
    whole = done.tally.total()
    text = f"day {done.day}: {whole.calls:,} calls so far, {whole.cost:.6f} USD"
    if done.price_version is not None:
        text += f"; a price changed with version {done.price_version}"
    if done.tally.differences:
        text += f"; {len(done.tally.differences)} differences to the ledger"
    return text


def _sum_up(tally: Tally) -> int:
    rows = sorted(tally.rows.items())
    total = [("all", tally.total())] if len(rows) > 1 else []
    write_table(
        _HEADINGS, [_cells(name, row) for name, row in [*rows, *total]], right=_HEADINGS[1:]
    )
    troubles = ", ".join(f"{count} {name}" for name, count in sorted(tally.troubles.items()))
    write_line(
        f"{tally.retries:,} retries, {tally.anomalies:,} calls of the anomaly, on purpose:"
        f" {troubles or 'no trouble'}"
    )
    write_line(f"told with {tally.told:,} answers: {tally.told_cost} USD")
    if tally.lost:
        write_line(f"{tally.lost:,} calls got no answer to know them by")
    if tally.differences:
        for difference in tally.differences[:_SHOWN_MAX]:
            write_note(difference)
        write_note(f"{len(tally.differences)} differences to the ledger")
        return 1
    write_line("every call is in the ledger, with the tokens and the cost its caller was told")
    return 0


def _cells(name: str, row: TeamRow) -> list[str]:
    counts = (row.calls, row.refused, row.failed, row.input, row.output, row.unpriced)
    return [name, *(f"{number:,}" for number in counts), f"{row.cost:f}"]


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
