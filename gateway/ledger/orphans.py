"""The journals of several workers: each takes a free one, and those nobody owns are emptied.

Must never touch a journal that another process holds the lock of.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from gateway.ledger.errors import JournalInUse, StoreUnavailable
from gateway.ledger.journal import Journal
from gateway.ledger.recovery import RecoveryReport

log = logging.getLogger("taximeter.journal")

_PREFIX: Final = "worker-"
_JOURNALS_MAX: Final = 10_000
# How soon the calls of a worker that died have records, where nobody takes its journal over.
SWEEP_S: Final = 2.0


class Recover(Protocol):
    """Takes a journal over, ends its open calls and ships what is in it."""

    def __call__(self, journal_dir: Path) -> tuple[Journal, RecoveryReport]:
        """Do so; raises ``JournalInUse`` when another process has it."""
        ...


def worker_journals(root: Path) -> Iterator[Path]:
    """List the journals of workers.

    Args:
        root: The folder in which they are.

    Yields:
        Their folders, those with lower numbers first.
    """
    found = []
    with suppress(FileNotFoundError):
        for folder in root.iterdir():
            number = folder.name.removeprefix(_PREFIX)
            if folder.name.startswith(_PREFIX) and number.isdecimal() and folder.is_dir():
                found.append((int(number), folder))
    for _, folder in sorted(found):
        yield folder


def claim(root: Path, recover: Recover) -> tuple[Journal, RecoveryReport]:
    """Take the first journal that nobody owns.

    A worker that replaces another one finds that one's journal free, and ends its calls.

    Args:
        root: The folder in which the journals are.
        recover: Takes one over.

    Returns:
        The journal, and what was found in it.

    Raises:
        JournalBroken: The journal cannot be read or written.
        JournalFull: The disk is full.
        JournalInUse: There are thousands of them.
    """
    for number in range(1, _JOURNALS_MAX):
        try:
            return recover(root / f"{_PREFIX}{number}")
        except JournalInUse:
            continue
    raise JournalInUse(f"{root} holds no free journal")


class Orphans:
    """Empties the journals of workers that are gone and have no successor."""

    def __init__(
        self,
        root: Path,
        recover: Recover,
        tell: Callable[[RecoveryReport], None],
        retire: Callable[[str], None],
    ) -> None:
        """Prepare; nothing is touched before ``sweep``.

        Args:
            root: The folder in which the journals are.
            recover: Takes one over.
            tell: Told what was found in each.
            retire: Told the writer of each that the ledger holds whole; it has no owner until this
                returns.
        """
        self._root = root
        self._recover = recover
        self._tell = tell
        self._retire = retire
        self._fd: int | None = None
        # When a journal that is empty was last owned, by this process.
        self._empty: dict[Path, int] = {}
        self._troubles: dict[Path, str] = {}

    def inherit(self) -> None:
        """Empty every journal of a worker, before the ledger is read as the whole truth.

        Raises:
            JournalInUse: One of them still works, and nobody could tell what it goes on to spend.
        """
        for folder in worker_journals(self._root):
            self._empty_one(folder)

    def sweep(self) -> bool:
        """Look at every journal once, unless another process does.

        Returns:
            Whether nothing is left to be done; False also where another one is at it.
        """
        folders = list(worker_journals(self._root))
        if not folders:
            return True
        if not self._is_sweeper():
            return False
        return all([self._sweep_one(folder) for folder in folders])

    async def follow(self, *, is_lasting: bool) -> None:
        """Sweep again and again.

        Args:
            is_lasting: Whether to go on when nothing is left: workers come and go.
        """
        while True:
            is_done = await asyncio.to_thread(self.sweep)
            if is_done and not is_lasting:
                return
            await asyncio.sleep(SWEEP_S)

    def close(self) -> None:
        """Let others sweep."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _is_sweeper(self) -> bool:
        """Two at once would take each other for the owner of what they look at."""
        if self._fd is None:
            fd = os.open(self._root / "SWEEP", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            self._fd = fd
        return True

    def _sweep_one(self, folder: Path) -> bool:
        try:
            return self._empty_one(folder)
        except JournalInUse:
            return True

    def _empty_one(self, folder: Path) -> bool:
        if self._empty.get(folder) == _owned_ns(folder):
            return True
        try:
            journal, report = self._recover(folder)
        except JournalInUse:
            raise
        except (StoreUnavailable, OSError) as trouble:
            if self._troubles.get(folder) != str(trouble):
                self._troubles[folder] = str(trouble)
                log.warning("a journal without owner cannot be emptied: %s", trouble)
            return False
        try:
            if report.store_trouble is None:
                self._retire(journal.writer)
        except StoreUnavailable as trouble:
            log.warning("a worker that is gone stays on the list: %s", trouble)
            return False
        finally:
            journal.close()
        if report.aborted or report.records_shipped:
            self._tell(report)
        if report.store_trouble is not None:
            return False
        owned_ns = _owned_ns(folder)
        if owned_ns is not None:
            self._empty[folder] = owned_ns
        return True


def _owned_ns(folder: Path) -> int | None:
    try:
        return (folder / "LOCK").stat().st_mtime_ns
    except OSError:
        return None
