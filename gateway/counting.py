"""Counting tokens of text with tiktoken, from vocabularies that are already on the disk.

Must never download a vocabulary. Run as a module it answers questions until its input ends.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import tiktoken

from gateway.counting_frames import (
    ANSWER,
    COUNT_TEXTS,
    FAILED,
    PIPE_BYTES,
    QUESTION,
)
from gateway.prompt_parts import IMAGES, split_prompt

# tiktoken looks vocabularies up by the hash of their address in this folder and would download
# what it misses. litellm ships the ones OpenAI's chat models use; it is not imported for this.
_VOCABULARIES: Final = "litellm_core_utils/tokenizers"
_NICE: Final = 19


class VocabularyMissing(LookupError):
    """The package that ships the vocabularies is not installed."""


def load_encoding(name: str) -> tiktoken.Encoding:
    """Load a vocabulary from the files shipped with an installed package.

    Args:
        name: A tiktoken encoding name.

    Returns:
        The encoding.

    Raises:
        VocabularyMissing: The files are not installed.
    """
    spec = find_spec("litellm")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    folder = next(
        (p for p in (Path(place) / _VOCABULARIES for place in places) if p.is_dir()), None
    )
    if folder is None:
        raise VocabularyMissing("the package that ships the vocabularies is not installed")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    return tiktoken.get_encoding(name)


def count_tokens(texts: Sequence[str], vocabulary: str) -> int:
    """Count tokens in this process.

    Args:
        texts: Texts, each counted on its own.
        vocabulary: A tiktoken encoding name.

    Returns:
        The sum; text that looks like a control token counts as text.

    Raises:
        VocabularyMissing: The vocabulary is not installed.
    """
    encoding = load_encoding(vocabulary)
    return sum(len(encoding.encode_ordinary(text)) for text in texts)


def count_parts(api: str, body: bytes, vocabulary: str) -> dict[str, int] | None:
    """Count the tokens of a prompt by who said them.

    Args:
        api: Wire format, as in the ledger.
        body: Request body as it came.
        vocabulary: A tiktoken encoding name.

    Returns:
        Tokens by part, ``user`` among them, and how many ``images`` there are; ``None`` for a
        format without a prompt, or a body that is none.

    Raises:
        VocabularyMissing: The vocabulary is not installed.
    """
    parts = split_prompt(api, body)
    if parts is None:
        return None
    counts = {"user": 0}
    for name, texts in parts.texts.items():
        counts[name] = count_tokens(texts, vocabulary)
    if parts.images:
        counts[IMAGES] = parts.images
    return counts


def _answer(kind: int, question: bytes) -> bytes:
    if kind == COUNT_TEXTS:
        vocabulary, texts = json.loads(question)
        return json.dumps(count_tokens(texts, vocabulary)).encode()
    vocabulary, api, body = question.split(b"\n", 2)
    return json.dumps(count_parts(api.decode(), body, vocabulary.decode())).encode()


def main(questions: int, answers: int) -> None:
    """Answer questions until they end: all that have come, then the next.

    Args:
        questions: Descriptor of ``QUESTION`` heads, each followed by what it asks.
        answers: Descriptor that gets an ``ANSWER`` head and JSON for each; ``null`` where it
            cannot be counted.
    """
    come = bytearray()
    while part := os.read(questions, PIPE_BYTES):
        come += part
        told = bytearray()
        start = 0
        while len(come) >= start + QUESTION.size:
            size, number, kind = QUESTION.unpack_from(come, start)
            end = start + QUESTION.size + size
            if len(come) < end:
                break
            try:
                answer = _answer(kind, bytes(come[start + QUESTION.size : end]))
            except (ValueError, TypeError, RecursionError):
                answer = FAILED
            told += ANSWER.pack(len(answer), number) + answer
            start = end
        del come[:start]
        while told:
            del told[: os.write(answers, told)]


if __name__ == "__main__":
    # Calls come first: this is only worth what time they leave.
    with suppress(OSError):
        os.nice(_NICE)
    main(sys.stdin.fileno(), sys.stdout.fileno())
