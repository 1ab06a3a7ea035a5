"""One run of the company, from its keys to the comparison with the ledger.

Must never leave a key behind that works: whatever happens, those it has made are revoked.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import count, islice
from typing import Final

from gateway.clock import Clock, epoch_us, to_rfc3339
from gateway.traffic.company import DAY_S, WORKLOADS, CompanyCall, plan_day
from gateway.traffic.expected import expected_costs
from gateway.traffic.office import BudgetWish, Office, OfficeFailed, usd_limit
from gateway.traffic.player import Pace, Player
from gateway.traffic.tally import Tally
from pricing.book import load_book

_HOUR_S: Final = 3_600
_MONTH_HOURS: Final = 24 * 30
_LEDGER_S_MAX: Final = 60.0
_LEDGER_PAUSE_S: Final = 0.25
# Days between two changes of a price: at the usual speed one an hour.
_PRICE_DAYS: Final = 12
_SLACK_US: Final = 1_000_000
_PROBE: Final = {"input": 16, "cache_read": 0, "cache_write": 0, "reasoning": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is to be played.

    Attributes:
        url: The gateway's address.
        admin_token: Of its control plane.
        seed: The same one plays the same calls.
        rate: Calls a second, over the day.
        speed: Company seconds in a second.
        days: Company days; 0 goes on until it is stopped.
        calls_max: Ends the run after so many planned calls; ``None`` for all of its days.
    """

    url: str
    admin_token: str
    seed: int
    rate: float
    speed: float
    days: int
    calls_max: int | None = None

    @property
    def calls_a_day(self) -> int:
        """About how many calls a company day has."""
        return max(1, round(self.rate * DAY_S / self.speed))


@dataclass(frozen=True, slots=True, kw_only=True)
class DayDone:
    """A day that has been played and compared.

    Attributes:
        day: Number of the day, from 1.
        tally: Everything since the start.
        price_version: The version a change of price made in it; ``None`` where there was none.
    """

    day: int
    tally: Tally
    price_version: str | None


async def run_days(
    options: Options, clock: Clock, *, on_call: Callable[[], None], stop: asyncio.Event
) -> AsyncIterator[DayDone]:
    """Play the company.

    Args:
        options: What to play.
        clock: For the pace, and for what to ask the ledger.
        on_call: Told of every call that has ended.
        stop: Set when the day under way is to be the last, and no more calls are to be made.

    Yields:
        Each day when it is over and compared with the ledger.

    Raises:
        OfficeFailed: The gateway does not take what the company needs.
        NotTheDemo: A provider of the gateway is a real one.
    """
    office = Office(options.url, options.admin_token)
    run = f"{epoch_us(clock.now()) // 1000 % 36**6:06x}"
    tally = Tally()
    try:
        secrets = await office.hire(run)
        await office.budget(wanted_budgets(options, clock))
        player = Player(options.url, secrets, clock, on_call=on_call, stop=stop)
        try:
            await _probe(player)
            for day, calls in _days(options):
                since = to_rfc3339(epoch_us(clock.now()) - _SLACK_US)
                version = await _play_day(office, player, calls, options, day)
                await _compare(office, player, tally, since, clock)
                yield DayDone(day=day + 1, tally=tally, price_version=version)
                if stop.is_set():
                    break
        finally:
            await player.close()
    finally:
        await office.dismiss(run)
        await office.close()


def _days(options: Options) -> Iterator[tuple[int, Iterator[CompanyCall]]]:
    left = options.calls_max
    for day in count() if options.days == 0 else range(options.days):
        planned = list(islice(plan_day(day, options.calls_a_day, options.seed), left))
        yield day, iter(planned)
        if left is not None:
            left -= len(planned)
            if left <= 0:
                return


async def _play_day(
    office: Office, player: Player, calls: Iterator[CompanyCall], options: Options, day: int
) -> str | None:
    """Play a day; where a price changes, it changes in the middle of its calls."""
    pace = Pace(speed=options.speed, first_s=0)
    if day % _PRICE_DAYS:
        await player.play(calls, pace)
        return None
    planned = list(calls)
    half = len(planned) // 2
    await player.play(planned[:half], pace)
    version = await office.change_price()
    await player.play(planned[half:], pace)
    return version


async def _probe(player: Player) -> None:
    """Ask every provider once for next to nothing: what is not the demo is not asked again."""
    seen: set[str] = set()
    for workload in WORKLOADS:
        if workload.provider in seen:
            continue
        seen.add(workload.provider)
        call = CompanyCall(
            at_s=0,
            workload=workload,
            output=min(1, workload.output),
            stream=False,
            user="",
            trouble="",
            is_anomaly=False,
            **_PROBE,
        )
        outcome = await player.call_once(call)
        if outcome.status == 404:
            raise OfficeFailed(
                f"the gateway has no provider {workload.provider!r}; it needs those of"
                " docs/stack.md, or leave --url out and one is started that has them"
            )


async def _compare(office: Office, player: Player, tally: Tally, since: str, clock: Clock) -> None:
    outcomes = player.take_outcomes()
    wanted = frozenset(outcome.id for outcome in outcomes if outcome.id)
    deadline_s = clock.monotonic_s() + _LEDGER_S_MAX
    records = await office.records(since, wanted)
    while len(records) < len(wanted) and clock.monotonic_s() < deadline_s:
        await asyncio.sleep(_LEDGER_PAUSE_S)
        records = await office.records(since, wanted)
    tally.add(outcomes, records)


def wanted_budgets(options: Options, clock: Clock) -> tuple[BudgetWish, ...]:
    """Set budgets by what the run is expected to cost, so that some of them are run into.

    Args:
        options: What is played.
        clock: For the prices that hold.

    Returns:
        A budget that stops a team before the hour is over, one that is used up to nine tenths, one
        of the whole company, one of tokens and a rate limit.
    """
    planned = plan_day(0, options.calls_a_day, options.seed)
    if options.calls_max is not None:
        planned = islice(planned, options.calls_max)
    a_day = expected_costs(planned, load_book(), clock.now())
    hours_of_day = DAY_S / options.speed / _HOUR_S
    days = 1 / hours_of_day if options.days == 0 else min(options.days, 1 / hours_of_day)
    hour = {team: cost * Decimal(days) for team, cost in a_day.items()}
    whole = sum(hour.values(), Decimal(0))
    per_minute = max(2, round(options.rate * 60 * 0.16))

    def wish(name: str, limit: str, window: str, mode: str, **scope: str) -> BudgetWish:
        return BudgetWish(id=f"demo-{name}", scope=scope, limit=limit, window=window, mode=mode)

    return (
        wish("research-hour", _part(hour, "research", "0.6"), "hour", "hard", team="research"),
        wish("support-hour", _part(hour, "support", "1.08"), "hour", "soft", team="support"),
        wish("search-day", _part(hour, "search", "1.2"), "day", "observe", team="search"),
        wish("company-month", usd_limit(whole * _MONTH_HOURS), "month", "soft"),
        wish("crm-tokens", "50000000 tokens", "day", "soft", project="old-crm"),
        wish("triage-minute", f"{per_minute} requests", "minute", "hard", project="triage"),
    )


def _part(costs: Mapping[str, Decimal], team: str, part: str) -> str:
    return usd_limit(costs.get(team, Decimal(1)) * Decimal(part))


def planned_calls(options: Options) -> int | None:
    """Count the calls of a run, without retries.

    Args:
        options: What is played.

    Returns:
        How many; ``None`` where it goes on until it is stopped.
    """
    if options.days == 0:
        return options.calls_max
    return sum(len(list(calls)) for _, calls in _days(options))
