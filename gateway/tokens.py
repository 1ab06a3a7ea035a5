"""Counting tokens of text, off the event loop and out of the worker's memory.

Must never download a vocabulary, never be needed for a call whose usage the provider sent, and
never hold more than a bounded backlog of what is to be counted.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.counting import ANSWER, COUNT_PARTS, COUNT_TEXTS, QUESTION
from gateway.ending import CountingFailed
from gateway.prompt_parts import IMAGES
from gateway.token_families import Family, family_of

COUNT_TIMEOUT_S: Final = 30.0
# What waits to be counted by who said it; more is left uncounted rather than kept.
BACKLOG_MAX: Final = 32
BACKLOG_BYTES_MAX: Final = 4 * 1024 * 1024

PromptCount = Mapping[str, int]


class TokenizerProcess:
    """A child process that counts; started when first needed, restarted when it has died.

    A loaded vocabulary takes about 85 MB, more than the rest of a worker, so it lives apart.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._number = 0
        self._backlog = 0
        self._backlog_bytes = 0
        self._has_answered = False

    @property
    def is_warm(self) -> bool:
        """Whether the child has its vocabulary, so that answers come in less than a millisecond."""
        return self._has_answered

    async def count(self, texts: Sequence[str], model: str) -> int:
        """Count tokens.

        Args:
            texts: Texts, each counted on its own.
            model: Decides the vocabulary.

        Returns:
            The sum; of families without a public vocabulary an estimate.

        Raises:
            CountingFailed: The child cannot be started, died, or took too long.
        """
        if not any(texts):
            return 0
        family = family_of(model)
        question = json.dumps([family.vocabulary, list(texts)]).encode()
        counted = await self._ask(COUNT_TEXTS, question)
        if not isinstance(counted, int):
            raise CountingFailed("tokenizer: the text cannot be counted")
        return family.scale(counted)

    def count_prompt(
        self, api: str, body: bytes, model: str
    ) -> "asyncio.Future[PromptCount | None] | None":
        """Begin to count a prompt by who said what.

        Args:
            api: Wire format, as in the ledger.
            body: Request body as it came.
            model: Decides the vocabulary.

        Returns:
            What comes to hold tokens by part, or ``None`` for what has none; it never raises.
            ``None`` at once when too much is waiting to be counted.
        """
        size = len(body)
        if self._backlog >= BACKLOG_MAX or self._backlog_bytes + size > BACKLOG_BYTES_MAX:
            return None
        self._backlog += 1
        self._backlog_bytes += size
        family = family_of(model)
        question = b"%s\n%s\n%s" % (family.vocabulary.encode(), api.encode(), body)
        return asyncio.ensure_future(self._count_prompt(question, size, family))

    async def _count_prompt(self, question: bytes, size: int, family: Family) -> PromptCount | None:
        try:
            counted = await self._ask(COUNT_PARTS, question)
        except CountingFailed:
            return None
        finally:
            self._backlog -= 1
            self._backlog_bytes -= size
        if not isinstance(counted, dict):
            return None
        return {
            part: count if part == IMAGES else family.scale(count)
            for part, count in counted.items()
        }

    def warm(self) -> None:
        """Load the vocabulary of today's models before anybody needs it."""
        self.count_prompt("openai.completions", b'{"prompt":"warm"}', "gpt-5")

    async def _ask(self, kind: int, question: bytes) -> object:
        try:
            process = await self._running()
        except OSError as failed:
            raise CountingFailed(f"tokenizer: {failed!r}") from failed
        self._number = number = (self._number + 1) & 0xFFFF_FFFF
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            assert process.stdin is not None
            process.stdin.write(QUESTION.pack(len(question), number, kind) + question)
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                return await waiting
        except (OSError, TimeoutError) as failed:
            self.stop()
            raise CountingFailed(f"tokenizer: {failed!r}") from failed
        finally:
            self._waiting.pop(number, None)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.counting",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._process = process
        self._listening = asyncio.ensure_future(self._listen(process))
        return process

    def _started(self, starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
        self._starting = None
        if not starting.cancelled():
            starting.exception()  # taken note of: whoever waits has it

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand answers to those who wait for them, until the child has gone."""
        assert process.stdout is not None
        try:
            while True:
                size, number = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
                answer = await process.stdout.readexactly(size)
                self._has_answered = True
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(json.loads(answer))
        except (OSError, EOFError, ValueError) as gone:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(CountingFailed(f"tokenizer: {gone!r}"))
            if self._process is process:
                self.stop()

    def stop(self) -> None:
        """End the child; it also ends by itself when its parent dies, at the end of its input."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self._process = None
        self._has_answered = False
