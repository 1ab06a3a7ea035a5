"""What goes wrong and when, drawn from a seed: pure, so that a seed always means the same.

Must never draw what cannot happen, such as starting a database that runs.
"""

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

Database = Literal["sqlite", "postgres"]
Fsync = Literal["normal", "full"]


class Act(Enum):
    """One thing that goes wrong, or comes right again."""

    KILL_WORKER = "kill a worker"
    KILL_SUPERVISOR = "kill the supervisor"
    KILL_ALL = "kill every process"
    STOP = "SIGTERM"
    RENEW = "SIGHUP"
    RESIZE = "SIGTERM, and another number of workers"
    DATABASE_DOWN = "database down"
    DATABASE_UP = "database up"
    REDIS_DOWN = "redis down"
    REDIS_UP = "redis up, empty"
    REDIS_EMPTY = "redis emptied"
    DISK_FULL = "disk full"
    DISK_FREE = "disk free"
    FREEZE_WORKER = "freeze a worker"
    THAW_WORKER = "thaw it"
    CLOCK = "clock jumps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One act, after so many calls.

    Attributes:
        calls: How many calls are answered before it.
        act: What happens.
        which: Between 0 and 1: which worker.
        seconds: How far the clock jumps.
    """

    calls: int
    act: Act
    which: float = 0.0
    seconds: int = 0

    def __str__(self) -> str:
        """Write it for a person."""
        by = f" {self.seconds:+d} s" if self.act is Act.CLOCK else ""
        return f"after {self.calls}: {self.act.value}{by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a seed decides.

    Attributes:
        seed: The seed.
        workers: ``server.workers`` at first.
        database: Which ledger.
        fsync: ``storage.fsync``.
        has_redis: Whether budgets are shared over Redis.
        steps: What happens, in order.
    """

    seed: int
    workers: int
    database: Database
    fsync: Fsync
    has_redis: bool
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """Write it for a person."""
        parts = [f"{self.workers} workers", self.database, f"fsync {self.fsync}"]
        parts += ["redis"] if self.has_redis else []
        return f"seed {self.seed}: {', '.join(parts)}\n  " + "\n  ".join(map(str, self.steps))


# Whatever has begun ends with its partner; in between other things may happen.
ENDS: Final = {
    Act.DATABASE_DOWN: Act.DATABASE_UP,
    Act.REDIS_DOWN: Act.REDIS_UP,
    Act.DISK_FULL: Act.DISK_FREE,
    Act.FREEZE_WORKER: Act.THAW_WORKER,
}
_FOR_SEVERAL: Final = frozenset({Act.KILL_SUPERVISOR, Act.RENEW})
_FOR_REDIS: Final = frozenset({Act.REDIS_DOWN, Act.REDIS_EMPTY, Act.RESIZE})
_WEIGHTS: Final = {
    Act.KILL_WORKER: 5,
    Act.KILL_SUPERVISOR: 2,
    Act.KILL_ALL: 2,
    Act.STOP: 2,
    Act.RENEW: 2,
    Act.RESIZE: 2,
    Act.DATABASE_DOWN: 4,
    Act.REDIS_DOWN: 3,
    Act.REDIS_EMPTY: 2,
    Act.DISK_FULL: 4,
    Act.FREEZE_WORKER: 3,
    Act.CLOCK: 3,
}
# How many calls are answered before the next act.
_CALLS: Final = (5, 20, 60, 150)
JUMPS_S: Final = (-7200, -3600, -61, -2, 2, 61, 3600, 7200)


def plan_of(seed: int, steps: int = 8) -> Plan:
    """Draw a plan.

    Args:
        seed: The seed.
        steps: How many acts, not counting those that end what is still wrong at last.

    Returns:
        The same plan for the same arguments, always.
    """
    chance = random.Random(seed)
    workers = chance.choice((1, 2, 2))
    has_redis = workers > 1 or chance.random() < 0.5
    database: Database = chance.choice(("sqlite", "postgres"))
    fsync: Fsync = chance.choice(("normal", "normal", "full"))
    wrong: list[Act] = []
    drawn = []
    for _ in range(steps):
        act = _draw(chance, wrong, workers=workers, has_redis=has_redis)
        drawn.append(
            Step(
                calls=chance.choice(_CALLS),
                act=act,
                which=chance.random(),
                seconds=chance.choice(JUMPS_S),
            )
        )
    drawn += [Step(calls=20, act=ENDS[act]) for act in wrong]
    return Plan(
        seed=seed,
        workers=workers,
        database=database,
        fsync=fsync,
        has_redis=has_redis,
        steps=tuple(drawn),
    )


def _draw(chance: random.Random, wrong: list[Act], *, workers: int, has_redis: bool) -> Act:
    """Draw what can happen now; keeps the list of what is wrong."""
    if wrong and chance.random() < 0.45:
        return ENDS[wrong.pop(chance.randrange(len(wrong)))]
    can = [
        act
        for act in _WEIGHTS
        if act not in wrong
        and (workers > 1 or act not in _FOR_SEVERAL)
        and (has_redis or act not in _FOR_REDIS)
        and not (act is Act.REDIS_EMPTY and Act.REDIS_DOWN in wrong)
    ]
    act = chance.choices(can, [_WEIGHTS[one] for one in can])[0]
    if act in ENDS:
        wrong.append(act)
    return act
