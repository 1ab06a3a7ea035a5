"""A version of the price book as the database has it. Must never hold what a version consists of.

The contents are thousands of prices; ``gateway.prices.store`` opens them one provider at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row

from gateway.clock import from_epoch_us
from pricing.book import BookVersion, Manifest, describe_version

Status = Literal["candidate", "approved", "rejected"]
Origin = Literal["shipped", "operator", "import"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """One version, and what was decided about it last.

    Attributes:
        version: Its name.
        seq: Its place among all versions and decisions.
        known_seq: The same of what made its prices count: itself, or its approval.
        manifest: What it consists of.
        origin: Shipped with the program, made by an operator's change, or imported.
        base: The version it was made from; ``None`` where there was none.
        proposed_at: When it was written down.
        recorded_at: Since when its prices count as known: that, or its approval.
        effective_from: First instant calls are priced with it; ``None`` while nobody decided.
        recorded_by: Who made it.
        why: Why.
        status: Where it stands.
        decided_by: Who approved or rejected it; ``None`` where nobody had to.
        decided_why: Why.
        became: The version its prices came into force as, where other changes came between.
        carries: The version whose change this one has over another base; ``None`` for one that
            somebody asked for.
        turn: Its place in the order changes are laid over each other.
        edit: What was asked for, as ``gateway.prices.asked`` writes it; ``None`` for lists, for
            what carries and for what was recorded before anybody wrote it down.
        kept: Prices set by hand that a candidate keeps, as ``gateway.prices.importing`` writes
            them.
    """

    version: str
    seq: int
    known_seq: int
    manifest: Manifest
    origin: Origin
    base: str | None
    proposed_at: datetime
    recorded_at: datetime
    effective_from: datetime | None
    recorded_by: str
    why: str
    status: Status
    decided_by: str | None = None
    decided_why: str | None = None
    became: str | None = None
    carries: str | None = None
    turn: int = 0
    edit: Mapping[str, Any] | None = None
    kept: Sequence[Mapping[str, Any]] = ()

    @property
    def digest(self) -> str:
        """The hash that names its content."""
        return self.manifest.digest

    @property
    def is_in_force(self) -> bool:
        """Whether it is one calls were, are or will be priced with."""
        return self.status == "approved" and self.became is None

    def describe(self) -> BookVersion:
        """Describe it as a book needs it.

        Returns:
            The version; one that nobody approved is described as if it held at once.
        """
        return describe_version(
            self.version,
            self.manifest,
            recorded_at=self.recorded_at,
            effective_from=self.effective_from,
            note=self.why,
        )


def read_version_row(row: Row[Any], decisions: Iterable[Row[Any]]) -> StoredVersion:
    """Read a version and what was decided about it.

    Args:
        row: Of ``price_versions``.
        decisions: Rows of ``price_decisions`` about it, oldest first.

    Returns:
        The version as it stands.
    """
    recorded_at = from_epoch_us(row.recorded_at_us)
    stored = StoredVersion(
        version=row.version,
        seq=row.seq,
        known_seq=row.seq,
        manifest=manifest_from_row(row.manifest),
        origin=row.origin,
        base=row.base,
        proposed_at=recorded_at,
        recorded_at=recorded_at,
        effective_from=_instant(row.effective_from_us),
        recorded_by=row.recorded_by,
        why=row.why,
        status=row.status,
        carries=row.carries,
        edit=row.edit,
        kept=tuple(row.kept or ()),
    )
    for decision in decisions:
        approved = decision.status == "approved"
        stored = replace(
            stored,
            status=decision.status,
            known_seq=decision.seq if approved else stored.known_seq,
            recorded_at=from_epoch_us(decision.at_us) if approved else stored.recorded_at,
            effective_from=_instant(decision.effective_from_us),
            decided_by=decision.actor,
            decided_why=decision.why,
            became=decision.became,
        )
    return replace(stored, turn=stored.known_seq if row.turn is None else row.turn)


def manifest_from_row(row: Mapping[str, Any]) -> Manifest:
    """Read a manifest.

    Args:
        row: As ``manifest_to_row`` wrote it.

    Returns:
        The manifest.
    """
    return Manifest(providers=dict(row["providers"]), agreements=row["agreements"])


def manifest_to_row(manifest: Manifest) -> dict[str, Any]:
    """Write a manifest.

    Args:
        manifest: Any.

    Returns:
        JSON.
    """
    return {
        "providers": dict(sorted(manifest.providers.items())),
        "agreements": manifest.agreements,
    }


def _instant(us: int | None) -> datetime | None:
    return None if us is None else from_epoch_us(us)
