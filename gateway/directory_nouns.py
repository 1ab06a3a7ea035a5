"""Making, changing and deleting teams, projects, keys and budgets, each with its audit row.

Must never keep a key's secret after it was issued, and never change what the configuration says.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic

from sqlalchemy import Connection, Engine, insert, null, select, update

from gateway.budgets.rules import Budget, TopUp, budget_from_config, window_of
from gateway.budgets.windows import RollingWindow, TotalWindow
from gateway.callers import secret_digest
from gateway.clock import Clock, epoch_us, from_epoch_us
from gateway.directory_model import (
    BudgetEntry,
    Conflict,
    E,
    Entity,
    Invalid,
    IssuedKey,
    Key,
    NotFound,
    Page,
    Project,
    Team,
    check_entity,
)
from gateway.directory_rows import Shelf, lock_and_bump, to_audit
from gateway.ids import IdSource
from gateway.ledger.store import reading, store_errors
from gateway.tables import audit, keys, projects

SECRET_PREFIX: Final = "sk-tm-"  # noqa: S105 - what secrets start with
PAGE_DEFAULT: Final = 100
_SECRET_BYTES: Final = 32
Audited = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One transaction that changes the directory; it holds the directory's lock.

    Attributes:
        connection: In the transaction.
        at_us: When, microseconds since 1970.
        actor: Who does it.
        ids: For audit rows.
    """

    connection: Connection
    at_us: int
    actor: str
    ids: IdSource

    def note(self, action: str, noun: str, states: tuple[Entity | None, Entity | None]) -> None:
        """Write the audit row.

        Args:
            action: ``create``, ``update`` or ``delete``.
            noun: What was changed.
            states: Before and after; ``None`` where there is no such state.
        """
        before, after = (None if state is None else to_audit(state) for state in states)
        name = next(state.id for state in states if state is not None)
        self.write(action, noun, name, (before, after))

    def write(
        self, action: str, noun: str, name: str, states: tuple[Audited | None, Audited | None]
    ) -> None:
        """Write the audit row of what is no entity.

        Args:
            action: What was done.
            noun: Of what.
            name: Its id.
            states: Before and after, as JSON values; ``None`` where there is no such state.
        """
        before, after = states
        row = {
            "id": self.ids.mint(self.at_us // 1000),
            "at_us": self.at_us,
            "actor": self.actor,
            "action": action,
            "noun": noun,
            "noun_id": name,
            "before": null() if before is None else before,
            "after": null() if after is None else after,
        }
        self.connection.execute(insert(audit).values(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every change needs.

    Attributes:
        engine: Of the database.
        clock: For when things are made and changed.
        ids: For audit rows.
    """

    engine: Engine
    clock: Clock
    ids: IdSource

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the directory throughout.

        Yields:
            Its connection.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), reading(self.engine).connect() as connection:
            yield connection

    @contextmanager
    def change(self, actor: str) -> Iterator[Change]:
        """Open a transaction, and keep every other change waiting until it ends.

        Args:
            actor: Who does it, for the audit.

        Yields:
            The change, committed at the end and undone by any exception.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self.engine.begin() as connection:
            lock_and_bump(connection)
            at_us = epoch_us(self.clock.now())
            yield Change(connection=connection, at_us=at_us, actor=actor, ids=self.ids)


class Nouns(Generic[E]):
    """Entities of one noun. Every method waits for the database: call it from a thread."""

    def __init__(self, shelf: Shelf[E], desk: Desk) -> None:
        """Open a shelf.

        Args:
            shelf: Where the entities are.
            desk: What changes need.
        """
        self._shelf: Shelf[E] = shelf
        self._desk = desk

    def page(self, limit: int = PAGE_DEFAULT, cursor: str | None = None) -> Page[E]:
        """Read one page, ordered by id.

        Args:
            limit: Most items.
            cursor: ``next_cursor`` of the page before; ``None`` for the first.

        Returns:
            The page.
        """
        with self._desk.read() as connection:
            return self._shelf.page(connection, limit, cursor)

    def load(self, id: str) -> E:  # noqa: A002 - the field's name, here and below
        """Read one.

        Args:
            id: Its id.

        Returns:
            The entity.

        Raises:
            NotFound: There is none.
        """
        with self._desk.read() as connection:
            return self._shelf.load(connection, id)

    def update(self, id: str, fields: Mapping[str, Any], *, actor: str) -> E:  # noqa: A002
        """Change one.

        Args:
            id: Its id.
            fields: New values by field name. What an entity belongs to cannot change: reports
                and budgets rest on it.
            actor: Who does it, for the audit.

        Returns:
            The entity as kept.

        Raises:
            NotFound: There is none.
            ManagedByConfig: It comes from the configuration file.
            Invalid: A field has a value it cannot have.
        """
        with self._desk.change(actor) as change:
            before = self._shelf.load_changeable(change.connection, id)
            after = self._completed(change, replace(before, **fields))
            check_entity(self._shelf.noun, after)
            self._check_update(change.connection, before, after)
            kept = self._shelf.replace(change.connection, after)
            change.note("update", self._shelf.noun, (before, kept))
        return kept

    def delete(self, id: str, *, actor: str) -> None:  # noqa: A002
        """Delete one that nothing depends on. A key is revoked for good: its id stays taken.

        Args:
            id: Its id.
            actor: Who does it, for the audit.

        Raises:
            NotFound: There is none.
            ManagedByConfig: It comes from the configuration file.
            Conflict: A team still has a project, or a project a key that works.
        """
        with self._desk.change(actor) as change:
            before = self._shelf.load_changeable(change.connection, id)
            self._remove(change, id)
            change.note("delete", self._shelf.noun, (before, None))

    def _add(self, change: Change, entity: E, **more: object) -> E:
        check_entity(self._shelf.noun, entity)
        self._check_new(change.connection, entity)
        made = self._shelf.add(change.connection, entity, change.at_us, **more)
        change.note("create", self._shelf.noun, (None, made))
        return made

    def _completed(self, change: Change, entity: E) -> E:
        """Fill in what follows from the moment of a change."""
        return entity

    def _check_new(self, connection: Connection, entity: E) -> None:
        """Refuse what ``check_entity`` cannot see alone."""

    def _check_update(self, connection: Connection, before: E, after: E) -> None:
        """Refuse what ``check_entity`` cannot see alone."""

    def _remove(self, change: Change, id: str) -> None:  # noqa: A002
        table = self._shelf.table
        change.connection.execute(table.delete().where(table.c.id == id))


class Teams(Nouns[Team]):
    """The teams."""

    def create(self, team: Team, *, actor: str) -> Team:
        """Make a team.

        Args:
            team: The new one; ``managed_by`` and ``created_at`` are ignored.
            actor: Who does it, for the audit.

        Returns:
            The team as kept.

        Raises:
            Invalid: A field has a value it cannot have.
            Conflict: The id is taken.
        """
        with self._desk.change(actor) as change:
            return self.add(change, team)

    def add(self, change: Change, team: Team) -> Team:
        """Make a team as a part of a larger change; as ``create`` otherwise.

        Args:
            change: Under way.
            team: The new one.

        Returns:
            The team as kept.
        """
        return self._add(change, team)

    def _remove(self, change: Change, id: str) -> None:  # noqa: A002
        child = change.connection.scalar(
            select(projects.c.id).where(projects.c.team == id).limit(1)
        )
        if child is not None:
            raise Conflict("team", id, f"the team still has the project {child}")
        super()._remove(change, id)


class Projects(Nouns[Project]):
    """The projects of all teams."""

    def __init__(self, shelf: Shelf[Project], desk: Desk, teams: Shelf[Team]) -> None:
        """Open the shelf.

        Args:
            shelf: Where the projects are.
            desk: What changes need.
            teams: Where their teams are.
        """
        super().__init__(shelf, desk)
        self._teams = teams

    def create(self, project: Project, *, actor: str) -> Project:
        """Make a project.

        Args:
            project: The new one; ``managed_by`` and ``created_at`` are ignored.
            actor: Who does it, for the audit.

        Returns:
            The project as kept.

        Raises:
            Invalid: A field has a value it cannot have, such as a team that does not exist.
            Conflict: The id is taken.
        """
        with self._desk.change(actor) as change:
            return self.add(change, project)

    def add(self, change: Change, project: Project) -> Project:
        """Make a project as a part of a larger change; as ``create`` otherwise.

        Args:
            change: Under way.
            project: The new one.

        Returns:
            The project as kept.
        """
        return self._add(change, project)

    def _check_new(self, connection: Connection, entity: Project) -> None:
        with _named_by("project", entity.id, "team"):
            self._teams.load(connection, entity.team)

    def _remove(self, change: Change, id: str) -> None:  # noqa: A002
        child = change.connection.scalar(
            select(keys.c.id).where(keys.c.project == id, keys.c.revoked_at_us.is_(None)).limit(1)
        )
        if child is not None:
            raise Conflict("project", id, f"the project still has the key {child}")
        super()._remove(change, id)


class Keys(Nouns[Key]):
    """The keys of all projects that are not revoked."""

    def __init__(self, shelf: Shelf[Key], desk: Desk, projects: Shelf[Project]) -> None:
        """Open the shelf.

        Args:
            shelf: Where the keys are.
            desk: What changes need.
            projects: Where their projects are.
        """
        super().__init__(shelf, desk)
        self._projects = projects

    def create(self, key: Key, *, actor: str) -> IssuedKey:
        """Make a key and its secret.

        Args:
            key: The new one; ``managed_by`` and ``created_at`` are ignored.
            actor: Who does it, for the audit.

        Returns:
            The key as kept and, this once, its secret.

        Raises:
            Invalid: A field has a value it cannot have, such as a project that does not exist.
            Conflict: The id is taken, if only by a revoked key: the ledger names keys by id.
        """
        with self._desk.change(actor) as change:
            return self.add(change, key)

    def add(self, change: Change, key: Key) -> IssuedKey:
        """Make a key as a part of a larger change; as ``create`` otherwise.

        Args:
            change: Under way.
            key: The new one.

        Returns:
            The key as kept and, this once, its secret.
        """
        secret = SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        made = self._add(change, key, secret_sha256=secret_digest(secret).hex())
        return IssuedKey(key=made, secret=secret)

    def _check_new(self, connection: Connection, entity: Key) -> None:
        with _named_by("key", entity.id, "project"):
            self._projects.load(connection, entity.project)

    def _remove(self, change: Change, id: str) -> None:  # noqa: A002
        revoke = update(keys).where(keys.c.id == id).values(revoked_at_us=change.at_us)
        change.connection.execute(revoke)


class Budgets(Nouns[BudgetEntry]):
    """The budgets, as written."""

    def __init__(
        self,
        shelf: Shelf[BudgetEntry],
        desk: Desk,
        checks: Mapping[str, Callable[[Connection, str], object]],
        on_new_or_gone: Callable[[Change, str], None],
    ) -> None:
        """Open the shelf.

        Args:
            shelf: Where the budgets are.
            desk: What changes need.
            checks: By scope key, what raises ``NotFound`` for a value that does not exist.
            on_new_or_gone: Told of every budget that is made or deleted, within the change.
        """
        super().__init__(shelf, desk)
        self._checks = checks
        self._on_new_or_gone = on_new_or_gone

    def create(self, budget: BudgetEntry, *, actor: str) -> BudgetEntry:
        """Make a budget.

        Args:
            budget: The new one; ``managed_by`` and ``created_at`` are ignored.
            actor: Who does it, for the audit.

        Returns:
            The budget as kept.

        Raises:
            Invalid: A field has a value it cannot have, such as a team that does not exist.
            Conflict: The id is taken.
        """
        with self._desk.change(actor) as change:
            made = self._add(change, _with_beginning(budget, from_epoch_us(change.at_us)))
            self._on_new_or_gone(change, made.id)
            return made

    def _completed(self, change: Change, entity: BudgetEntry) -> BudgetEntry:
        return _with_beginning(entity, from_epoch_us(change.at_us))

    def _remove(self, change: Change, id: str) -> None:  # noqa: A002
        super()._remove(change, id)
        self._on_new_or_gone(change, id)

    def _check_new(self, connection: Connection, entity: BudgetEntry) -> None:
        to_budget(entity)
        # A budget whose scope names what does not exist would limit nothing, silently.
        for part, check in self._checks.items():
            if part in entity.scope:
                with _named_by("budget", entity.id, "scope"):
                    check(connection, entity.scope[part])

    def _check_update(
        self, connection: Connection, before: BudgetEntry, after: BudgetEntry
    ) -> None:
        # What an old scope named may be gone by now; only a new scope has to name what exists.
        if after.scope != before.scope:
            self._check_new(connection, after)
        else:
            to_budget(after)


def _with_beginning(entry: BudgetEntry, at: datetime) -> BudgetEntry:
    """Let a budget that rolls over begin with the window that holds now, if it says nothing."""
    if entry.rollover is False or entry.valid_from is not None:
        return entry
    plain = to_budget(replace(entry, rollover=False))
    if isinstance(plain.window, TotalWindow | RollingWindow):
        return entry  # which is refused: it has no window before
    return replace(entry, valid_from=window_of(plain, at).start)


def to_budget(entry: BudgetEntry, top_ups: Iterable[TopUp] = ()) -> Budget:
    """Give a written budget its meaning.

    Args:
        entry: As written.
        top_ups: What was added to single windows, in its unit.

    Returns:
        What the budget store works with.

    Raises:
        Invalid: A field cannot be read; the reason says what is accepted.
    """
    try:
        return budget_from_config(
            {
                "id": entry.id,
                "scope": entry.scope,
                "limit": entry.limit,
                "window": entry.window,
                "timezone": entry.timezone,
                "mode": entry.mode,
                "thresholds": entry.thresholds,
                "actions": entry.actions,
                "on_store_down": entry.on_store_down,
                "anchor": entry.anchor,
                "rollover": entry.rollover,
                "valid_from": entry.valid_from,
                "valid_to": entry.valid_to,
            },
            top_ups,
        )
    except ValueError as broken:
        # Each line begins with the name of the field it is about.
        reason = str(broken).splitlines()[0]
        field = reason.partition(" ")[0].rstrip(":")
        raise Invalid("budget", entry.id, field, reason) from broken


@contextmanager
def _named_by(noun: str, id: str, field: str) -> Iterator[None]:  # noqa: A002
    """Turn a missing parent into a bad field of the child that names it."""
    try:
        yield
    except NotFound as gap:
        raise Invalid(noun, id, field, gap.reason) from gap
