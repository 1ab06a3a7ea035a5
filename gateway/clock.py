"""The only place that asks the machine what time it is.

Must never be called from ``pricing``; everywhere else time is an argument.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from; tests pass one they move themselves."""

    def now(self) -> datetime:
        """Tell the time, aware and in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Tell seconds since some fixed moment; never steps back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Tell the time, aware and in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Tell seconds since some fixed moment; never steps back."""
        return time.monotonic()


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_us(at: datetime) -> int:
    """Count microseconds since 1970, exactly.

    Args:
        at: Aware instant.

    Returns:
        Whole microseconds, negative before 1970.
    """
    span = at - EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def from_epoch_us(us: int) -> datetime:
    """Turn microseconds since 1970 back into an instant.

    Args:
        us: Whole microseconds.

    Returns:
        Aware instant in UTC; exact, unlike ``datetime.fromtimestamp``.
    """
    seconds, micro = divmod(us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micro)


def to_rfc3339(us: int) -> str:
    """Write an instant as RFC 3339 text in UTC with microseconds.

    Args:
        us: Microseconds since 1970.

    Returns:
        Text such as ``2026-11-23T10:00:00.123456Z``.
    """
    return from_epoch_us(us).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
