"""Which version is in force when, of all that were ever approved.

Must never count a version that nobody approved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.prices.current import NEVER
from gateway.prices.rows import StoredVersion
from gateway.prices.store import find_current, in_force
from pricing.book import BookVersion

# A version, the first instant it is in force, and the first instant it no longer is.
Span = tuple[BookVersion, datetime, datetime]


def spans_of(approved: Sequence[BookVersion]) -> list[Span]:
    """Find which version is in force when.

    Args:
        approved: In the order they became known.

    Returns:
        Spans that follow each other, the oldest first and the last one without an end. A version
        that another one replaced before its time has none.
    """
    starts = sorted({version.effective_from for version in approved})
    spans: list[Span] = []
    for start, end in zip(starts, [*starts[1:], NEVER], strict=True):
        version = find_current(approved, start)
        if spans and spans[-1][0].version == version.version:
            spans[-1] = (version, spans[-1][1], end)
        else:
            spans.append((version, start, end))
    return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a version is to a reader.

    Attributes:
        text: Such as ``current``, ``past`` or ``scheduled``.
        since: First instant it is in force; ``None`` where it never is.
        until: First instant it no longer is; ``None`` likewise, and while no end is known.
    """

    text: str
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """How all versions stand at an instant.

    Attributes:
        at: The instant.
        spans: Which version is in force when.
    """

    at: datetime
    spans: Sequence[Span]

    @property
    def current(self) -> str:
        """Name of the version calls are priced with then."""
        return self._at(self.at)

    def of(self, stored: StoredVersion) -> Standing:
        """Tell how one version stands.

        Args:
            stored: One of them.

        Returns:
            What it is to a reader, and when it is in force.
        """
        if stored.status != "approved":
            return Standing(text=stored.status)
        if stored.became is not None:
            return Standing(text=f"became {stored.became}")
        carries = "" if stored.carries is None else f", carries {stored.carries}"
        mine = next((span for span in self.spans if span[0].version == stored.version), None)
        if mine is None:
            start = stored.describe().effective_from
            is_pending = start > self.at
            there = f"scheduled as part of {self._at(start)}"
            return Standing(
                text=f"{there if is_pending else f'replaced by {self._at(start)}'}{carries}"
            )
        _, since, until = mine
        text = "scheduled" if since > self.at else "past" if until <= self.at else "current"
        return Standing(
            text=f"{text}{carries}", since=since, until=None if until == NEVER else until
        )

    def _at(self, at: datetime) -> str:
        started = [span for span in self.spans if span[1] <= at]
        return (started or self.spans)[-1 if started else 0][0].version


def stand(versions: Sequence[StoredVersion], at: datetime) -> Standings:
    """Tell how versions stand at an instant.

    Args:
        versions: All, as they were decided about.
        at: Aware instant.

    Returns:
        How they stand.

    Raises:
        NoSuchVersion: None was ever approved.
    """
    approved = in_force(versions)
    find_current(approved, at)
    return Standings(at=at, spans=spans_of(approved))
