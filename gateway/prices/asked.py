"""What an operator asks of the price book, and what is said where it cannot be.

Must never lose a part of what was asked when it is written down: a version is made again from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pricing.agreements import Override
from pricing.manifest import ModelEntry
from pricing.rates import Rate
from pricing.rows import (
    agreements_text,
    parse_agreements,
    parse_instant,
    parse_prices,
    prices_text,
)

_PLACE: Final = "what was asked for"


class PriceRefused(Exception):
    """A change of prices that was not made.

    Attributes:
        field: What is at fault; empty where it is the whole.
        reason: What is wrong and what would help.
        kind: Whether it can never be right, is too late, or is about something that is not there.
    """

    def __init__(
        self,
        reason: str,
        *,
        field: str = "",
        kind: Literal["invalid", "conflict", "unknown"] = "invalid",
    ) -> None:
        self.field = field
        self.reason = reason
        self.kind = kind
        super().__init__(f"{field}: {reason}" if field else reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Who changes prices, and why.

    Attributes:
        who: For the record.
        why: Likewise; never empty.
    """

    who: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEdit:
    """What changes.

    Attributes:
        rates: Dated prices; an earlier one of the same name ends where its successor starts.
        models: Models that are new.
        overrides: Negotiated rates that are new.
        ends: Negotiated rates that end: their id and the first instant they no longer hold.
    """

    rates: tuple[Rate, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    overrides: tuple[Override, ...] = ()
    ends: tuple[tuple[str, datetime], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """The prices of a candidate, put in force.

    Attributes:
        candidate: Its name.
        replaces: Whether it may undo what was changed since it was made.
    """

    candidate: str
    replaces: bool


def to_row_asked(asked: PriceEdit | Approval) -> dict[str, Any]:
    """Write down what was asked.

    Args:
        asked: Anything the desk has checked.

    Returns:
        JSON that ``from_row_asked`` reads back.
    """
    match asked:
        case Approval():
            return {"candidate": asked.candidate, "replaces": asked.replaces}
        case PriceEdit():
            return {
                "prices": _prices_by_provider(asked),
                "new_models": [[one.provider, one.model] for one in asked.models],
                "agreements": agreements_text(asked.overrides) if asked.overrides else None,
                "ends": [[name, end.isoformat()] for name, end in asked.ends],
            }


def from_row_asked(row: Mapping[str, Any]) -> PriceEdit | Approval:
    """Read what was asked.

    Args:
        row: As ``to_row_asked`` wrote it.

    Returns:
        The same.

    Raises:
        BookBroken: It is not what was written.
    """
    if "candidate" in row:
        return Approval(candidate=row["candidate"], replaces=row["replaces"])
    contents = [parse_prices(_PLACE, text) for text in row["prices"].values()]
    new = {(provider, model) for provider, model in row["new_models"]}
    agreed = row["agreements"]
    return PriceEdit(
        rates=tuple(rate for content in contents for rate in content.rates),
        models=tuple(
            one for each in contents for one in each.models if (one.provider, one.model) in new
        ),
        overrides=() if agreed is None else parse_agreements(_PLACE, agreed),
        ends=tuple((name, parse_instant(end)) for name, end in row["ends"]),
    )


def _prices_by_provider(edit: PriceEdit) -> dict[str, str]:
    """The rates as a catalog has them, under models that need nothing but their names."""
    entries = {(rate.provider, rate.model): _bare(rate) for rate in edit.rates}
    entries |= {(one.provider, one.model): one for one in edit.models}
    return {
        provider: prices_text(
            [one for one in entries.values() if one.provider == provider],
            [rate for rate in edit.rates if rate.provider == provider],
        )
        for provider in sorted({provider for provider, _ in entries})
    }


def _bare(rate: Rate) -> ModelEntry:
    return ModelEntry(
        provider=rate.provider,
        model=rate.model,
        aliases=(),
        context_tokens_max=None,
        output_tokens_max=None,
    )
