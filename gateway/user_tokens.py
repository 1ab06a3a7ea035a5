"""What users wrote, counted beside the call: begun when it is sent, taken when it has ended.

Must never hold a call up where calls are waiting, and never take what is not counted for zero.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from gateway.admission import OpenCall

# How long the end of a lone call waits for its count, once the vocabulary is there and before.
WAIT_S: Final = 0.25
WAIT_COLD_S: Final = 5.0
# With more calls open than this nobody waits: a count that is late is left out.
QUIET_CALLS_MAX: Final = 4
_RETRIES: Final = "retries"
_RETRY_HEADER: Final = "x-stainless-retry-count"
_RETRY_COUNTS: Final = frozenset(str(count) for count in range(1, 100))
_SHARES: Final = 0x1_0000


class PromptCounter(Protocol):
    """Counts prompts off the path."""

    @property
    def is_warm(self) -> bool:
        """Whether answers come at once."""
        ...

    def count_prompt(
        self, api: str, body: bytes, model: str
    ) -> "asyncio.Future[Mapping[str, int] | None] | None":
        """Begin to count a prompt by who said what; ``None`` when too much waits already."""
        ...


class UserTokens:
    """Counts the prompts of calls, as far as there is time for it."""

    def __init__(self, counter: PromptCounter, share: float) -> None:
        """Prepare.

        Args:
            counter: Counts off the path.
            share: Of all calls, how many are counted, from 0 to 1.
        """
        self._counter = counter
        self._share = round(share * _SHARES)

    def begin(self, call: OpenCall) -> None:
        """Begin to count what a call asks.

        Args:
            call: Admitted.
        """
        if call.facts is not None and not call.facts.is_free:
            self.begin_words(call, call.asked.body)

    def begin_words(self, call: OpenCall, words: bytes) -> None:
        """Begin to count what a call or a response of a session says.

        Args:
            call: Admitted.
            words: A request's body, or a JSON array of a session's frames.
        """
        if not words:
            return
        if self._share < _SHARES and hash(call.id) % _SHARES >= self._share:
            return
        call.counting = self._counter.count_prompt(call.format.api, words, call.model)

    async def finish(self, call: OpenCall, open_calls: int) -> None:
        """Take the count, where it is there or may be waited for.

        Args:
            call: Ended; gets what was counted.
            open_calls: How many there are, this one among them.
        """
        counting = call.counting
        if counting is None:
            return
        if not counting.done() and open_calls <= QUIET_CALLS_MAX:
            wait_s = WAIT_S if self._counter.is_warm else WAIT_COLD_S
            await asyncio.wait({counting}, timeout=wait_s)
        if not counting.done() or counting.cancelled():
            return
        counted = counting.result()
        if counted is None:
            return
        call.prompt_parts = counted
        for name, value in call.headers:
            if name == _RETRY_HEADER and value in _RETRY_COUNTS:
                call.prompt_parts = {**counted, _RETRIES: int(value)}
