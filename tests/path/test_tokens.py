"""Counting in a child process: right, in order, and never with another call's answer."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

import pytest

from gateway.counting import count_tokens
from gateway.ending import CountingFailed
from gateway.token_families import family_of
from gateway.tokens import BACKLOG_MAX, TokenizerProcess

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


def test_prompts_of_one_turn_come_back_each_to_its_own() -> None:
    """Many at once share a pipe; what is too much is left uncounted, and room comes back."""

    async def use(tokenizer: TokenizerProcess) -> None:
        def ask(words: int) -> "asyncio.Future[Mapping[str, int] | None] | None":
            body = json.dumps({"prompt": "one " * words}).encode()
            return tokenizer.count_prompt("openai.completions", body, "gpt-5")

        for _ in range(2):
            asked = [ask(words) for words in range(1, BACKLOG_MAX + 1)]
            assert ask(1) is None
            counted = await asyncio.gather(*[one for one in asked if one is not None])
            users = [None if parts is None else parts["user"] for parts in counted]
            assert [n + 1 for n in range(1, BACKLOG_MAX + 1)] == users

    with_tokenizer(use)


def test_a_child_that_dies_fails_what_waits_and_is_replaced() -> None:
    """Texts raise, prompts are left uncounted, and the next question starts another child."""

    async def use(tokenizer: TokenizerProcess) -> None:
        assert 2 == await tokenizer.count(SHORT, "gpt-5")
        child = tokenizer._process
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        texts = asyncio.ensure_future(tokenizer.count(LONG, "gpt-5"))
        prompt = tokenizer.count_prompt("openai.completions", b'{"prompt":"one"}', "gpt-5")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        child.kill()
        assert prompt is not None
        assert await prompt is None
        with pytest.raises(CountingFailed, match="ended"):
            await texts
        assert 10 == await tokenizer.count(LONG, "gpt-5")

    with_tokenizer(use)
