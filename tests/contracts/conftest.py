"""One ledger on each database, so that every test of this folder holds for both.

Must never let two tests see each other's records, except through ``shared_ledger``.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from gateway.ledger.errors import ShippedTo
from gateway.ledger.migrate import upgrade
from gateway.ledger.queries import Queries
from gateway.ledger.record import LedgerRecord
from gateway.ledger.store import LedgerStore, open_engine
from tests.contracts.records import with_seq
from tests.postgres import PostgresServer, postgres_fixture  # noqa: F401 - found by its name

DATABASES = ("sqlite", "postgres")
WRITER = "w-1"


class Ledger:
    """A ledger database and the ways to use it.

    Attributes:
        engine: The database.
        store: Appends.
        queries: Reads.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = LedgerStore(engine)
        self.queries = Queries(engine)

    def post(self, *records: LedgerRecord, writer: str = WRITER) -> tuple[LedgerRecord, ...]:
        """Append records as a journal would, each with the next ``seq``."""
        first = self.queries.seqs().get(writer, 0) + 1
        numbered = tuple(with_seq(record, first + n) for n, record in enumerate(records))
        self.store.append(writer, numbered, ShippedTo(segment=1, offset=first))
        return numbered

    def tamper(self, *statements: str) -> None:
        """Change the tables as somebody with rights to the database could."""
        with self.engine.begin() as connection:
            for table in ("records", "record_lines"):
                if connection.dialect.name == "sqlite":
                    for change in ("update", "delete"):
                        connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_refuse_{change}"))
                else:
                    connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            for statement in statements:
                assert connection.execute(text(statement)).rowcount > 0

    def count(self, table: str) -> int:
        """Count the rows of a table."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/ledger.db"
    server = request.getfixturevalue("postgres")
    return server.url(server.create_database())


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Open an empty database, without tables."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a database with tables once, to be copied."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    opened = open_engine(f"sqlite:///{path}")
    upgrade(opened)
    opened.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """Make a database with tables once, to be copied."""
    name = postgres.create_database()
    opened = open_engine(postgres.url(name))
    upgrade(opened)
    opened.dispose()
    return name


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """Make an empty ledger of this test's own."""
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        url = f"sqlite:///{shutil.copy(template, tmp_path)}"
    else:
        server = request.getfixturevalue("postgres")
        url = server.url(server.create_database(request.getfixturevalue("postgres_template")))
    opened = open_engine(url)
    yield Ledger(opened)
    opened.dispose()


@pytest.fixture(scope="session", params=DATABASES)
def shared_ledger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ledger]:
    """Make a ledger for tests with many examples, which keep apart by organisation and writer."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('shared')}/ledger.db"
    else:
        server = request.getfixturevalue("postgres")
        url = server.url(server.create_database())
    opened = open_engine(url)
    upgrade(opened)
    yield Ledger(opened)
    opened.dispose()


@pytest.fixture(params=DATABASES)
def absent_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Open a database that is not there."""
    if request.param == "sqlite":
        tmp_path.joinpath("ledger.db").mkdir()
        opened = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    else:
        opened = open_engine(f"postgresql://postgres@/ledger?host={tmp_path}")
    yield opened
    opened.dispose()
