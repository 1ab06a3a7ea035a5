"""``taximeter budgets alerts`` and ``test-alert``. Must never show the address of a receiver."""

import argparse
import asyncio
from importlib.metadata import version as version_of
from typing import Any, Final

from gateway.alerts.log import AlertLog
from gateway.alerts.message import write_test_facts
from gateway.alerts.once import OneShot
from gateway.alerts.sending import Receiver, Sent, send_alert, to_receiver
from gateway.clock import SystemClock, epoch_us
from gateway.commands.context import read_settings
from gateway.commands.database import opened_database
from gateway.commands.output import CommandFailed, write_json, write_line, write_table
from gateway.commands.parsing import Actions, add_json, parse_count
from gateway.ids import IdSource
from gateway.settings import Settings
from gateway.settings_sources import suggest

_PAGE_ROWS: Final = 500
_HEADINGS: Final = ("RAISED", "BUDGET", "ALERT", "SPENT", "LIMIT", "UNIT", "TOLD")


def add_alert_actions(actions: Actions) -> None:
    """Declare the actions.

    Args:
        actions: Those of ``taximeter budgets``.
    """
    listed = actions.add(
        "alerts",
        "show what budgets had to tell, newest first, and who was told",
        "alerts\nalerts search-month --limit 10 --json",
    )
    listed.add_argument("id", nargs="?", help="of one budget; of all of them unless given")
    listed.add_argument(
        "--limit", type=parse_count, default=50, metavar="N", help="at most so many (%(default)s)"
    )
    add_json(listed)
    test = actions.add("test-alert", "send a receiver a test message, once", "test-alert finops")
    test.add_argument("receiver", help="id of a receiver under `alerts` of the settings")


def list_alerts(args: argparse.Namespace) -> int:
    """Show the log of alerts.

    Args:
        args: With ``id``, ``limit`` and ``json``.

    Returns:
        Exit code.
    """
    with opened_database(read_settings(args)) as engine:
        shown = _read(AlertLog(engine), args.id, args.limit)
    if args.json:
        write_json(shown)
    elif shown:
        write_table(_HEADINGS, [_cells(alert) for alert in shown], right=("SPENT", "LIMIT"))
    else:
        write_line("no alerts")
    return 0


def _read(log: AlertLog, budget: str | None, limit: int) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    cursor = None
    while len(shown) < limit:
        alerts, cursor = log.page(min(_PAGE_ROWS, limit - len(shown)), cursor, budget)
        shown += [alert.to_public() for alert in alerts]
        if cursor is None:
            break
    return shown


def _cells(alert: dict[str, Any]) -> list[str]:
    kind = alert["kind"]
    if alert["threshold"] is not None:
        kind = f"{alert['threshold']} %"
    if alert["forecast"] is not None and kind == "forecast":
        kind = f"forecast {alert['forecast'][:10]}"
    return [
        f"{alert['raised_at'][:19]}Z",
        alert["budget"],
        kind,
        alert["spent"],
        alert["limit"],
        alert["unit"],
        "silent" if alert["is_silent"] else ", ".join(map(_told, alert["deliveries"])) or "nobody",
    ]


def _told(delivery: dict[str, Any]) -> str:
    name, status, attempts = delivery["receiver"], delivery["status"], delivery["attempts"]
    if status == "delivered" or not attempts:
        return f"{name} {status}"
    return f"{name} {status} ({attempts} tried: {delivery['last_error'] or 'no end seen'})"


def send_test(args: argparse.Namespace) -> int:
    """Send a test message.

    Args:
        args: With ``receiver``.

    Returns:
        Exit code: 0 when the receiver took it.

    Raises:
        CommandFailed: There is no such receiver, or it did not take the message.
    """
    settings = read_settings(args)
    receiver = _find(settings, args.receiver)
    sent = asyncio.run(_send(receiver, settings.organization))
    if sent.error is not None:
        raise CommandFailed(f"receiver {receiver.id}: {sent.error}")
    write_line(f"receiver {receiver.id} took a test message")
    return 0


def _find(settings: Settings, name: str) -> Receiver:
    known = {one.id: one for one in settings.alerts}
    if name not in known:
        hint = suggest(name, known) or "; the settings have no `alerts`"
        raise CommandFailed(f"there is no receiver {name!r}{hint}", exit_code=2)
    return to_receiver(known[name])


async def _send(receiver: Receiver, organization: str) -> Sent:
    clock = SystemClock()
    now = clock.now()
    facts = write_test_facts(IdSource().mint(epoch_us(now) // 1000), organization, now)
    upstream = OneShot(receiver.timeout_s)
    return await send_alert(receiver, facts, upstream, clock, version_of("taximeter"))
