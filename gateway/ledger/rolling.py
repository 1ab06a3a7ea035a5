"""Keeps the sums of usage up to date while a gateway runs, in threads that calls do not wait for.

Must never be needed for an answer to be right: what the sums lack is read from the records.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from gateway.clock import Clock
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.rollups import Rollups

log = logging.getLogger("taximeter.ledger")

LOOK_S: Final = 2.0
RETRY_S: Final = 10.0
# Not the lowest priority: SQLite has one writer at a time, and who has its turn must come to an end
# on a busy core too.
_NICE: Final = 10
# While there is a lot to add, the database has as long for everybody else; and longer while calls
# need the processor.
_RESTS_PER_WORK: Final = 1.0
_RESTS_WHEN_BUSY: Final = 4.0


class RollupsFollower:
    """Adds to the sums what the ledger has got."""

    def __init__(
        self, rollups: Rollups, clock: Clock, *, is_busy: Callable[[], bool] = lambda: False
    ) -> None:
        """Prepare; nothing is looked at before ``step`` or ``follow``.

        Args:
            rollups: The sums.
            clock: Tells how long a step took.
            is_busy: Whether calls come so fast that they need the processor.
        """
        self._rollups = rollups
        self._clock = clock
        self._is_busy = is_busy
        self._trouble: str | None = None

    async def follow(self) -> None:
        """Take one step after the other until cancelled."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, "rollups", initializer=_give_way)
        try:
            while True:
                rest_s = await loop.run_in_executor(thread, self.step)
                await asyncio.sleep(rest_s)
        finally:
            # A step under way ends by itself, whole.
            thread.shutdown(wait=False)

    def step(self) -> float:
        """Add the next records, if there are any.

        Returns:
            How many seconds to rest then.
        """
        started_s = self._clock.monotonic_s()
        try:
            moved = self._rollups.follow()
        except StoreUnavailable as trouble:
            if self._trouble is None:
                log.warning("the sums of usage are not kept up for now: %s", trouble)
            self._trouble = str(trouble)
            return RETRY_S
        self._trouble = None
        if not moved:
            return LOOK_S
        rests = _RESTS_WHEN_BUSY if self._is_busy() else _RESTS_PER_WORK
        return max(0.01, (self._clock.monotonic_s() - started_s) * rests)


def _give_way() -> None:
    """Let calls go first, where threads have priorities of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
