"""The directory as rows: one shelf for each noun, with the configuration file's entities on top.

Must never decide what a change means; ``gateway.directory`` does. Must never read a secret.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, collate, select, true
from sqlalchemy.dialects import postgresql, sqlite

from gateway.clock import epoch_us, from_epoch_us
from gateway.directory_model import (
    ID_CHARS_MAX,
    BudgetEntry,
    Conflict,
    E,
    Entity,
    Key,
    ManagedByConfig,
    NotFound,
    Page,
    Project,
    Team,
    id_problem,
)
from gateway.tables import budgets, directory_version, keys, projects, teams

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf(Generic[E]):
    """Where the entities of one noun are kept.

    Attributes:
        noun: What they are, for messages and the audit.
        table: Those made over the API.
        live: The rows that count; a revoked key's does not.
        configured: Those of the configuration file; they win over a row of the same id.
        from_row: Reads an entity.
        to_row: Writes one, without ``created_at_us``.
    """

    noun: str
    table: Table
    live: ColumnElement[bool]
    configured: Mapping[str, E]
    from_row: Callable[[RowMapping], E]
    to_row: Callable[[E], Row]

    def page(self, connection: Connection, limit: int, cursor: str | None) -> Page[E]:
        """Read one page.

        Args:
            connection: Any.
            limit: Most items.
            cursor: ``next_cursor`` of the page before; ``None`` for the first.

        Returns:
            The page, configured entities and rows in one order.
        """
        after = cursor or ""
        # A database's own collation may skip punctuation; pages need the order Python sorts in.
        name = "C" if connection.dialect.name == "postgresql" else "BINARY"
        ordered = collate(self.table.c.id, name)
        query = (
            select(self.table)
            .where(self.live, ordered > after, self.table.c.id.not_in(list(self.configured)))
            .order_by(ordered)
            .limit(limit + 1)
        )
        found = [self.from_row(row) for row in connection.execute(query).mappings()]
        found += [entity for id_, entity in self.configured.items() if id_ > after]
        found.sort(key=lambda entity: entity.id)
        is_last = len(found) <= limit
        return Page(
            items=tuple(found[:limit]), next_cursor=None if is_last else found[limit - 1].id
        )

    def load_all(self, connection: Connection) -> dict[str, E]:
        """Read everything there is.

        Args:
            connection: Any.

        Returns:
            Entities by id.
        """
        rows = connection.execute(select(self.table).where(self.live)).mappings()
        return {**{row["id"]: self.from_row(row) for row in rows}, **self.configured}

    def load(self, connection: Connection, id: str) -> E:  # noqa: A002 - the field's name
        """Read one.

        Args:
            connection: Any.
            id: Its id.

        Returns:
            The entity.

        Raises:
            NotFound: There is none.
        """
        if id in self.configured:
            return self.configured[id]
        if id_problem(id) is not None:
            raise NotFound(self.noun, id[:ID_CHARS_MAX], f"no {self.noun} can have this id")
        query = select(self.table).where(self.live, self.table.c.id == id)
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound(self.noun, id, f"there is no {self.noun} {id}")
        return self.from_row(row)

    def load_changeable(self, connection: Connection, id: str) -> E:  # noqa: A002
        """Read one that is about to be changed.

        Args:
            connection: Any.
            id: Its id.

        Returns:
            The entity, which is a row.

        Raises:
            ManagedByConfig: It comes from the configuration file.
            NotFound: There is none.
        """
        if id in self.configured:
            raise ManagedByConfig(
                self.noun,
                id,
                f"the {self.noun} {id} comes from the configuration file; change it there",
            )
        return self.load(connection, id)

    def add(self, connection: Connection, entity: E, at_us: int, **more: object) -> E:
        """Insert a new one.

        Args:
            connection: In a transaction that holds the directory's lock.
            entity: The new one.
            at_us: When, microseconds since 1970.
            more: Columns the entity does not show.

        Returns:
            The entity as read back.

        Raises:
            Conflict: The id is taken.
        """
        taken = (
            entity.id in self.configured
            or connection.execute(
                select(self.table.c.id).where(self.table.c.id == entity.id)
            ).first()
        )
        if taken:
            raise Conflict(
                self.noun, entity.id, f"the id {entity.id} is taken by another {self.noun}"
            )
        row = {**self.to_row(entity), "created_at_us": at_us, **more}
        connection.execute(self.table.insert().values(row))
        return self.load(connection, entity.id)

    def replace(self, connection: Connection, entity: E) -> E:
        """Overwrite one that exists.

        Args:
            connection: In a transaction that holds the directory's lock.
            entity: Its new state.

        Returns:
            The entity as read back.
        """
        change = self.table.update().where(self.table.c.id == entity.id)
        connection.execute(change.values(self.to_row(entity)))
        return self.load(connection, entity.id)


def lock_and_bump(connection: Connection) -> None:
    """Count a change, and keep every other change waiting until this transaction ends.

    As the first statement of a transaction it takes SQLite's write lock and, on PostgreSQL, the
    lock of the one row every change writes; so what is read after it stays true until the commit.

    Args:
        connection: At the start of a transaction.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    first = insert(directory_version).values(id=1, version=1)
    connection.execute(
        first.on_conflict_do_update(
            index_elements=["id"], set_={"version": directory_version.c.version + 1}
        )
    )


