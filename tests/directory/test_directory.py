"""The directory on real databases."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from gateway.callers import secret_digest
from gateway.directory import Directory
from gateway.directory_model import (
    BudgetEntry,
    Conflict,
    Invalid,
    Key,
    ManagedByConfig,
    NotFound,
    Project,
    Team,
)
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import open_engine
from gateway.settings import load_settings
from tests.directory.conftest import make_directory

ME = "a test"


def grow(directory: Directory) -> str:
    """Make a team, a project and a key; give the key's secret."""
    directory.teams.create(Team(id="ads", name="Ads", tags={"env": "dev"}), actor=ME)
    directory.projects.create(Project(id="bids", team="ads", name="Bids"), actor=ME)
    return directory.keys.create(Key(id="ci", project="bids"), actor=ME).secret


def test_specific_tags_win(directory: Directory):
    """A project's tag beats its team's default, and a key's beats both."""
    caller = directory.load_snapshot().callers[secret_digest("rag-secret")]

    assert {"cost": "t1", "env": "prod", "unit": "k1"} == caller.tags
    assert ["cost", "env", "unit"] == list(caller.tags)
    assert ("acme", "search", "rag", "rag-ci", ("demo/*",)) == (
        caller.organization,
        caller.team,
        caller.project,
        caller.key,
        caller.models,
    )


def test_a_snapshot_holds_both_origins(directory: Directory):
    """Keys and budgets of the file and of the API are in force together."""
    secret = grow(directory)
    entry = BudgetEntry(id="ads", scope={"team": "ads"}, limit="5 requests", window="minute")
    directory.budgets.create(entry, actor=ME)
    snapshot = directory.load_snapshot()

    assert {"ci", "rag-ci"} == {caller.key for caller in snapshot.callers.values()}
    assert "ads" == snapshot.callers[secret_digest(secret)].team
    assert ["ads", "search-month"] == [budget.id for budget in snapshot.budgets]
    assert 5 == snapshot.budgets[0].limit


def test_every_change_counts(directory: Directory):
    """The version grows with each change and with nothing else."""
    versions = [directory.load_version()]
    secret = grow(directory)
    versions.append(directory.load_version())
    with pytest.raises(Conflict):
        directory.teams.create(Team(id="ads", name="x"), actor=ME)
    versions.append(directory.load_version())
    directory.keys.delete("ci", actor=ME)
    versions.append(directory.load_version())

    assert [0, 3, 3, 4] == versions
    assert 4 == directory.load_snapshot().version
    assert secret_digest(secret) not in directory.load_snapshot().callers


def test_changes_of_one_process_reach_another(engine: Engine, directory: Directory, tmp_path: Path):
    """Two gateways on one database agree."""
    other = make_directory(engine, tmp_path, "{}")
    secret = grow(other)

    assert directory.load_version() == other.load_version()
    assert secret_digest(secret) in directory.load_snapshot().callers


def test_what_left_the_file_works_no_longer(engine: Engine, directory: Directory, tmp_path: Path):
    """A key whose project is gone from the file is not in force, and nothing breaks."""
    issued = directory.keys.create(Key(id="more", project="rag"), actor=ME)
    left = make_directory(engine, tmp_path, "organization: acme")

    assert secret_digest(issued.secret) in directory.load_snapshot().callers
    assert {} == left.load_snapshot().callers
    assert ["more"] == [key.id for key in left.keys.page().items]


def test_the_file_wins_over_a_row_of_the_same_id(engine: Engine, empty: Directory, tmp_path: Path):
    """What the file names later is the file's from then on."""
    empty.teams.create(Team(id="ads", name="From the API"), actor=ME)
    named = make_directory(engine, tmp_path, "teams: [{id: ads, name: From the file}]")

    assert "From the file" == named.teams.load("ads").name
    assert ["config"] == [team.managed_by for team in named.teams.page().items]
    with pytest.raises(ManagedByConfig):
        named.teams.update("ads", {"name": "x"}, actor=ME)


def test_the_first_start_makes_one_of_each(empty: Directory):
    """A fresh database gets a key that works; the second start does not get another."""
    secret = empty.first_start()

    assert secret is not None
    caller = empty.load_snapshot().callers[secret_digest(secret)]
    assert ("default", "default", "default", "default") == (
        caller.organization,
        caller.team,
        caller.project,
        caller.key,
    )
    assert ("*",) == caller.models
    assert empty.first_start() is None
    empty.keys.delete("default", actor=ME)
    empty.projects.delete("default", actor=ME)
    empty.teams.delete("default", actor=ME)
    assert empty.first_start() is None


