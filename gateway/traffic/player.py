"""Makes planned calls at their time, the way applications do: at once, with retries and hang-ups.

Must never go on when an answer does not come from the demo provider: it may have been billed.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from gateway.clock import Clock
from gateway.traffic.company import PROJECTS, CompanyCall
from gateway.traffic.requests import MARK_HEADER, write_request
from gateway.traffic.tally import Outcome
from gateway.upstream import HttpUpstream, UpstreamFailed, UpstreamReply, UpstreamRequest

_TIMEOUT_S: Final = 60
_OPEN_MAX: Final = 200
_RETRIES_MAX: Final = 2
_RETRY_S: Final = 0.2
_ERRORS_FROM: Final = 400
_KNOWN_COST: Final = re.compile(rb"x-taximeter-cost=([0-9.]+)")
_TAIL_BYTES: Final = 1_024
_TEAM_OF: Final = {project.id: project.team for project in PROJECTS}


class NotTheDemo(Exception):
    """An answer did not come from the demo provider; the text names who was called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a company's time passes.

    Attributes:
        speed: Company seconds in a second.
        first_s: Company second at which the run begins.
    """

    speed: float
    first_s: float


class Player:
    """Makes calls to one gateway."""

    def __init__(
        self,
        url: str,
        secrets: Mapping[str, str],
        clock: Clock,
        *,
        on_call: Callable[[], None],
        stop: asyncio.Event,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: The gateway's address.
            secrets: Of the keys, by project.
            clock: For the pace.
            on_call: Told of every call that has ended.
            stop: Set when no more calls are to be made.
        """
        self._url = url
        self._secrets = secrets
        self._clock = clock
        self._on_call = on_call
        self._stop = stop
        self._http = HttpUpstream(_TIMEOUT_S)
        self._room = asyncio.Semaphore(_OPEN_MAX)
        self._begun_s = clock.monotonic_s()
        self.outcomes: list[Outcome] = []

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    def take_outcomes(self) -> list[Outcome]:
        """Hand over what has ended so far.

        Returns:
            The calls, each of them once.
        """
        taken, self.outcomes = self.outcomes, []
        return taken

    async def play(self, calls: Iterable[CompanyCall], pace: Pace) -> None:
        """Make calls at their time, and wait until all of them have ended.

        Args:
            calls: In order.
            pace: When that is.

        Raises:
            NotTheDemo: Somebody else answered; calls under way are ended.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    due_s = self._begun_s + (call.at_s - pace.first_s) / pace.speed
                    if await self._stops_within(due_s - self._clock.monotonic_s()):
                        break
                    # A gateway that cannot keep up is called later, not by ever more at once.
                    await self._room.acquire()
                    group.create_task(self._make(call))
        except* NotTheDemo as many:
            raise many.exceptions[0] from None

    async def _stops_within(self, seconds: float) -> bool:
        if seconds > 0 and not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    async def _make(self, call: CompanyCall) -> None:
        try:
            outcome = await self.call_once(call)
            for attempt in range(_RETRIES_MAX):
                if not _is_worth_a_retry(outcome):
                    break
                await asyncio.sleep(_RETRY_S * (attempt + 1))
                # What was busy has calmed down.
                outcome = await self.call_once(replace(call, trouble=""), is_retry=True)
        finally:
            self._room.release()

    async def call_once(self, call: CompanyCall, *, is_retry: bool = False) -> Outcome:
        """Make one call and note how it went.

        Args:
            call: The plan.
            is_retry: Whether it repeats one that failed.

        Returns:
            What its caller saw.

        Raises:
            NotTheDemo: Somebody else answered.
        """
        request = write_request(call)
        project = call.workload.project
        headers = [*request.headers, _credential(call.workload.provider, self._secrets[project])]
        asked = UpstreamRequest(
            method="POST", url=self._url + request.path, headers=headers, body=request.body
        )
        outcome = Outcome(
            id="",
            team=_TEAM_OF[project],
            status=0,
            is_refused=False,
            input=None,
            output=None,
            cost=None,
            is_retry=is_retry,
            is_anomaly=call.is_anomaly,
            trouble=call.trouble,
        )
        try:
            async with self._http.send(asked) as reply:
                outcome = _of_head(outcome, reply, call.workload.provider)
                outcome = await _of_body(outcome, reply, call)
        except UpstreamFailed:
            # Broken off: the gateway's record says how far it got.
            outcome = replace(outcome, input=None, output=None, cost=None)
        self.outcomes.append(outcome)
        self._on_call()
        return outcome


def _credential(provider: str, secret: str) -> tuple[str, str]:
    if provider == "anthropic":
        return "x-api-key", secret
    if provider == "gemini":
        return "x-goog-api-key", secret
    return "authorization", f"Bearer {secret}"


def _of_head(outcome: Outcome, reply: UpstreamReply, provider: str) -> Outcome:
    headers = dict(reply.headers)
    if reply.status < _ERRORS_FROM and MARK_HEADER not in headers:
        raise NotTheDemo(
            f"the provider {provider!r} of this gateway is not the demo provider; nothing more is"
            " sent, because it may bill"
        )
    cost = headers.get("x-taximeter-cost")
    return replace(
        outcome,
        id=headers.get("x-taximeter-request-id", ""),
        status=reply.status,
        is_refused=headers.get("x-should-retry") == "false" and MARK_HEADER not in headers,
        cost=None if cost is None else Decimal(cost),
    )


async def _of_body(outcome: Outcome, reply: UpstreamReply, call: CompanyCall) -> Outcome:
    tail = b""
    while (chunk := await reply.read_chunk()) is not None:
        tail = (tail + chunk)[-_TAIL_BYTES:]
        if call.trouble == "leaves" and outcome.status < _ERRORS_FROM:
            return outcome
    if outcome.status >= _ERRORS_FROM or call.trouble == "cut":
        return outcome
    told = _KNOWN_COST.search(tail)
    cost = outcome.cost if told is None else Decimal(told[1].decode())
    return replace(outcome, input=call.input, output=call.output, cost=cost)


def _is_worth_a_retry(outcome: Outcome) -> bool:
    return not outcome.is_refused and (outcome.status == 429 or outcome.status >= 500)
