"""Opening a database by its URL, without connecting to it."""

import subprocess
import sys
from contextlib import chdir

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool

from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import DatabaseRefused, open_engine, store_errors


def test_a_relative_sqlite_file_lies_below_the_working_directory(tmp_path):
    """Three slashes; the directories on the way are made."""
    with chdir(tmp_path):
        engine = open_engine("sqlite:///data/deep/taximeter.db")
        with engine.connect():
            pass
        engine.dispose()

    assert tmp_path.joinpath("data/deep/taximeter.db").is_file()


def test_an_absolute_sqlite_file_lies_where_it_says(tmp_path):
    """Four slashes."""
    engine = open_engine(f"sqlite:////{str(tmp_path).lstrip('/')}/a.db")
    with engine.connect():
        pass
    engine.dispose()

    assert tmp_path.joinpath("a.db").is_file()


@pytest.mark.parametrize(
    ("pragma", "expected"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("recursive_triggers", 1),
        ("busy_timeout", 10_000),
    ],
)
def test_sqlite_is_set_up_to_lose_nothing(tmp_path, pragma, expected):
    """A power cut takes nothing that was committed; readers and writers do not block each other."""
    engine = open_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        found = connection.execute(text(f"PRAGMA {pragma}")).scalar_one()
    engine.dispose()

    assert expected == found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40w@db.example:5433/ledger", ("u", "p@w", "db.example", 5433, "ledger")),
        ("postgres://u@db.example/ledger", None),
        ("postgresql+psycopg://u@h/ledger", ("u", None, "h", None, "ledger")),
        ("postgresql://u@/ledger?host=/run/pg", ("u", None, None, None, "ledger")),
    ],
)
def test_postgresql_urls_need_no_driver_name(url, expected):
    """The forms the configuration promises, on the driver that is installed."""
    if expected is None:
        with pytest.raises(DatabaseRefused, match="postgresql://"):
            open_engine(url)
        return
    engine = open_engine(url)
    found = engine.url

    assert expected == (found.username, found.password, found.host, found.port, found.database)
    assert ("postgresql", "psycopg") == (engine.dialect.name, engine.dialect.driver)


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://h/db", "sqlite://", "sqlite:///:memory:", "postgresql://h:port/db"],
)
def test_other_urls_are_refused_without_repeating_them(url):
    """A URL may hold a password, so the message does not."""
    with pytest.raises(DatabaseRefused, match="sqlite") as refusal:
        open_engine(url)

    assert "port/db" not in str(refusal.value)


def test_a_pool_without_a_free_connection_counts_as_away(tmp_path):
    """Too many questions at once are told like a database that is away, and pass."""
    engine = create_engine(
        f"sqlite:///{tmp_path}/a.db",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.01,
    )
    with (
        engine.connect(),
        pytest.raises(StoreUnavailable, match="no free connection"),
        store_errors(),
        engine.connect(),
    ):
        pass
    engine.dispose()


def test_postgresql_without_its_driver_says_how_to_get_it():
    """The driver is optional, so its absence is a refusal with a remedy and no traceback."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from gateway.ledger.store import DatabaseRefused, open_engine\n"
        "try: open_engine('postgresql://h/db')\n"
        "except DatabaseRefused as refusal: print(refusal)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "pip install 'psycopg[binary]'" in done.stdout


def test_the_path_to_a_current_database_does_not_load_alembic():
    """Its import would be the longest part of a start."""
    code = (
        "import sys, gateway.ledger.store, gateway.ledger.queries; print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
