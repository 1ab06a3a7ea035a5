"""Counting in a child process: right, in order, and never with another call's answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from gateway.counting import count_tokens
from gateway.token_families import family_of
from gateway.tokens import TokenizerProcess

SHORT, LONG = ["Hello world"], ["one two three four five six seven eight nine ten"]


def with_tokenizer(use: Callable[[TokenizerProcess], Awaitable[None]]) -> None:
    """Run against a real child."""

    async def main() -> None:
        tokenizer = TokenizerProcess()
        try:
            await use(tokenizer)
        finally:
            child = tokenizer._process
            tokenizer.stop()
            if child is not None:
                await child.wait()  # or its transport outlives the loop

    asyncio.run(main())


def test_counts_come_in_order_and_survive_a_cancelled_question() -> None:
    """Who left before the answer came must not leave it to the next one."""

    async def use(tokenizer: TokenizerProcess) -> None:
        assert 2 == await tokenizer.count(SHORT, "gpt-5")
        assert 0 == await tokenizer.count(["", ""], "gpt-5")
        both = await asyncio.gather(tokenizer.count(SHORT, "gpt-5"), tokenizer.count(LONG, "gpt-5"))
        assert [2, 10] == list(both)

        left = asyncio.ensure_future(tokenizer.count(LONG, "gpt-5"))
        await asyncio.sleep(0)
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await left

        assert 2 == await tokenizer.count(SHORT, "gpt-5")

    with_tokenizer(use)


@pytest.mark.parametrize("text", ["<|endoftext|>", "\ud83d", "a" * 100_000, "字" * 1000, "\x00\n"])
def test_any_text_can_be_counted(text: str) -> None:
    """Control tokens, half surrogates and long runs are text like any other."""
    assert 0 < count_tokens([text], "o200k_base") <= len(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-5", "o200k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("llama-4", "o200k_base"),
    ],
)
def test_the_model_decides_the_vocabulary(model: str, vocabulary: str) -> None:
    """Old models have the smaller one."""
    assert vocabulary == family_of(model).vocabulary