def team_shelf(configured: Mapping[str, Team]) -> Shelf[Team]:
    """Make the shelf of teams.

    Args:
        configured: Teams of the configuration file by id.

    Returns:
        The shelf.
    """
    return Shelf(
        noun="team",
        table=teams,
        live=true(),
        configured=configured,
        from_row=_team_from_row,
        to_row=lambda team: {"id": team.id, "name": team.name, "tags": dict(team.tags)},
    )


def project_shelf(configured: Mapping[str, Project]) -> Shelf[Project]:
    """Make the shelf of projects.

    Args:
        configured: Projects of the configuration file by id.

    Returns:
        The shelf.
    """
    return Shelf(
        noun="project",
        table=projects,
        live=true(),
        configured=configured,
        from_row=_project_from_row,
        to_row=lambda project: {
            "id": project.id,
            "team": project.team,
            "name": project.name,
            "tags": dict(project.tags),
        },
    )


def key_shelf(configured: Mapping[str, Key]) -> Shelf[Key]:
    """Make the shelf of keys.

    Args:
        configured: Keys of the configuration file by id.

    Returns:
        The shelf; revoked keys are not on it, but their ids stay taken.
    """
    return Shelf(
        noun="key",
        table=keys,
        live=keys.c.revoked_at_us.is_(None),
        configured=configured,
        from_row=_key_from_row,
        to_row=lambda key: {
            "id": key.id,
            "project": key.project,
            "models": list(key.models),
            "tags": dict(key.tags),
            "expires_at_us": None if key.expires_at is None else epoch_us(key.expires_at),
        },
    )


def budget_shelf(configured: Mapping[str, BudgetEntry]) -> Shelf[BudgetEntry]:
    """Make the shelf of budgets.

    Args:
        configured: Budgets of the configuration file by id.

    Returns:
        The shelf.
    """
    return Shelf(
        noun="budget",
        table=budgets,
        live=true(),
        configured=configured,
        from_row=_budget_from_row,
        to_row=lambda budget: {"id": budget.id, "definition": _definition(budget)},
    )


def to_audit(entity: Entity) -> dict[str, Any]:
    """Write an entity for the audit.

    Args:
        entity: Any entity.

    Returns:
        Its fields as JSON values. No entity holds a secret.
    """
    match entity:
        case Team():
            return {"name": entity.name, "tags": dict(entity.tags)}
        case Project():
            return {"team": entity.team, "name": entity.name, "tags": dict(entity.tags)}
        case Key():
            return {
                "project": entity.project,
                "models": list(entity.models),
                "tags": dict(entity.tags),
                "expires_at": None if entity.expires_at is None else entity.expires_at.isoformat(),
            }
        case BudgetEntry():
            return _definition(entity)


def _team_from_row(row: RowMapping) -> Team:
    return Team(
        id=row["id"],
        name=row["name"],
        tags=row["tags"],
        created_at=from_epoch_us(row["created_at_us"]),
    )


def _project_from_row(row: RowMapping) -> Project:
    return Project(
        id=row["id"],
        team=row["team"],
        name=row["name"],
        tags=row["tags"],
        created_at=from_epoch_us(row["created_at_us"]),
    )


def _key_from_row(row: RowMapping) -> Key:
    expires_at_us = row["expires_at_us"]
    return Key(
        id=row["id"],
        project=row["project"],
        models=tuple(row["models"]),
        tags=row["tags"],
        expires_at=None if expires_at_us is None else from_epoch_us(expires_at_us),
        created_at=from_epoch_us(row["created_at_us"]),
    )


def _budget_from_row(row: RowMapping) -> BudgetEntry:
    definition = row["definition"]
    return BudgetEntry(
        id=row["id"],
        scope=definition["scope"],
        limit=definition["limit"],
        window=definition["window"],
        timezone=definition["timezone"],
        mode=definition["mode"],
        thresholds=tuple(definition["thresholds"]),
        on_store_down=definition.get("on_store_down"),
        # Budgets made before these were known say nothing of them.
        anchor=definition.get("anchor"),
        rollover=definition.get("rollover", False),
        valid_from=_instant(definition.get("valid_from")),
        valid_to=_instant(definition.get("valid_to")),
        created_at=from_epoch_us(row["created_at_us"]),
        # Budgets that were written before there were actions have none.
        actions=tuple(definition.get("actions", ())),
    )


def _definition(budget: BudgetEntry) -> dict[str, Any]:
    return {
        "scope": dict(budget.scope),
        "limit": budget.limit,
        "window": budget.window,
        "timezone": budget.timezone,
        "mode": budget.mode,
        "thresholds": list(budget.thresholds),
        "actions": list(budget.actions),
        "on_store_down": budget.on_store_down,
        "anchor": budget.anchor,
        "rollover": budget.rollover,
        "valid_from": None if budget.valid_from is None else budget.valid_from.isoformat(),
        "valid_to": None if budget.valid_to is None else budget.valid_to.isoformat(),
    }


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
