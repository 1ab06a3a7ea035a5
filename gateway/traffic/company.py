"""Who works at the made-up company and when they call; the same seed makes the same calls.

Must never ask for the time or open a socket: a plan is a pure function of its seed.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final, Literal

DAY_S: Final = 86_400
_HOUR_S: Final = 3_600

Api = Literal["chat", "responses", "embeddings", "messages", "generate"]
Rhythm = Literal["office", "always", "night", "shops"]
Trouble = Literal["", "busy", "broken", "cut", "leaves"]

# Share of its busiest hour, by hour of the day.
_RHYTHMS: Final[Mapping[Rhythm, tuple[float, ...]]] = MappingProxyType(
    {
        "office": (0.03,) * 6
        + (0.1, 0.3, 0.7, 1, 1, 0.9, 0.6, 0.8, 1, 1, 0.9, 0.6, 0.3, 0.15, 0.1, 0.05, 0.05, 0.03),
        "always": (0.7,) * 8 + (1.0,) * 10 + (0.8,) * 6,
        "night": (1.0,) * 5 + (0.3,) + (0.02,) * 15 + (0.2, 0.6, 1.0),
        "shops": (0.15,) * 7
        + (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.8, 0.7, 0.7, 0.8, 0.9, 1, 1, 1, 0.9, 0.6, 0.3),
    }
)
_ANOMALY_HOURS: Final = (14.0, 15.5)
_ANOMALY_TIMES: Final = 10
_ANOMALY_TOKENS: Final = 4
_OUTPUT_MAX: Final = 4_096
_INPUT_MAX: Final = 60_000
# Of the calls of a workload with trouble; what is left ends well.
_TROUBLES: Final[tuple[tuple[Trouble, float], ...]] = (
    ("busy", 0.012),
    ("broken", 0.006),
    ("cut", 0.004),
    ("leaves", 0.008),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One application of one project.

    Attributes:
        project: Whose key it calls with.
        provider: Provider id.
        api: Which call it makes.
        model: Model it asks for.
        weight: Calls in its busiest hour, against those of the other workloads.
        rhythm: When it is busy.
        input: Typical tokens of a prompt.
        output: Typical tokens of an answer.
        cached: Share of the prompt that is read from a cache.
        written: Share of the prompt that is written to one.
        reasoning: Share of the output that is reasoning.
        streamed: Share of the calls that stream.
        users: How many people use it; 0 names none.
        feature: Tag of its calls; empty sends none.
    """

    project: str
    provider: str
    api: Api
    model: str
    weight: float
    rhythm: Rhythm
    input: int
    output: int
    cached: float = 0
    written: float = 0
    reasoning: float = 0
    streamed: float = 0
    users: int = 0
    feature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyProject:
    """A project of the company.

    Attributes:
        id: Its id.
        team: Id of its team.
        tags: Tags of all its calls; a project with none is what nobody has tagged yet.
    """

    id: str
    team: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyCall:
    """One call, before anybody makes it.

    Attributes:
        at_s: When, in seconds of the company's day.
        workload: Whose.
        input: Tokens of the prompt, caches included.
        cache_read: Of these, read from a cache.
        cache_write: Of these, written to one.
        output: Tokens of the answer, reasoning included.
        reasoning: Of these, reasoning.
        stream: Whether the answer is streamed.
        user: Who asked; empty for nobody.
        trouble: What goes wrong: ``busy`` and ``broken`` are errors of the provider, ``cut`` a
            stream that breaks off, ``leaves`` a caller that hangs up.
        is_anomaly: Whether it is one of those that should not be.
    """

    at_s: float
    workload: Workload
    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int
    stream: bool
    user: str
    trouble: Trouble
    is_anomaly: bool


PROJECTS: Final = (
    CompanyProject(id="rag", team="search", tags={"env": "prod", "cost_center": "cc-110"}),
    CompanyProject(id="indexing", team="search", tags={"env": "prod", "cost_center": "cc-110"}),
    CompanyProject(id="assistant", team="support", tags={"env": "prod", "cost_center": "cc-200"}),
    CompanyProject(id="triage", team="support", tags={"env": "prod", "cost_center": "cc-200"}),
    CompanyProject(id="agents", team="research", tags={"env": "dev", "cost_center": "cc-300"}),
    CompanyProject(id="evals", team="research", tags={"env": "dev", "cost_center": "cc-300"}),
    CompanyProject(id="copilot", team="platform", tags={"env": "prod", "cost_center": "cc-400"}),
    CompanyProject(
        id="house-model", team="platform", tags={"env": "staging", "cost_center": "cc-400"}
    ),
    CompanyProject(id="old-crm", team="sales", tags={}),
)