def test_the_first_start_leaves_a_configured_directory_alone(directory: Directory):
    """Whoever wrote a file knows what they want."""
    assert directory.first_start() is None
    assert 0 == len(directory.load_snapshot().callers) - 1


def test_starts_at_the_same_time_make_one_key(engine: Engine, tmp_path: Path):
    """However many gateways start on a fresh database, one prints a key."""
    found: list[str | None] = []
    directories = [make_directory(engine, tmp_path, "{}") for _ in range(4)]
    threads = [
        threading.Thread(target=lambda d=d: found.append(d.first_start())) for d in directories
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len([secret for secret in found if secret is not None])
    assert 4 == len(found)


def test_changes_at_the_same_time_are_all_kept(engine: Engine, tmp_path: Path):
    """Writers wait for each other; none is lost and none fails."""
    failed: list[Exception] = []

    def make(directory: Directory, number: int) -> None:
        for n in range(5):
            team = Team(id=f"t{number}-{n}", name="x")
            try:
                directory.teams.create(team, actor=ME)
            except Exception as error:
                failed.append(error)
                raise

    directories = [make_directory(engine, tmp_path, "{}") for _ in range(4)]
    threads = [threading.Thread(target=make, args=(d, n)) for n, d in enumerate(directories)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failed
    assert 20 == len(directories[0].teams.page(100).items)
    assert 20 == directories[0].load_version()


def test_pages_sort_as_python_does(directory: Directory):
    """Following the cursor visits every id once, in the order Python sorts in."""
    names = ["a.b", "a-b", "a_b", "ab", "a0", "z", "search.x", "0"]
    for name in names:
        directory.teams.create(Team(id=name, name=name), actor=ME)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(20):
        page = directory.teams.page(2, cursor)
        seen += [team.id for team in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert sorted([*names, "search"]) == seen


@pytest.mark.parametrize("odd", ["", "Ads", "a b", "a\0", "a" * 65, "-a", "a\n", "\u00e9", "../x"])
def test_what_cannot_be_an_id_is_refused_and_never_found(directory: Directory, odd: str):
    """No id reaches the database that it could stumble over."""
    with pytest.raises(Invalid) as refused:
        directory.teams.create(Team(id=odd, name="x"), actor=ME)
    assert "id" == refused.value.field
    with pytest.raises(NotFound):
        directory.teams.load(odd)
    with pytest.raises(NotFound):
        directory.keys.delete(odd, actor=ME)


@pytest.mark.parametrize(
    "change",
    [
        {"tags": {"a": ""}},
        {"tags": {"a": "x" * 257}},
        {"tags": {"a": "nul\0"}},
        {"tags": {f"t{n}": "x" for n in range(33)}},
        {"name": ""},
        {"name": "line\nbreak"},
    ],
)
def test_what_cannot_be_kept_is_refused(directory: Directory, change: dict[str, object]):
    """A change that breaks a rule leaves everything as it was."""
    grow(directory)
    with pytest.raises(Invalid):
        directory.teams.update("ads", change, actor=ME)
    assert {"env": "dev"} == directory.teams.load("ads").tags


def test_the_audit_cannot_be_changed(engine: Engine, directory: Directory):
    """Who did what stays written."""
    grow(directory)
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with (
            pytest.raises(Exception, match="audit"),
            engine.begin() as connection,
        ):
            connection.execute(text(statement))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT noun, noun_id FROM audit ORDER BY id")).all()
    assert [("team", "ads"), ("project", "bids"), ("key", "ci")] == [tuple(row) for row in rows]


def test_a_database_that_is_away_is_told_apart(tmp_path: Path):
    """The caller learns that a store is down, not that a team does not exist."""
    (tmp_path / "ledger.db").mkdir()
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    file = tmp_path / "taximeter.yaml"
    file.write_text("{}", "utf-8")
    away = Directory(engine, load_settings(file, {}))

    with pytest.raises(StoreUnavailable):
        away.teams.load("ads")
    with pytest.raises(StoreUnavailable):
        away.load_snapshot()
    with pytest.raises(StoreUnavailable):
        away.teams.create(Team(id="ads", name="Ads"), actor=ME)
    engine.dispose()


def test_secrets_do_not_show(directory: Directory):
    """An issued key in a log line does not give its secret away."""
    directory.projects.create(Project(id="p", team="search", name="P"), actor=ME)
    issued = directory.keys.create(Key(id="k", project="p"), actor=ME)

    assert issued.secret not in repr(issued)
    assert issued.secret != directory.keys.create(Key(id="k2", project="p"), actor=ME).secret
