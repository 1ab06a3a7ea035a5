"""What calls under way hold in budgets, as the journals of this machine tell it.

Must never write to a journal, nor wait for the gateway that owns one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from gateway.budgets.rules import BudgetStatus, Subject, Unit, is_in_scope
from gateway.budgets.windows import RollingWindow
from gateway.clock import from_epoch_us
from gateway.ledger.orphans import worker_journals
from gateway.ledger.record import Intent
from gateway.ledger.segments import decode_intent, list_segments, scan_segment, segment_path


def read_open_calls(folder: Path) -> list[Intent]:
    """Read the calls that have begun and have no record yet.

    Args:
        folder: Of the journal; those of workers lie in it.

    Returns:
        One intent each.
    """
    found: list[Intent] = []
    if not folder.is_dir():
        return found
    for journal in (folder, *worker_journals(folder)):
        unsettled: dict[str, bytes] = {}
        for path in _segments(journal):
            try:
                scan_segment(path, unsettled)
            except FileNotFoundError:
                continue  # Its owner has shipped and deleted it meanwhile.
        found += map(decode_intent, unsettled.values())
    return found


def _segments(journal: Path) -> Iterator[Path]:
    for number in list_segments(journal):
        yield segment_path(journal, number)


def with_open_calls(status: BudgetStatus, calls: Iterable[Intent]) -> BudgetStatus:
    """Add what open calls hold in a budget.

    Args:
        status: As the ledger tells it.
        calls: Every open call.

    Returns:
        The same with what is held in its window.
    """
    held = sum(_amount(call, status) for call in calls if _is_counted(call, status))
    return replace(status, held=status.held + held)


def _amount(call: Intent, status: BudgetStatus) -> int:
    match status.budget.unit:
        case Unit.USD:
            return call.ceiling_pico or 0
        case Unit.TOKENS:
            return call.ceiling_tokens or 0
        case _:
            return 1


def _is_counted(call: Intent, status: BudgetStatus) -> bool:
    budget, window, at = status.budget, status.window, from_epoch_us(call.started_at_us)
    subject = Subject(
        organization=call.organization,
        team=call.team,
        project=call.project,
        key=call.key,
        provider=call.provider,
        model=call.model_asked or call.model_requested,
        user=call.user,
        tags=call.tags,
    )
    if not budget.is_in_force(at) or not is_in_scope(budget.scope, subject):
        return False
    if isinstance(budget.window, RollingWindow):
        return True
    return window.start <= at and (window.end is None or at < window.end)