WORKLOADS: Final = (
    Workload(
        project="rag", provider="openai", api="chat", model="gpt-5-mini", weight=26,
        rhythm="shops", input=2_400, output=260, cached=0.45, reasoning=0.2, streamed=0.9,
        users=180, feature="answers",
    ),
    Workload(
        project="rag", provider="gemini", api="generate", model="gemini-2.5-flash", weight=12,
        rhythm="shops", input=1_800, output=40, cached=0.2, feature="rerank",
    ),
    Workload(
        project="indexing", provider="openai", api="embeddings", model="text-embedding-3-small",
        weight=30, rhythm="night", input=3_000, output=0, feature="index",
    ),
    Workload(
        project="assistant", provider="anthropic", api="messages", model="claude-sonnet-4-5",
        weight=14, rhythm="office", input=5_200, output=420, cached=0.7, written=0.1,
        streamed=0.95, users=60, feature="chat",
    ),
    Workload(
        project="triage", provider="mistral", api="chat", model="mistral-small-latest", weight=18,
        rhythm="always", input=700, output=60, feature="triage",
    ),
    Workload(
        project="agents", provider="openai", api="responses", model="gpt-5", weight=5,
        rhythm="office", input=4_500, output=900, cached=0.5, reasoning=0.6, streamed=0.5,
        users=12, feature="agents",
    ),
    Workload(
        project="evals", provider="gemini", api="generate", model="gemini-2.5-pro", weight=9,
        rhythm="night", input=1_500, output=500, reasoning=0.5, streamed=0.3, feature="evals",
    ),
    Workload(
        project="copilot", provider="anthropic", api="messages", model="claude-haiku-4-5",
        weight=22, rhythm="office", input=3_000, output=120, cached=0.6, written=0.15,
        streamed=0.8, users=90, feature="completion",
    ),
    Workload(
        project="house-model", provider="local", api="chat", model="house-13b", weight=3,
        rhythm="office", input=1_200, output=200, streamed=0.5, feature="pilot",
    ),
    Workload(
        project="old-crm", provider="openai", api="chat", model="gpt-4o-mini", weight=7,
        rhythm="office", input=900, output=150,
    ),
)  # fmt: skip

TEAMS: Final = tuple(dict.fromkeys(project.team for project in PROJECTS))
PROVIDERS: Final = tuple(dict.fromkeys(workload.provider for workload in WORKLOADS))
ANOMALY_PROJECT: Final = "agents"


def busyness(workload: Workload, at_s: float) -> float:
    """Tell how busy a workload is, without the anomaly.

    Args:
        workload: Any.
        at_s: Second of any day.

    Returns:
        Its weight at that moment, between two hours in proportion.
    """
    hours = _RHYTHMS[workload.rhythm]
    hour = at_s % DAY_S / _HOUR_S
    before = int(hour)
    part = hour - before
    share = hours[before] * (1 - part) + hours[(before + 1) % 24] * part
    return workload.weight * share


def is_anomalous(workload: Workload, at_s: float) -> bool:
    """Tell whether a workload runs wild just then.

    Args:
        workload: Any.
        at_s: Second of any day.

    Returns:
        True in the early afternoon of the agents, when one of them calls itself.
    """
    start, end = _ANOMALY_HOURS
    return workload.project == ANOMALY_PROJECT and start <= at_s % DAY_S / _HOUR_S < end


def plan_day(day: int, calls: int, seed: int) -> Iterator[CompanyCall]:
    """Plan one day.

    Args:
        day: Number of the day, from 0.
        calls: About how many calls the day has without the anomaly's.
        seed: The same one plans the same day.

    Yields:
        Its calls in order; ``at_s`` goes on from day to day.
    """
    random = Random(f"{seed}/{day}")  # noqa: S311 - a plan has to be repeatable
    minutes = range(0, DAY_S, 60)
    whole = sum(busyness(one, minute) for minute in minutes for one in WORKLOADS)
    for minute in minutes:
        found = []
        for workload in WORKLOADS:
            expected = calls * busyness(workload, minute) / whole
            is_anomaly = is_anomalous(workload, minute)
            count = _poisson(random, expected * (_ANOMALY_TIMES if is_anomaly else 1))
            starts = [day * DAY_S + minute + random.uniform(0, 60) for _ in range(count)]
            found += [_call(random, workload, at_s, is_anomaly) for at_s in starts]
        yield from sorted(found, key=lambda call: call.at_s)


def _poisson(random: Random, mean: float) -> int:
    if mean <= 0:
        return 0
    if mean > 50:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, random.random()
    while product > limit:
        count += 1
        product *= random.random()
    return count


def _call(random: Random, workload: Workload, at_s: float, is_anomaly: bool) -> CompanyCall:
    times = _ANOMALY_TOKENS if is_anomaly else 1
    asked = min(_INPUT_MAX, max(16, _about(random, workload.input * times)))
    said = 0 if not workload.output else min(_OUTPUT_MAX, max(1, _about(random, workload.output)))
    # A cache holds whole blocks, and not every call finds it warm.
    is_warm = random.random() < 0.8
    read = int(asked * workload.cached) // 128 * 128 if is_warm else 0
    share = workload.written if is_warm else min(0.8, workload.written * 5)
    stream = random.random() < workload.streamed
    user = f"u-{random.randrange(workload.users):03}" if workload.users else ""
    return CompanyCall(
        at_s=at_s,
        workload=workload,
        input=asked,
        cache_read=read,
        cache_write=int((asked - read) * share) if workload.written else 0,
        output=said,
        reasoning=int(said * workload.reasoning),
        stream=stream,
        user=user,
        trouble=_trouble(random, stream),
        is_anomaly=is_anomaly,
    )


def _about(random: Random, typical: int) -> int:
    return int(random.lognormvariate(math.log(typical), 0.5))


def _trouble(random: Random, stream: bool) -> Trouble:
    drawn = random.random()
    for trouble, share in _TROUBLES:
        if drawn < share:
            is_of_streams = trouble in {"cut", "leaves"}
            return trouble if stream or not is_of_streams else ""
        drawn -= share
    return ""
