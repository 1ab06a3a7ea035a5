"""What a version of the price book is: a list of contents, each named by its hash.

Must never leave out of a hash anything that can change a bill.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pricing.agreements import Override
from pricing.rates import Rate


class BookBroken(ValueError):
    """A price book that must not be used; ``problems`` lists everything wrong with it at once.

    Attributes:
        problems: One sentence each, with the file and the price it is about.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """What the catalog says of a model besides its prices.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        aliases: Other names and dated snapshots billed at the same prices.
        context_tokens_max: Most tokens a prompt can have; ``None`` when not published.
        output_tokens_max: Most tokens an answer can have; ``None`` when not published.
    """

    provider: str
    model: str
    aliases: tuple[str, ...]
    context_tokens_max: int | None
    output_tokens_max: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a version consists of.

    Attributes:
        providers: Digest of the models and rates of every catalog provider.
        agreements: Digest of the negotiated rates; ``None`` where there are none.
    """

    providers: Mapping[str, str]
    agreements: str | None = None

    @property
    def digest(self) -> str:
        """The hash that names the version's whole content."""
        return _sha256([json.dumps([dict(sorted(self.providers.items())), self.agreements])])


@dataclass(frozen=True, slots=True, kw_only=True)
class BookVersion:
    """One row of the list of published versions.

    Attributes:
        version: Name, such as ``2026-11-23.1``.
        digest: The manifest's.
        recorded_at: When we learned these prices; aware.
        effective_from: First instant calls are priced with it; aware.
        note: What changed, for people.
        manifest: What it consists of.
    """

    version: str
    digest: str
    recorded_at: datetime
    effective_from: datetime
    note: str
    manifest: Manifest


def describe_version(
    version: str,
    manifest: Manifest,
    *,
    recorded_at: datetime,
    effective_from: datetime | None = None,
    note: str = "",
) -> BookVersion:
    """Make the row of a new version.

    Args:
        version: Its name.
        manifest: What it consists of.
        recorded_at: When we learned these prices; aware.
        effective_from: First instant calls are priced with it; ``None`` for ``recorded_at``.
        note: What changed, for people.

    Returns:
        The row, with the digest of the manifest.
    """
    return BookVersion(
        version=version,
        digest=manifest.digest,
        recorded_at=recorded_at,
        effective_from=recorded_at if effective_from is None else effective_from,
        note=note,
        manifest=manifest,
    )


def digest_of(models: Iterable[ModelEntry], rates: Iterable[Rate]) -> str:
    """Address the prices of one provider by their content.

    Args:
        models: Model entries in any order.
        rates: Dated rates in any order.

    Returns:
        ``sha256:`` and the hash of every field that can change a bill, in canonical order. Source
        pages and check days are left out: reading a page again does not change a price.
    """
    rows = sorted(
        json.dumps(
            [
                "model",
                m.provider,
                m.model,
                sorted(m.aliases),
                m.context_tokens_max,
                m.output_tokens_max,
            ]
        )
        for m in models
    )
    rows += sorted(
        json.dumps(
            [
                "rate",
                r.provider,
                r.model,
                r.meter.value,
                r.tier,
                r.over,
                r.region,
                r.variant,
                None if r.hours is None else str(r.hours),
                f"{r.amount.normalize():f}",
                r.per,
                r.currency,
                _instant(r.valid_from),
                _instant(r.valid_to),
            ]
        )
        for r in rates
    )
    return _sha256(rows)


def agreements_digest(overrides: Iterable[Override]) -> str:
    """Address negotiated rates by their content.

    Args:
        overrides: In any order.

    Returns:
        ``sha256:`` and the hash of every field that can change a bill, in canonical order.
    """
    rows = sorted(
        json.dumps(
            [
                "override",
                o.id,
                *o.payer,
                o.provider,
                o.model,
                None if o.meter is None else o.meter.value,
                o.tier,
                o.over,
                o.region,
                o.variant,
                None if o.percent is None else f"{o.percent.normalize():f}",
                None if o.amount is None else f"{o.amount.normalize():f}",
                o.per,
                o.currency,
                _instant(o.valid_from),
                _instant(o.valid_to),
            ]
        )
        for o in overrides
    )
    return _sha256(rows)


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def _sha256(rows: Iterable[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join(rows).encode()).hexdigest()
