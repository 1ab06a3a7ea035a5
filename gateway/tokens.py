"""Counting tokens of text, off the event loop and out of the worker's memory.

Must never download a vocabulary, never be needed for a call whose usage the provider sent, and
never hold more than a bounded backlog of what is to be counted.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec

from gateway.counting_frames import (
    ANSWER,
    COUNT_PARTS,
    COUNT_TEXTS,
    PIPE_BYTES,
    QUESTION,
)
from gateway.ending import CountingFailed
from gateway.prompt_parts import IMAGES
from gateway.token_families import Family, family_of

COUNT_TIMEOUT_S: Final = 30.0
# What waits to be counted by who said it; more is left uncounted rather than kept.
BACKLOG_MAX: Final = 32
BACKLOG_BYTES_MAX: Final = 4 * 1024 * 1024

PromptCount = Mapping[str, int]


class _Asked(msgspec.Struct):
    """A question without its answer yet.

    Attributes:
        answer: Comes to hold it.
        family: Of the model it is about.
        prompt_bytes: Size of the prompt that is counted by parts; ``None`` for mere texts.
    """

    answer: "asyncio.Future[object]"
    family: Family
    prompt_bytes: int | None


class TokenizerProcess:
    """A child process that counts; started when first needed, restarted when it has died.

    A loaded vocabulary takes about 85 MB, more than the rest of a worker, so it lives apart. What
    is asked in one turn of the loop goes out together, and answers come back together: with many
    calls at once most of the cost of a question would be the pipe.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._waiting: dict[int, _Asked] = {}
        self._unsent: list[bytes] = []
        self._is_sending = False
        self._watch: asyncio.TimerHandle | None = None
        self._number = 0
        self._answers = 0
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
        counted = await self._ask(COUNT_TEXTS, question, family)
        if not isinstance(counted, int):
            raise CountingFailed("tokenizer: the text cannot be counted")
        return counted

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
        return cast(
            "asyncio.Future[PromptCount | None]",
            self._ask(COUNT_PARTS, question, family, prompt_bytes=size),
        )

    def warm(self) -> None:
        """Load the vocabulary of today's models before anybody needs it."""
        self.count_prompt("openai.completions", b'{"prompt":"warm"}', "gpt-5")

    def _ask(
        self, kind: int, question: bytes, family: Family, prompt_bytes: int | None = None
    ) -> "asyncio.Future[object]":
        loop = asyncio.get_running_loop()
        self._number = number = (self._number + 1) & 0xFFFF_FFFF
        answer: asyncio.Future[object] = loop.create_future()
        self._waiting[number] = _Asked(answer, family, prompt_bytes)
        self._unsent += (QUESTION.pack(len(question), number, kind), question)
        if not self._is_sending:
            self._is_sending = True
            loop.call_soon(self._send)
        if self._watch is None:
            self._watch = loop.call_later(COUNT_TIMEOUT_S, self._look, self._answers)
        return answer

    def _send(self) -> None:
        self._is_sending = False
        process = self._process
        if process is not None and process.returncode is None:
            assert process.stdin is not None
            process.stdin.write(b"".join(self._unsent))
            self._unsent.clear()
        elif self._starting is None:
            self._starting = asyncio.ensure_future(self._start())

    async def _start(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.counting",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as failed:
            self._give_up(repr(failed))
            return
        finally:
            self._starting = None
        self._process = process
        self._listening = asyncio.ensure_future(self._listen(process))
        self._send()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand answers to those who wait for them, until the child has gone."""
        assert process.stdout is not None
        come = bytearray()
        why = "the child has ended"
        try:
            while part := await process.stdout.read(PIPE_BYTES):
                come += part
                del come[: self._take(come)]
        except OSError as gone:
            why = repr(gone)
        if self._process is process:
            self.stop(why)

    def _take(self, come: bytearray) -> int:
        """Hand on every whole answer; give the number of bytes that made them up."""
        start = 0
        while len(come) >= start + ANSWER.size:
            size, number = ANSWER.unpack_from(come, start)
            end = start + ANSWER.size + size
            if len(come) < end:
                break
            counted = msgspec.json.decode(come[start + ANSWER.size : end])
            start = end
            self._has_answered = True
            self._answers += 1
            asked = self._waiting.pop(number, None)
            if asked is not None:
                self._end(asked, _scale(counted, asked.family))
        return start

    def _end(self, asked: _Asked, counted: object) -> None:
        if asked.prompt_bytes is not None:
            self._backlog -= 1
            self._backlog_bytes -= asked.prompt_bytes
        if not asked.answer.done():
            asked.answer.set_result(counted)

    def _look(self, answers_before: int) -> None:
        """Give a child up that has said nothing for long, though it was asked."""
        self._watch = None
        if not self._waiting:
            return
        if self._answers == answers_before:
            self.stop("it took too long")
            return
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(COUNT_TIMEOUT_S, self._look, self._answers)

    def _give_up(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        self._unsent.clear()
        for asked in waiting.values():
            if asked.prompt_bytes is not None:
                self._end(asked, None)
            elif not asked.answer.done():
                asked.answer.set_exception(CountingFailed(f"tokenizer: {why}"))

    def stop(self, why: str = "the gateway stops") -> None:
        """End the child; it also ends by itself when its parent dies, at the end of its input.

        Args:
            why: For those who still wait.
        """
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self._process = None
        self._has_answered = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._give_up(why)


def _scale(counted: object, family: Family) -> object:
    """Make what one vocabulary counted a figure of the model's family."""
    if isinstance(counted, dict):
        return {k: n if k == IMAGES else family.scale(n) for k, n in counted.items()}
    return family.scale(counted) if isinstance(counted, int) else None
