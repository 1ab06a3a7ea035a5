"""What one call used: disjoint counts and how sure we are of them.

Must never turn a missing count into zero.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

import msgspec

from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter

Quantity = int | Decimal


class Basis(StrEnum):
    """Where the counts come from, from sure to unsure."""

    REPORTED = "reported"
    PARTIAL = "partial"
    ESTIMATED = "estimated"
    NONE = "none"
    UNKNOWN = "unknown"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Disjoint counts of one call.

    Attributes:
        counts: Positive quantity by meter; no token stands under two meters. Empty when nothing
            billable happened (``none``) or nothing is known (``unknown``).
        basis: Where the counts come from.
        flags: What the reader found odd, in words with both numbers; empty when all is well.
    """

    counts: Mapping[Meter, Quantity]
    basis: Basis
    flags: tuple[str, ...] = ()

    @property
    def input_total(self) -> int | None:
        """All input tokens, cache included; ``None`` when unknown."""
        return self.totals()[0]

    @property
    def output_total(self) -> int | None:
        """All output tokens, reasoning included; ``None`` when unknown."""
        return self.totals()[1]

    def totals(self) -> tuple[int | None, int | None]:
        """Add the tokens of each direction up.

        Returns:
            All input tokens, cache included, and all output tokens, reasoning included; ``None``
            when unknown.
        """
        if self.basis is Basis.UNKNOWN:
            return None, None
        tokens_in: Quantity = 0
        tokens_out: Quantity = 0
        for meter, count in self.counts.items():
            if meter in INPUT_METERS:
                tokens_in += count
            elif meter in OUTPUT_METERS:
                tokens_out += count
        return int(tokens_in), int(tokens_out)


NOTHING = Usage(counts=MappingProxyType({}), basis=Basis.NONE)


def unknown_usage(reason: str) -> Usage:
    """Say that something billable may have happened and its size is not known.

    Args:
        reason: Why, for the record's flags.

    Returns:
        Usage with no counts and basis ``unknown``; its totals are ``None``.
    """
    return Usage(counts=MappingProxyType({}), basis=Basis.UNKNOWN, flags=(reason,))
