"""A file of teams, projects, keys and budgets, and how the directory differs from it.

Must never hold the secret of a key: those are made by the gateway and shown once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from gateway.directory_config import budget_entry
from gateway.directory_model import BudgetEntry, Entity, Key, Project, Team
from gateway.settings_costs import Id
from gateway.settings_models import BudgetSettings, Tags
from gateway.settings_sources import Problem, TreePath, read_file

# What the directory keeps about an entity, beside what a file says.
_KEPT: Final = frozenset({"id", "managed_by", "created_at"})


class OrgFileBroken(ValueError):
    """The file cannot be used; the text lists everything wrong with it, with its lines."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _KeyPart(_Part):
    id: Id
    models: tuple[str, ...] = ("*",)
    tags: Tags = {}
    expires_at: AwareDatetime | None = None


class _ProjectPart(_Part):
    id: Id
    name: str | None = None
    tags: Tags = {}
    keys: tuple[_KeyPart, ...] = ()


class _TeamPart(_Part):
    id: Id
    name: str | None = None
    tags: Tags = {}
    projects: tuple[_ProjectPart, ...] = ()


class _OrgPart(_Part):
    organization: Id | None = None
    teams: tuple[_TeamPart, ...] = ()
    budgets: tuple[BudgetSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Org:
    """What a file says.

    Attributes:
        organization: Whose it is; ``None`` where it does not say.
        teams: In the order of the file. The next three likewise.
        projects: Of all teams.
        keys: Of all projects.
        budgets: All of them.
    """

    organization: str | None
    teams: tuple[Team, ...]
    projects: tuple[Project, ...]
    keys: tuple[Key, ...]
    budgets: tuple[BudgetEntry, ...]


def read_org(path: Path, environ: Mapping[str, str]) -> Org:
    """Read a file.

    Args:
        path: YAML.
        environ: For ``env:NAME``.

    Returns:
        What it says; ids are unique.

    Raises:
        OrgFileBroken: It cannot be read, or says what cannot be.
    """
    tree = read_file(path, environ)
    part = None
    if not tree.problems:
        try:
            part = _OrgPart.model_validate(tree.values)
        except ValidationError as broken:
            for error in broken.errors(include_url=False, include_input=False):
                tree.complain(tuple(error["loc"]), error["msg"])
    if part is not None:
        for noun, where, name in _repeats(part):
            tree.complain(where, f"{noun} {name!r} stands twice")
    if part is None or tree.problems:
        raise OrgFileBroken("\n".join(map(str, sorted(tree.problems, key=_place_of))))
    return _org_of(part)


def _place_of(problem: Problem) -> tuple[int, str]:
    return problem.line or 0, problem.path_in_file


def _repeats(part: _OrgPart) -> Iterator[tuple[str, TreePath, str]]:
    seen: set[tuple[str, str]] = set()
    for noun, where, name in _ids(part):
        if (noun, name) in seen:
            yield noun, where, name
        seen.add((noun, name))


def _ids(part: _OrgPart) -> Iterator[tuple[str, TreePath, str]]:
    for t, team in enumerate(part.teams):
        yield "team", ("teams", t, "id"), team.id
        for p, project in enumerate(team.projects):
            yield "project", ("teams", t, "projects", p, "id"), project.id
            for k, key in enumerate(project.keys):
                yield "key", ("teams", t, "projects", p, "keys", k, "id"), key.id
    for b, budget in enumerate(part.budgets):
        yield "budget", ("budgets", b, "id"), budget.id


def _org_of(part: _OrgPart) -> Org:
    teams, projects, keys = [], [], []
    for team in part.teams:
        teams.append(Team(id=team.id, name=team.name or team.id, tags=team.tags))
        for project in team.projects:
            name = project.name or project.id
            projects.append(Project(id=project.id, team=team.id, name=name, tags=project.tags))
            keys += [
                Key(
                    id=key.id,
                    project=project.id,
                    models=key.models,
                    tags=key.tags,
                    expires_at=key.expires_at,
                )
                for key in project.keys
            ]
    return Org(
        organization=part.organization,
        teams=tuple(teams),
        projects=tuple(projects),
        keys=tuple(keys),
        budgets=tuple(replace(budget_entry(one), managed_by="api") for one in part.budgets),
    )


def changed_fields(before: Entity, after: Entity) -> dict[str, tuple[Any, Any]]:
    """Compare what is with what a file says.

    Args:
        before: From the directory.
        after: From the file.

    Returns:
        Both values by field, where they differ.
    """
    names = [field.name for field in fields(after) if field.name not in _KEPT]
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
