"""Teams, projects, keys and budget definitions, and everything the directory can say no with.

Pure. Must never hold a key's secret.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, Literal, TypeVar

from gateway.budgets.rules import OnStoreDown
from gateway.tags import TAGS_MAX, name_problem, value_problem

ManagedBy = Literal["config", "api"]

ID_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
ID_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 200
MODELS_MAX: Final = 100
PATTERN_CHARS_MAX: Final = 200

# `$` also matches before a final newline; `fullmatch` does not.
_ID: Final = re.compile(ID_PATTERN.strip("^$"))


class DirectoryProblem(Exception):
    """The directory says no; nothing was changed.

    Attributes:
        noun: ``team``, ``project``, ``key`` or ``budget``.
        id: The entity asked for.
        reason: What is wrong and what would help, in one sentence.
    """

    def __init__(self, noun: str, id: str, reason: str) -> None:  # noqa: A002 - the field's name
        self.noun = noun
        self.id = id
        self.reason = reason
        super().__init__(f"{noun} {id}: {reason}")


class NotFound(DirectoryProblem):
    """There is no such entity."""


class Conflict(DirectoryProblem):
    """The id is taken, or something still depends on the entity."""


class ManagedByConfig(Conflict):
    """The entity comes from the configuration file, which is where it must be changed."""


class Invalid(DirectoryProblem):
    """A field has a value the entity cannot have.

    Attributes:
        field: Name of the field.
    """

    def __init__(self, noun: str, id: str, field: str, reason: str) -> None:  # noqa: A002
        super().__init__(noun, id, reason)
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team.

    Attributes:
        id: Unique among teams.
        name: For people.
        tags: Tags every call of the team carries unless something more specific says otherwise.
        managed_by: Where it can be changed.
        created_at: When the API made it; ``None`` for one from the configuration file.
    """

    id: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    managed_by: ManagedBy = "api"
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project of a team.

    Attributes:
        id: Unique among projects, whatever their team.
        team: Team that bears its cost.
        name: For people.
        tags: Overlay the team's.
        managed_by: Where it can be changed.
        created_at: When the API made it; ``None`` for one from the configuration file.
    """

    id: str
    team: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    managed_by: ManagedBy = "api"
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A virtual key, without its secret.

    Attributes:
        id: Unique among keys, including revoked ones.
        project: Project its calls belong to.
        models: Glob patterns of what it may call: ``provider/model`` or a bare model.
        tags: Overlay the project's.
        expires_at: First instant it no longer works; ``None`` for never.
        managed_by: Where it can be changed.
        created_at: When the API made it; ``None`` for one from the configuration file.
    """

    id: str
    project: str
    models: tuple[str, ...] = ("*",)
    tags: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None
    managed_by: ManagedBy = "api"
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetEntry:
    """A budget as people write it.

    Attributes:
        id: Unique among budgets.
        scope: Whom it limits; all parts must match.
        limit: Text such as ``500 USD``.
        window: Text such as ``month`` or ``rolling:3600``.
        timezone: IANA zone the window's borders lie in.
        mode: ``hard``, ``soft`` or ``observe``.
        thresholds: Percentages of the limit that raise an alert.
        on_store_down: Whether calls go on where the store that workers share cannot be asked.
        anchor: Where windows begin, such as ``2026-01-31T09:00:00``; else the calendar's own.
        rollover: Whether a window takes over what the one before left, or the most it takes over.
        valid_from: First instant whose calls count; ``None`` for any.
        valid_to: First instant whose calls count no longer; ``None`` for never.
        managed_by: Where it can be changed.
        created_at: When the API made it; ``None`` for one from the configuration file.
        actions: Texts such as ``warn`` or ``fallback:openai/gpt-5-mini``.
    """

    id: str
    scope: Mapping[str, str]
    limit: str
    window: str
    timezone: str = "UTC"
    mode: str = "hard"
    thresholds: tuple[int, ...] = ()
    on_store_down: OnStoreDown | None = None
    anchor: str | None = None
    rollover: bool | str = False
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    managed_by: ManagedBy = "api"
    created_at: datetime | None = None
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUpEntry:
    """An amount that was added to one window of a budget.

    Attributes:
        id: Unique.
        budget: Id of the budget.
        amount: Text such as ``100 USD``.
        reason: Why.
        actor: Who added it.
        created_at: When.
        window_start: First instant of the window.
        window_end: First instant after it; ``None`` when it never ends.
    """

    id: str
    budget: str
    amount: str
    reason: str
    actor: str
    created_at: datetime
    window_start: datetime
    window_end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUpPage:
    """One page of what was added to a budget.

    Attributes:
        items: The oldest first.
        next_cursor: Where the next page starts; ``None`` on the last one.
    """

    items: tuple[TopUpEntry, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A new key with its secret, which is shown once and kept nowhere.

    Attributes:
        key: The key.
        secret: What clients send.
    """

    key: Key
    secret: str = field(repr=False)


Entity = Team | Project | Key | BudgetEntry
E = TypeVar("E", bound=Entity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[E]):
    """One page of a list.

    Attributes:
        items: In order of their ids.
        next_cursor: Where the next page starts; ``None`` on the last one.
    """

    items: tuple[E, ...]
    next_cursor: str | None


def check_entity(noun: str, entity: Entity) -> None:
    """Refuse an entity with a field it cannot have.

    Args:
        noun: What it is, for the message.
        entity: Any entity. Of a budget only what it shares with the others is looked at.

    Raises:
        Invalid: Naming the first bad field.
    """
    for name, reason in _field_problems(entity):
        if reason is not None:
            raise Invalid(noun, entity.id[:ID_CHARS_MAX], name, reason)


def _field_problems(entity: Entity) -> list[tuple[str, str | None]]:
    problems = [("id", id_problem(entity.id))]
    if isinstance(entity, Team | Project):
        problems.append(("name", _text_problem(entity.name, NAME_CHARS_MAX)))
    if isinstance(entity, Team | Project | Key):
        problems.append(("tags", tags_problem(entity.tags)))
    if isinstance(entity, Key):
        problems.append(("models", _models_problem(entity.models)))
        if entity.expires_at is not None and entity.expires_at.tzinfo is None:
            problems.append(("expires_at", "needs a time zone, such as a final Z"))
    return problems


def id_problem(text: str) -> str | None:
    """Say what is wrong with an id.

    Args:
        text: Any text.

    Returns:
        One sentence, or ``None`` when it can be an id.
    """
    if _ID.fullmatch(text):
        return None
    return (
        f"an id has 1 to {ID_CHARS_MAX} lower-case letters, digits, '.', '_' or '-' "
        "and starts with a letter or digit"
    )


def tags_problem(tags: Mapping[str, str]) -> str | None:
    """Say what is wrong with a set of tags.

    Args:
        tags: Value by name.

    Returns:
        One sentence, or ``None`` when all are fine.
    """
    if len(tags) > TAGS_MAX:
        return f"{len(tags)} tags; at most {TAGS_MAX} fit"
    for name, value in tags.items():
        problem = name_problem(name) or value_problem(value)
        if problem is not None:
            return f"{name[:ID_CHARS_MAX]!r}: {problem}"
    return None


def _models_problem(models: tuple[str, ...]) -> str | None:
    if not 1 <= len(models) <= MODELS_MAX:
        return f'name 1 to {MODELS_MAX} patterns; "*" allows every model'
    for pattern in models:
        problem = _text_problem(pattern, PATTERN_CHARS_MAX)
        if problem is not None:
            return problem
    return None


def _text_problem(text: str, chars_max: int) -> str | None:
    if not 1 <= len(text) <= chars_max:
        return f"has 1 to {chars_max} characters, not {len(text)}"
    if not text.isprintable():
        return "has printable characters only"
    return None
