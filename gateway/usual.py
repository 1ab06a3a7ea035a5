"""What calls of a model have used lately: the project's own, or of ever more people when too few.

Must never let a guess pass for history: where there is none, it says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from gateway.clock import epoch_us
from gateway.directory import Directory
from gateway.ledger.history import CallHistory, HistoryQuery
from pricing.book import ModelEntry
from pricing.meters import INPUT_METERS

HISTORY: Final = timedelta(days=30)
# Fewer calls than this say little about the next one, so more people's are asked.
RECORDS_MIN: Final = 20

Scope = Literal["project", "team", "organization", "model"]

_CACHED: Final = frozenset(meter for meter in INPUT_METERS if meter.value.startswith("cache_read"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What calls like the planned one have used.

    Attributes:
        scope: Whose calls they are.
        id: Id of the project, team or organisation; ``None`` for everybody's calls of the model.
        calls: What they used.
    """

    scope: Scope
    id: str | None
    calls: CallHistory

    @property
    def output_tokens(self) -> int:
        """Mean tokens of an answer, halves rounded up."""
        count = self.calls.records
        return (2 * sum(self.calls.output_counts.values()) + count) // (2 * count)

    @property
    def cached_percent(self) -> int:
        """Share of all input tokens that came out of a cache, halves rounded up."""
        whole = sum(self.calls.input_counts.values())
        cached = sum(n for meter, n in self.calls.input_counts.items() if meter in _CACHED)
        return (200 * cached + whole) // (2 * whole) if whole else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoHistory:
    """That nothing tells what is usual.

    Attributes:
        why: For people: what was looked at in vain, or why nothing was looked at.
    """

    why: str


def history_query(
    entry: ModelEntry,
    provider: str,
    priced_as: Mapping[str, str],
    now: datetime,
) -> HistoryQuery:
    """Ask for the lately made calls of a model, whoever made them.

    Args:
        entry: Its catalog entry.
        provider: Provider as the caller knows it.
        priced_as: Catalog provider by provider id of the configuration.
        now: End of the time looked at.

    Returns:
        The question for ``Queries.history``; every provider id that sells the model at the same
        prices and every name of it counts.
    """
    same = {name for name, catalog in priced_as.items() if catalog == entry.provider}
    return HistoryQuery(
        providers=frozenset({provider, entry.provider, *same}),
        models=frozenset({entry.model, *entry.aliases}),
        from_us=epoch_us(now - HISTORY),
        to_us=epoch_us(now),
    )


def find_team(directory: Directory, *, team: str | None, project: str | None) -> str | None:
    """Find the team that calls of a team or a project belong to.

    Args:
        directory: Knows the team of a project.
        team: Team id; ``None`` for that of the project.
        project: Project id.

    Returns:
        Team id; ``None`` where neither is named.

    Raises:
        NotFound: There is no such team or project.
        ValueError: The project is another team's.
        StoreUnavailable: The database cannot be reached.
    """
    if team is not None:
        directory.teams.load(team)
    if project is None:
        return team
    owner = directory.projects.load(project).team
    if team not in {None, owner}:
        raise ValueError(f"project {project} is of team {owner}, not {team}")
    return owner


def ask_for(
    query: HistoryQuery, directory: Directory, *, team: str | None, project: str | None
) -> HistoryQuery:
    """Narrow a question about history down to a team or a project.

    Args:
        query: About everybody's calls.
        directory: Knows the team of a project.
        team: Team id; ``None`` for that of the project.
        project: Project id.

    Returns:
        The same question about their calls.

    Raises:
        NotFound: As ``find_team``.
        ValueError: As ``find_team``.
        StoreUnavailable: As ``find_team``.
    """
    team = find_team(directory, team=team, project=project)
    organization = None if team is None else directory.organization
    return replace(query, organization=organization, team=team, project=project)


def find_usual(
    load: Callable[[HistoryQuery], CallHistory], nearest: HistoryQuery
) -> Usual | NoHistory:
    """Find what is usual, from the calls nearest to the planned one that are enough.

    Args:
        load: ``Queries.history``.
        nearest: Whose calls to ask for first, with every organisation above them that is known.

    Returns:
        The calls of the project; when they are fewer than ``RECORDS_MIN`` those of its team, of its
        organisation, at last everybody's of this model.
    """
    found: Usual | NoHistory = NoHistory(
        why=f"the ledger has no call of this model in the last {HISTORY.days} days"
    )
    for scope, id_, query in _widening(nearest):
        calls = load(query)
        if calls.records:
            found = Usual(scope=scope, id=id_, calls=calls)
        if calls.records >= RECORDS_MIN:
            break
    return found


def _widening(nearest: HistoryQuery) -> list[tuple[Scope, str | None, HistoryQuery]]:
    teams = replace(nearest, project=None)
    ours = replace(teams, team=None)
    steps: list[tuple[Scope, str | None, HistoryQuery]] = [
        ("project", nearest.project, nearest),
        ("team", nearest.team, teams),
        ("organization", nearest.organization, ours),
    ]
    widest = replace(ours, organization=None)
    return [step for step in steps if step[1] is not None] + [("model", None, widest)]
