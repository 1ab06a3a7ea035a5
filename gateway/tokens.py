"""Counting tokens of text, off the event loop and out of the worker's memory.

Must never download a vocabulary, and never be needed for a call whose usage the provider sent.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Final

from gateway.ending import CountingFailed

# Models before gpt-4o; every later one uses the larger vocabulary. tiktoken/model.py, 2026-11-23.
_CL100K_PREFIXES: Final = ("gpt-3.5", "gpt-4-", "text-embedding-")
COUNT_TIMEOUT_S: Final = 30.0


class TokenizerProcess:
    """A child process that counts; started when first needed, restarted when it has died.

    A loaded vocabulary takes about 85 MB, more than the rest of a worker, so it lives apart.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def count(self, texts: Sequence[str], model: str) -> int:
        """Count tokens.

        Args:
            texts: Texts, each counted on its own.
            model: Decides the vocabulary.

        Returns:
            The sum.

        Raises:
            CountingFailed: The child cannot be started, died, or took too long.
        """
        if not any(texts):
            return 0
        question = json.dumps([vocabulary_of(model), list(texts)]).encode() + b"\n"
        async with self._turn:
            is_answered = False
            try:
                process = await self._running()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(question)
                async with asyncio.timeout(COUNT_TIMEOUT_S):
                    await process.stdin.drain()
                    line = await process.stdout.readline()
                count = int(line)
                is_answered = True
            except (OSError, TimeoutError, ValueError) as failed:
                raise CountingFailed(f"tokenizer: {failed!r}") from failed
            finally:
                if not is_answered:
                    # Its answer may still come, and would be taken for the next question's.
                    self.stop()
            return count

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.counting",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        return self._process

    def stop(self) -> None:
        """End the child; it also ends by itself when its parent dies, at the end of its input."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self._process = None


def vocabulary_of(model: str) -> str:
    """Name the vocabulary of a model.

    Args:
        model: Model name; for families whose tokenizer is not public the newest OpenAI vocabulary
            stands in.

    Returns:
        A tiktoken encoding name.
    """
    is_old = model == "gpt-4" or model.startswith(_CL100K_PREFIXES)
    return "cl100k_base" if is_old else "o200k_base"
