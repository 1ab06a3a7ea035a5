"""How text of each model family is counted: its own vocabulary, or the nearest public one, scaled.

Must never be used where the provider tells its own count.
"""

from dataclasses import dataclass
from typing import Final

CL100K: Final = "cl100k_base"
O200K: Final = "o200k_base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models whose text is counted alike.

    Attributes:
        names: How their names begin, behind the last slash and a maker's name with a dot.
        vocabulary: A tiktoken encoding name.
        percent: Their tokens for every hundred of that vocabulary.
        error_percent: How far the count may be off, either way, for prose and code; scripts other
            than Latin can be further off.
    """

    names: tuple[str, ...]
    vocabulary: str
    percent: int
    error_percent: int

    def scale(self, tokens: int) -> int:
        """Turn tokens of the vocabulary into tokens of the family.

        Args:
            tokens: Counted with the vocabulary.

        Returns:
            The family's, rounded up.
        """
        return -(-tokens * self.percent // 100)


# The vocabularies of OpenAI's models are public: tiktoken/model.py, checked 2026-11-23. Those of
# the others are not, or are not shipped with any package here: the factor leans to the larger
# counts that comparisons report, so that an estimate is too much rather than too little.
# Claude: Anthropic says that models from Opus 4.7 on take up to 1.35 times the tokens of earlier
# ones, https://platform.claude.com/docs/en/about-claude/models/migration-guide.
FAMILIES: Final = (
    Family(
        names=("gpt-3.5", "gpt-4-", "text-embedding-"),
        vocabulary=CL100K,
        percent=100,
        error_percent=0,
    ),
    Family(names=("claude",), vocabulary=O200K, percent=135, error_percent=30),
    Family(names=("gemini", "gemma"), vocabulary=O200K, percent=110, error_percent=15),
    Family(
        names=("llama", "meta-llama", "mistral", "mixtral", "codestral", "ministral", "magistral"),
        vocabulary=O200K,
        percent=115,
        error_percent=15,
    ),
    Family(
        names=("deepseek", "qwen", "grok", "command", "kimi", "glm", "nova", "titan", "sonar"),
        vocabulary=O200K,
        percent=110,
        error_percent=15,
    ),
)
_OPENAI: Final = Family(names=(), vocabulary=O200K, percent=100, error_percent=0)
_OLD: Final = Family(names=("gpt-4",), vocabulary=CL100K, percent=100, error_percent=0)
# A name nobody knows: as OpenAI's, with the widest error.
_UNKNOWN: Final = Family(names=(), vocabulary=O200K, percent=115, error_percent=30)
_OPENAI_NAMES: Final = ("gpt-", "o1", "o3", "o4", "chatgpt", "codex", "demo", "omni", "ft:")


def family_of(model: str) -> Family:
    """Find how text of a model is counted.

    Args:
        model: Under its provider's own name; makers and regions before it do not count.

    Returns:
        Its family; one that leans to the larger count where the name says nothing.
    """
    name = model.rpartition("/")[2].lower()
    name = name.removeprefix("ft:")
    if name == "gpt-4":
        return _OLD
    maker, dot, rest = name.partition(".")
    names = [name]
    while dot and maker.isalpha():
        names.append(rest)
        maker, dot, rest = rest.partition(".")
    for family in FAMILIES:
        if any(one.startswith(family.names) for one in names):
            return family
    return _OPENAI if name.startswith(_OPENAI_NAMES) else _UNKNOWN
