"""The versions of the price book in the database: recorded, found, opened.

Must never change a row: a version is written once, and what is decided about it is another row.
"""

import gzip
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, insert, select, text

from gateway.clock import EPOCH, Clock, SystemClock, epoch_us
from gateway.ledger.store import reading, store_errors
from gateway.prices.rows import Origin, Status, StoredVersion, manifest_to_row, read_version_row
from gateway.tables import price_decisions, price_objects, price_versions
from pricing.book import (
    AGREEMENTS,
    CATALOG_DIR,
    Book,
    BookBroken,
    BookVersion,
    build_book,
    object_name,
    read_versions,
)
from pricing.book import load_book as load_shipped
from pricing.manifest import Manifest
from pricing.shelf import NoSuchVersion

# Texts of contents by their digest, each with the provider it is of.
Objects = Mapping[str, tuple[str, str]]
# Grows with every version and every decision.
Mark = tuple[int, int]
_GZIP_LEVEL: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version about to be recorded.

    Attributes:
        manifest: What it consists of.
        objects: Contents the database may not have yet.
        origin: Where it comes from.
        base: The version it was made from.
        effective_from: First instant it holds; ``None`` for a candidate.
        recorded_by: Who makes it.
        why: Why.
        status: Where it stands from the start.
        name: Its name; ``None`` for the next one of the day.
        recorded_at: When its prices were learned; ``None`` for now.
        carries: The version whose change it has over another base.
        turn: Its place among the changes; ``None`` for the last.
        edit: What was asked for, as JSON.
        kept: Prices set by hand that it keeps beside its lists, as JSON.
    """

    manifest: Manifest
    objects: Objects
    origin: Origin
    base: str | None
    effective_from: datetime | None
    recorded_by: str
    why: str
    status: Status
    name: str | None = None
    recorded_at: datetime | None = None
    carries: str | None = None
    turn: int | None = None
    edit: Mapping[str, Any] | None = None
    kept: Sequence[Mapping[str, Any]] = ()


class PriceChange:
    """One transaction that records versions or decisions; every other one waits for its end.

    Attributes:
        at: When it happens.
    """

    def __init__(self, connection: Connection, at: datetime) -> None:
        """Begin.

        Args:
            connection: In the transaction, with the lock.
            at: Now.
        """
        self._connection = connection
        self.at = at

    def list_versions(self) -> tuple[StoredVersion, ...]:
        """List every version as it stands, in the order they were recorded."""
        return _list(self._connection)

    def open_object(self, name: str, digest: str) -> str:
        """Open a content.

        Args:
            name: Whose it is.
            digest: Of the content.

        Returns:
            Its text.
        """
        return _open(self._connection, name, digest)

    def add(self, new: NewVersion) -> StoredVersion:
        """Record a version.

        Args:
            new: The version.

        Returns:
            The same, with its name.
        """
        for digest, (kind, body) in new.objects.items():
            self._keep(digest, kind, body.encode())
        versions = self.list_versions()
        name = new.name or _next_name(self.at, {one.version for one in versions})
        row = {
            "version": name,
            "seq": self._next_seq(),
            "digest": new.manifest.digest,
            "manifest": manifest_to_row(new.manifest),
            "origin": new.origin,
            "base": new.base,
            "recorded_at_us": epoch_us(new.recorded_at or self.at),
            "effective_from_us": _us(new.effective_from),
            "recorded_by": new.recorded_by,
            "why": new.why,
            "status": new.status,
            "carries": new.carries,
            "turn": new.turn,
            "edit": new.edit,
            "kept": list(new.kept) or None,
        }
        self._connection.execute(insert(price_versions).values(row))
        return next(one for one in self.list_versions() if one.version == name)

    def decide(
        self,
        version: str,
        status: Status,
        who_why: tuple[str, str],
        *,
        effective_from: datetime | None = None,
        became: str | None = None,
    ) -> None:
        """Write down what was decided about a version.

        Args:
            version: Its name.
            status: Where it stands from now on.
            who_why: Who decided, and why.
            effective_from: First instant it holds, where it was approved.
            became: The version its prices come into force as, where that is another one.
        """
        row = {
            "seq": self._next_seq(),
            "version": version,
            "status": status,
            "at_us": epoch_us(self.at),
            "effective_from_us": _us(effective_from),
            "actor": who_why[0],
            "why": who_why[1],
            "became": became,
        }
        self._connection.execute(insert(price_decisions).values(row))

    def _next_seq(self) -> int:
        return 1 + max(_mark(self._connection))

    def _keep(self, digest: str, kind: str, body: bytes) -> None:
        has = select(price_objects.c.digest).where(price_objects.c.digest == digest)
        if self._connection.scalar(has) is None:
            # The time of day stays out of it, so that the same content is the same bytes.
            packed = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            row = {"digest": digest, "kind": kind, "body": packed}
            self._connection.execute(insert(price_objects).values(row))


class PriceStore:
    """The versions of the price book. Every method waits for the database: call it from a thread.

    Attributes:
        clock: For when things are recorded.
    """

    def __init__(
        self, engine: Engine, clock: Clock | None = None, *, catalog: Path = CATALOG_DIR
    ) -> None:
        """Open the store.

        Args:
            engine: Of a database with the tables of ``gateway.tables``.
            clock: For when things are recorded.
            catalog: The versions that came with the program.
        """
        self._engine = engine
        self._catalog = catalog
        self.clock = clock or SystemClock()

    def record_shipped(self, program: str) -> tuple[StoredVersion, ...]:
        """Record the versions that came with the program, as far as they are not known yet.

        At the first start all of them hold from the days they name. One that comes with a later
        upgrade holds at once, unless an operator has changed prices here: then it waits for
        approval, because it knows nothing of those changes.

        Args:
            program: Its name and version.

        Returns:
            Shipped versions that wait for approval.

        Raises:
            BookBroken: The list of shipped versions is broken.
            OSError: A file of the catalog cannot be read.
            StoreUnavailable: The database cannot be reached.
        """
        shipped = read_versions(self._catalog)
        if self._misses(shipped, self.list_versions()):
            with self.change() as change:
                before = change.list_versions()
                for version in self._misses(shipped, before):
                    self._record_shipped(change, version, before, program)
        return tuple(
            one
            for one in self.list_versions()
            if one.origin == "shipped" and one.status == "candidate"
        )

    @staticmethod
    def _misses(
        shipped: Iterable[BookVersion], versions: Iterable[StoredVersion]
    ) -> list[BookVersion]:
        known = {one.digest for one in versions if one.origin == "shipped"}
        return [version for version in shipped if version.digest not in known]

    def _record_shipped(
        self,
        change: PriceChange,
        version: BookVersion,
        before: Sequence[StoredVersion],
        program: str,
    ) -> None:
        names = {one.version for one in change.list_versions()}
        older = [one for one in change.list_versions() if one.origin == "shipped"]
        is_changed_here = any(one.origin != "shipped" and one.is_in_force for one in before)
        # A clock that is behind must not make a version of the future out of it.
        first = min(version.recorded_at, change.at), min(version.effective_from, change.at)
        recorded_at, effective_from = (change.at, change.at) if before else first
        change.add(
            NewVersion(
                name=None if version.version in names else version.version,
                manifest=version.manifest,
                objects=self._shipped_objects(version),
                origin="shipped",
                base=older[-1].version if older else None,
                recorded_at=recorded_at,
                effective_from=None if is_changed_here else effective_from,
                recorded_by=program,
                why=version.note,
                status="candidate" if is_changed_here else "approved",
            )
        )

    def _shipped_objects(self, version: BookVersion) -> Objects:
        named = dict(version.manifest.providers)
        if version.manifest.agreements is not None:
            named[AGREEMENTS] = version.manifest.agreements
        folder = self._catalog / "objects"
        return {
            digest: (kind, (folder / object_name(kind, digest)).read_text("utf-8"))
            for kind, digest in named.items()
        }

    def load_mark(self) -> Mark:
        """Read how much was recorded; another answer means that something changed."""
        with self._read() as connection:
            return _mark(connection)

    def list_versions(self) -> tuple[StoredVersion, ...]:
        """List every version as it stands, in the order they were recorded.

        Returns:
            Candidates and rejected ones included.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with self._read() as connection:
            return _list(connection)

    def list_approved(self) -> tuple[BookVersion, ...]:
        """List the versions calls are or were priced with, in the order they became known."""
        return in_force(self.list_versions())

    def current_at(self, at: datetime) -> BookVersion:
        """Find the version calls are priced with at an instant.

        Args:
            at: Aware instant.

        Returns:
            The one approved last of those in effect; before the first, the first.

        Raises:
            NoSuchVersion: Nothing was ever recorded.
        """
        return find_current(self.list_approved(), at)

    def known_at(self, at: datetime) -> BookVersion:
        """Find what was known of prices at an instant.

        Args:
            at: Aware instant.

        Returns:
            The approved version recorded last until then, in effect or not.

        Raises:
            NoSuchVersion: None was recorded yet.
        """
        for version in reversed(self.list_approved()):
            if version.recorded_at <= at:
                return version
        raise NoSuchVersion(f"no price book version was recorded by {at.isoformat()}")

    def find_version(self, version: str) -> StoredVersion:
        """Find a version by its name.

        Args:
            version: Its name.

        Returns:
            The version as it stands.

        Raises:
            NoSuchVersion: None has the name.
        """
        versions = self.list_versions()
        for one in versions:
            if one.version == version:
                return one
        known = ", ".join(one.version for one in versions[-10:]) or "none"
        raise NoSuchVersion(f"no price book version {version}; there are: {known}")

    def load_book(self, version: str | None = None, providers: Iterable[str] | None = None) -> Book:
        """Load a version, whatever its status, or a shipped one that is not recorded yet.

        Args:
            version: Its name; ``None`` for the one calls are priced with now.
            providers: Catalog providers to load; ``None`` for all.

        Returns:
            The book.

        Raises:
            BookBroken: There is none of that name, or its content is not what it was.
            StoreUnavailable: The database cannot be reached.
        """
        try:
            if version is None:
                return self.open_book(self.current_at(self.clock.now()), providers)
            return self.open_book(self.find_version(version).describe(), providers)
        except NoSuchVersion as unknown:
            # No gateway of this version has started here yet.
            shipped = {one.version for one in read_versions(self._catalog)}
            if version in {None, *shipped} or not self.list_versions():
                return load_shipped(version, self._catalog, providers)
            raise BookBroken([str(unknown)]) from unknown

    def find_book(self, version: str, provider: str) -> Book:
        """Load the prices of one provider in one version.

        Args:
            version: Its name.
            provider: Catalog provider.

        Returns:
            The book, with the prices of that provider alone.

        Raises:
            BookBroken: As ``load_book``.
            StoreUnavailable: Likewise.
        """
        return self.load_book(version, [provider])

    def open_book(self, version: BookVersion, providers: Iterable[str] | None = None) -> Book:
        """Load a version that was found before.

        Args:
            version: As described.
            providers: Catalog providers to load; ``None`` for all.

        Returns:
            The book.

        Raises:
            BookBroken: Its content is not what it was.
            StoreUnavailable: The database cannot be reached.
        """
        with self._read() as connection:
            return build_book(version, _opener(connection), providers)

    def open_object(self, name: str, digest: str) -> str:
        """Open a content.

        Args:
            name: Whose it is.
            digest: Of the content.

        Returns:
            Its text.

        Raises:
            BookBroken: It is not there.
            StoreUnavailable: The database cannot be reached.
        """
        with self._read() as connection:
            return _open(connection, name, digest)

    @contextmanager
    def change(self) -> Iterator[PriceChange]:
        """Open a transaction, and keep every other change waiting until it ends.

        Yields:
            The change, committed at the end and undone by any exception.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("LOCK TABLE price_versions IN SHARE ROW EXCLUSIVE MODE"))
            # A clock that was put back does not change what was known when.
            last = max((one.recorded_at for one in _list(connection)), default=EPOCH)
            yield PriceChange(connection, max(self.clock.now(), last))

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with store_errors(), reading(self._engine).connect() as connection:
            yield connection


def program_name() -> str:
    """Name the program as the recorder of what came with it.

    Returns:
        Such as ``taximeter 1.2.0``.
    """
    return f"taximeter {version_of('taximeter')}"


def in_force(versions: Iterable[StoredVersion]) -> tuple[BookVersion, ...]:
    """Choose the versions calls are or were priced with.

    Args:
        versions: All, as they stand.

    Returns:
        The approved ones in the order they became known, as ``pricing.shelf`` wants them.
    """
    approved = [one for one in versions if one.is_in_force]
    approved.sort(key=lambda one: one.known_seq)
    return tuple(one.describe() for one in approved)


def find_current(approved: Sequence[BookVersion], at: datetime) -> BookVersion:
    """Find the version calls are priced with at an instant.

    Args:
        approved: In the order they became known.
        at: Aware instant.

    Returns:
        The one approved last of those in effect; before the first, the first: a clock that is
        behind is no reason to refuse calls.

    Raises:
        NoSuchVersion: There is none.
    """
    for version in reversed(approved):
        if version.effective_from <= at:
            return version
    if approved:
        return approved[0]
    raise NoSuchVersion("no version of the price book is recorded yet; start `taximeter serve`")


def _mark(connection: Connection) -> Mark:
    query = select(
        select(func.coalesce(func.max(price_versions.c.seq), 0)).scalar_subquery(),
        select(func.coalesce(func.max(price_decisions.c.seq), 0)).scalar_subquery(),
    )
    versions, decisions = connection.execute(query).one()
    return int(versions), int(decisions)


def _list(connection: Connection) -> tuple[StoredVersion, ...]:
    decided: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(select(price_decisions).order_by(price_decisions.c.seq)):
        decided[row.version].append(row)
    rows = connection.execute(select(price_versions).order_by(price_versions.c.seq))
    return tuple(read_version_row(row, decided[row.version]) for row in rows)


def _opener(connection: Connection) -> Callable[[str, str], str]:
    def open_object(name: str, digest: str) -> str:
        return _open(connection, name, digest)

    return open_object


def _open(connection: Connection, name: str, digest: str) -> str:
    query = select(price_objects.c.body).where(price_objects.c.digest == digest)
    body = connection.scalar(query)
    if body is None:
        raise BookBroken([f"{object_name(name, digest)}: is not in the database"])
    try:
        return gzip.decompress(body).decode()
    except (OSError, EOFError, ValueError) as damaged:
        raise BookBroken([f"{object_name(name, digest)}: {damaged}"]) from damaged


def _next_name(at: datetime, taken: set[str]) -> str:
    day = at.astimezone(UTC).date().isoformat()
    number = 1
    while f"{day}.{number}" in taken:
        number += 1
    return f"{day}.{number}"


def _us(at: datetime | None) -> int | None:
    return None if at is None else epoch_us(at)
