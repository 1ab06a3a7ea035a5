"""Rows of a list that are known to be wrong: what is not taken of it, why, and where that is said.

Must never hold a price: a row is left out or ends here, and what is right comes from a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from pricing.importers.draft import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Rows of the litellm map that hold no price of a call.

    Attributes:
        keys: Name of a row, or a pattern with ``*``.
        reason: What kind of mistake it is.
        why: What shows that.
    """

    keys: str
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Prices a list still states without an end although they ended.

    Attributes:
        at: First instant they no longer held.
        why: What happened then.
        source: Page the later prices are from.
    """

    at: datetime
    why: str
    source: str


_ROUTER: Final = "what the router adds to the price of the model it chose; its output is zero"
_CLOUD: Final = "runs on the maker's machines, not on the user's own, so its zeros are no prices"
# Checked 2026-11-23, by every chat and embedding price above 1,000 for a million tokens or above a
# hundred times the median of its provider; these three are all there are.
WRONG_ROWS: Final = (
    Wrong(keys="azure/model-router", reason=Reason.SURCHARGE_OR_ZERO, why=_ROUTER),
    Wrong(keys="azure_ai/model-router", reason=Reason.SURCHARGE_OR_ZERO, why=_ROUTER),
    Wrong(keys="azure_ai/model_router", reason=Reason.SURCHARGE_OR_ZERO, why=_ROUTER),
    Wrong(keys="ollama/*-cloud", reason=Reason.SURCHARGE_OR_ZERO, why=_CLOUD),
    Wrong(
        keys="embed-multilingual-light-v3.0",
        reason=Reason.UNIT_SLIP,
        why="100 for a million tokens, its siblings 0.1: the price of a thousand, as of one",
    ),
    Wrong(
        keys="azure_ai/jais-30b-chat",
        reason=Reason.UNIT_SLIP,
        why="3,200 in and 9,710 out for a million tokens: the price of a thousand, as of one",
    ),
    Wrong(
        keys="watsonx/core42/jais-13b-chat",
        reason=Reason.UNIT_SLIP,
        why="500 in and 2,000 out for a million tokens: the price of a thousand, as of one",
    ),
)

_OFF_PEAK_ENDED: Final = Ended(
    at=datetime(2025, 9, 5, tzinfo=UTC),
    why="the off-peak discount ended and other prices began",
    source="https://api-docs.deepseek.com/quick_start/pricing",
)
# By catalog provider and model of genai-prices, whose entries are older than those of the map.
ENDED_PRICES: Final[Mapping[tuple[str, str], Ended]] = MappingProxyType(
    {
        ("deepseek", "deepseek-chat"): _OFF_PEAK_ENDED,
        ("deepseek", "deepseek-reasoner"): _OFF_PEAK_ENDED,
    }
)

# Names that moved on to another model, by what the list with the newer data says of them.
MOVED_NAMES: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("mistral", "mistral-large-latest"): (
            "genai-prices has it with the models of 2024, the map with the one of December 2025 "
            "(<https://docs.mistral.ai/models/mistral-large-3-25-12>)"
        ),
    }
)

# A model whose long context is priced takes prompts of that length, whatever a list says of its
# window: https://platform.claude.com/docs/en/about-claude/pricing, checked 2026-11-23.
LONG_CONTEXT: Final = 1_000_000
LONG_CONTEXT_MODELS: Final = (
    "*claude-sonnet-4-5*",
    "*claude-sonnet-4-0*",
    "*claude-sonnet-4-2*",
    "*claude-sonnet-4@*",
    "*claude-sonnet-4",
)


def find_wrong(key: str) -> Wrong | None:
    """Look a row of the litellm map up among those that are known to be wrong.

    Args:
        key: Name of the row.

    Returns:
        What is wrong with it, or ``None``.
    """
    return next((wrong for wrong in WRONG_ROWS if fnmatchcase(key, wrong.keys)), None)


def has_long_context(model: str) -> bool:
    """Tell whether a model is sold with a window of a million tokens.

    Args:
        model: Catalog model.

    Returns:
        True for the models of the table.
    """
    return any(fnmatchcase(model, pattern) for pattern in LONG_CONTEXT_MODELS)
