"""One seed from its plan to its verdict.

Must never judge before everything is up again and has come to rest.
"""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.chaos.load import PATH, Load, answer
from tests.chaos.schedule import Plan
from tests.chaos.verdict import Seen, missing, problems_of_budgets, problems_of_records
from tests.chaos.world import BUDGETS, LIMITS, World, open_world
from tests.postgres import PostgresServer
from tests.server import BudgetView, Gateway, Record
from tests.upstream import ScriptedUpstream

# How long calls may be slow, or not answered at all, before the next thing goes wrong all the same.
_STEP_S_MAX: Final = 2.0
_DOWN_S_MAX: Final = 6.0
_REST_S_MAX: Final = 45.0
_PAUSE: Final = threading.Event()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a seed.

    Attributes:
        plan: What happened.
        problems: What is wrong afterwards; empty where nothing is.
        told: What clients were told, and how often.
        reached: How many calls reached the provider.
        aborted: How many records are of calls that were open when a process died.
        seconds: How long it took.
        said: What the gateway wrote to standard error, where something is wrong.
        has_clock: Whether its clock could be moved.
    """

    plan: Plan
    problems: tuple[str, ...]
    told: Counter[str]
    reached: int
    aborted: int
    seconds: float
    said: str
    has_clock: bool


def _say_nothing(_: str) -> None:
    pass


def run_seed(
    plan: Plan, folder: Path, postgres: PostgresServer, tell: Callable[[str], None] = _say_nothing
) -> Outcome:
    """Let a plan happen under load, and compare everything afterwards.

    Args:
        plan: The plan.
        folder: Empty.
        postgres: A server, for plans that need one.
        tell: Told what is done, as it is done.

    Returns:
        What became of it.
    """
    began_s = time.monotonic()

    def note(what: object) -> None:
        tell(f"{time.monotonic() - began_s:6.1f} s  {what}")

    with (
        ScriptedUpstream(answer) as upstream,
        open_world(plan, folder, upstream, postgres) as world,
    ):
        load = Load(world.gateway.url, plan.seed)
        load.start()
        try:
            for step in plan.steps:
                load.wait_for(step.calls, _STEP_S_MAX, _DOWN_S_MAX)
                note(step)
                world.do(step)
            load.wait_for(30, _STEP_S_MAX, _DOWN_S_MAX)
        finally:
            world.thaw()
            load.stop()
        note("no more calls")
        seen, problems = _judge(world, load, note)
        return Outcome(
            plan=plan,
            problems=tuple(problems),
            told=load.told(),
            reached=len(seen.reached),
            aborted=sum(record["outcome"] == "aborted" for record in seen.records),
            seconds=time.monotonic() - began_s,
            said=world.gateway.errors() if problems else "",
            has_clock=world.clock.is_there,
        )


def _judge(world: World, load: Load, note: Callable[[object], None]) -> tuple[Seen, list[str]]:
    gateway = world.gateway
    seen = Seen(heard=load.heard, reached=(), records=())
    try:
        _wait_until(gateway.is_ready, "the gateway to be ready")
        note("ready")
        seen = _at_rest(world, load)
        note("all records are there")
        problems = problems_of_records(seen)
        problems += _budget_problems(gateway, seen)
        note("budgets have been looked at")
        problems += _after_a_restart(world, load, problems)
        note("once more, after a restart")
    except (AssertionError, httpx.TransportError) as stuck:
        return seen, [f"it does not come to rest: {stuck}"]
    verified = gateway.run("ledger", "verify")
    if verified.returncode != 0:
        problems.append(f"ledger verify: {verified.stdout}{verified.stderr}")
    return seen, problems


def _after_a_restart(world: World, load: Load, before: list[str]) -> list[str]:
    """Stop in order and start again: what was right must still be."""
    if before:
        return []
    gateway = world.gateway
    old = gateway.running_pid()
    gateway.ask_to_stop()
    _wait_until(lambda: gateway.running_pid() not in {old, None}, "the stop")
    _wait_until(gateway.is_ready, "the gateway to be ready again")
    seen = _at_rest(world, load)
    found = problems_of_records(seen) + _budget_problems(gateway, seen)
    return [f"after a restart: {problem}" for problem in found]


def _at_rest(world: World, load: Load) -> Seen:
    """Wait until no call is open and every one that reached the provider has its record."""

    def look() -> Seen:
        reached = [one.received.json()["metadata"]["call"] for one in world.upstream.exchanges]
        return Seen(heard=load.heard, reached=reached, records=_records(world.gateway))

    seen: list[Seen] = []

    def is_complete() -> bool:
        with contextlib.suppress(httpx.TransportError):
            seen[:] = [look()]
            return not missing(seen[0])
        return False

    with contextlib.suppress(_TooLate):
        _wait_until(is_complete, "every record")
    return seen[0] if seen else look()


def _records(gateway: Gateway) -> list[Record]:
    """Read the whole ledger, once all that is journalled has come there.

    After a clock has jumped back the newest record is not the last one, so all are looked at.
    """
    barrier = gateway.call(PATH, b"barrier", key="sk-tm-nobody")
    wanted = barrier.headers["x-taximeter-request-id"]
    records: list[Record] = []

    def has_come() -> bool:
        shown = gateway.admin.get("/ledger", headers={"accept": "application/x-ndjson"})
        assert shown.status_code == 200, shown.text
        records[:] = [json.loads(line) for line in shown.text.splitlines() if line]
        return any(record["id"] == wanted for record in records)

    _wait_until(has_come, "the ledger to catch up with the journal")
    return records


def _budget_problems(gateway: Gateway, seen: Seen) -> list[str]:
    """Look until counters agree with the ledger; tells what is wrong when they never do."""
    problems: list[str] = []

    def agrees() -> bool:
        problems[:] = problems_of_budgets(_views(gateway), seen, LIMITS)
        return not problems

    with contextlib.suppress(_TooLate):
        _wait_until(agrees, "budgets to agree")
    return problems


def _views(gateway: Gateway) -> dict[str, BudgetView]:
    return {budget["id"]: gateway.budget(budget["id"]) for budget in BUDGETS}


class _TooLate(AssertionError):
    """Something did not become true in time."""


def _wait_until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _REST_S_MAX
    while not check():
        if time.monotonic() > deadline:
            raise _TooLate(f"waited {_REST_S_MAX} s for {what}")
        _PAUSE.wait(0.05)
