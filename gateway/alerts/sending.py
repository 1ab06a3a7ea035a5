"""Telling one receiver: who wants what, one attempt, and when the next one is due.

Must never follow a redirect, nor log or keep the address, the secret or what the receiver said.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Final

from gateway.alerts.message import ID_HEADER, SIGNATURE_HEADER, Format, sign, write_body
from gateway.alerts.outbox import Facts
from gateway.budgets.alerting import AlertKind
from gateway.budgets.rules import Budget
from gateway.clock import Clock, epoch_us
from gateway.settings_alerts import AlertReceiverSettings
from gateway.upstream import Upstream, UpstreamFailed, UpstreamRequest, UpstreamTimedOut

# Together about three hours: half a second, then twice as long each time, up to an hour.
ATTEMPTS_MAX: Final = 16
DELAY_S_MIN: Final = 0.5
DELAY_S_MAX: Final = 3600.0
ANSWER_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Somebody who is told.

    Attributes:
        id: Its id.
        url: Where messages are posted.
        secret: Signs them; ``None`` leaves them unsigned.
        form: What they look like.
        kinds: What it wants to know.
        budgets: Patterns of budget ids.
        scope: Parts a budget's scope must have.
        timeout_s: Longest wait for its answer.
    """

    id: str
    url: str = field(repr=False)
    secret: str | None = field(repr=False)
    form: Format
    kinds: frozenset[AlertKind]
    budgets: tuple[str, ...]
    scope: frozenset[tuple[str, str]]
    timeout_s: float

    def wants(self, kind: AlertKind, budget: Budget) -> bool:
        """Tell whether it wants to know.

        Args:
            kind: What there is to tell.
            budget: About which budget.

        Returns:
            Whether everything given in its settings matches.
        """
        return (
            kind in self.kinds
            and any(fnmatchcase(budget.id, pattern) for pattern in self.budgets)
            and self.scope <= budget.scope.items()
        )


def to_receiver(settings: AlertReceiverSettings) -> Receiver:
    """Read a receiver from its settings.

    Args:
        settings: Checked.

    Returns:
        The receiver.
    """
    secret = settings.secret
    return Receiver(
        id=settings.id,
        url=settings.url.get_secret_value(),
        secret=None if secret is None else secret.get_secret_value(),
        form=settings.format,
        kinds=frozenset(settings.on),
        budgets=settings.budgets,
        scope=frozenset(settings.scope.items()),
        timeout_s=settings.timeout_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How an attempt ended.

    Attributes:
        error: Why the receiver has not taken it; ``None`` when it has.
        retry_after_s: How long the receiver asks to be left alone, ``None`` when it does not.
    """

    error: str | None
    retry_after_s: float | None = None


async def send_alert(
    receiver: Receiver, facts: Facts, upstream: Upstream, clock: Clock, version: str
) -> Sent:
    """Try once to tell a receiver.

    Args:
        receiver: Whom.
        facts: What.
        upstream: Over which connections.
        clock: For the signature.
        version: Of the program.

    Returns:
        How it ended; taken means an answer of 200 to 299.
    """
    body = write_body(facts, receiver.form)
    now = clock.now()
    headers = [
        ("content-type", "application/json"),
        ("user-agent", f"taximeter/{version}"),
        (ID_HEADER, str(facts["id"])),
    ]
    if receiver.secret is not None:
        at_s = epoch_us(now) // 1_000_000
        headers.append((SIGNATURE_HEADER, sign(receiver.secret, body, at_s)))
    request = UpstreamRequest(method="POST", url=receiver.url, headers=headers, body=body)
    try:
        status, answered = await _ask(upstream, request, receiver.timeout_s)
    except (TimeoutError, UpstreamTimedOut):
        return Sent(error=f"no answer within {receiver.timeout_s:g} s")
    except UpstreamFailed as failed:
        # Its text is the kind of failure alone: no address and nothing that was sent or said.
        return Sent(error=f"not reached: {failed}")
    if 200 <= status < 300:
        return Sent(error=None)
    hint = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    return Sent(error=f"answered {status}{hint}", retry_after_s=read_retry_after(answered, now))


async def _ask(
    upstream: Upstream, request: UpstreamRequest, timeout_s: float
) -> tuple[int, Sequence[tuple[str, str]]]:
    """Send, and read the answer; its head decides, whatever becomes of the rest."""
    head: list[tuple[int, Sequence[tuple[str, str]]]] = []
    try:
        async with asyncio.timeout(timeout_s), upstream.send(request) as reply:
            head.append((reply.status, reply.headers))
            # Read to its end, a short answer leaves the connection ready for the next alert.
            left_bytes = ANSWER_BYTES_MAX
            while left_bytes > 0 and (chunk := await reply.read_chunk()) is not None:
                left_bytes -= len(chunk)
    except (TimeoutError, UpstreamFailed):
        if not head:
            raise
    return head[0]


def read_retry_after(headers: Sequence[tuple[str, str]], at: datetime) -> float | None:
    """Read how long a receiver asks to be left alone.

    Args:
        headers: Of its answer.
        at: Now.

    Returns:
        Seconds, never negative; ``None`` where it does not ask, or not in words that are known.
    """
    text = next((value for name, value in headers if name == "retry-after"), "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, (until - at).total_seconds())
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone or beyond all
        return None


def retry_delay_s(attempts: int, share: float, retry_after_s: float | None) -> float | None:
    """Decide how long to wait for the next attempt.

    Args:
        attempts: How many there were.
        share: Random, 0 to 1: receivers that fail together are not all asked again at once.
        retry_after_s: How long the receiver asks to be left alone; kept up to an hour.

    Returns:
        Seconds: twice as long after each attempt, of which a random half is taken off; ``None``
        after the last attempt.
    """
    if attempts >= ATTEMPTS_MAX:
        return None
    longest: float = min(DELAY_S_MAX, DELAY_S_MIN * 2.0 ** (attempts - 1))
    delay = longest * (1 - share / 2)
    return max(delay, min(retry_after_s or 0.0, DELAY_S_MAX))
