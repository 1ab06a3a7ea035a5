"""Counting tokens of text with tiktoken, from vocabularies that are already on the disk.

Must never download a vocabulary. Run as a module it answers questions until its input ends.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import tiktoken

# tiktoken looks vocabularies up by the hash of their address in this folder and would download
# what it misses. litellm ships the ones OpenAI's chat models use; it is not imported for this.
_VOCABULARIES: Final = "litellm_core_utils/tokenizers"


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


def main() -> None:
    """Answer questions from standard input, one JSON line each, until it ends."""
    for line in sys.stdin:
        vocabulary, texts = json.loads(line)
        sys.stdout.write(f"{count_tokens(texts, vocabulary)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
