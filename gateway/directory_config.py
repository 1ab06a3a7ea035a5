"""What the configuration file says about teams, projects, keys and budgets, in directory terms.

Must never keep a secret: only its SHA-256.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.callers import secret_digest
from gateway.directory_model import BudgetEntry, Key, Project, Team
from gateway.settings import BudgetSettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """The read-only part of the directory.

    Attributes:
        organization: Id of the organisation everything belongs to.
        teams: By id. The next three likewise.
        projects: Of all teams.
        keys: Of all projects.
        budgets: All of them.
        digests: SHA-256 of each key's secret, by key id.
    """

    organization: str
    teams: Mapping[str, Team]
    projects: Mapping[str, Project]
    keys: Mapping[str, Key]
    budgets: Mapping[str, BudgetEntry]
    digests: Mapping[str, bytes]


def read_configured(settings: Settings) -> Configured:
    """Pick the directory out of the settings.

    Args:
        settings: Checked settings: ids are unique and references hold.

    Returns:
        Entities marked ``managed_by`` ``config``.
    """
    teams: dict[str, Team] = {}
    projects: dict[str, Project] = {}
    keys: dict[str, Key] = {}
    digests: dict[str, bytes] = {}
    for team in settings.teams:
        teams[team.id] = Team(id=team.id, name=team.name, tags=team.tags, managed_by="config")
        for project in team.projects:
            projects[project.id] = Project(
                id=project.id,
                team=team.id,
                name=project.name,
                tags=project.tags,
                managed_by="config",
            )
            for key in project.keys:
                keys[key.id] = Key(
                    id=key.id,
                    project=project.id,
                    models=key.models,
                    tags=key.tags,
                    expires_at=key.expires_at,
                    managed_by="config",
                )
                digests[key.id] = secret_digest(key.secret.get_secret_value())
    return Configured(
        organization=settings.organization,
        teams=MappingProxyType(teams),
        projects=MappingProxyType(projects),
        keys=MappingProxyType(keys),
        budgets=MappingProxyType({b.id: budget_entry(b) for b in settings.budgets}),
        digests=MappingProxyType(digests),
    )


def budget_entry(budget: BudgetSettings) -> BudgetEntry:
    """Put a budget as a file says it into directory terms.

    Args:
        budget: Checked.

    Returns:
        The same, marked ``managed_by`` ``config``.
    """
    return BudgetEntry(
        id=budget.id,
        scope=budget.scope,
        limit=budget.limit,
        window=budget.window,
        timezone=budget.timezone,
        mode=budget.mode.value,
        thresholds=budget.thresholds,
        on_store_down=budget.on_store_down,
        anchor=budget.anchor,
        rollover=budget.rollover,
        valid_from=budget.valid_from,
        valid_to=budget.valid_to,
        managed_by="config",
        actions=budget.actions,
    )
