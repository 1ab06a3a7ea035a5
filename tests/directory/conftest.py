"""One directory on each database, so that every promise holds for both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.directory import Directory
from gateway.ledger.migrate import upgrade
from gateway.ledger.store import open_engine
from gateway.settings import load_settings
from tests.postgres import postgres_fixture  # noqa: F401 - a fixture, found by its name

CONFIG = """
organization: acme
teams:
  - id: search
    tags: {env: staging, cost: t1}
    projects:
      - id: rag
        tags: {env: prod, unit: p1}
        keys: [{id: rag-ci, secret: rag-secret, tags: {unit: k1}, models: ["demo/*"]}]
budgets:
  - {id: search-month, scope: {team: search}, limit: "500 USD", window: month}
"""


@pytest.fixture(params=("sqlite", "postgres"))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Open a new database with tables."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        url = server.url(server.create_database())
    opened = open_engine(url)
    upgrade(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def directory(engine: Engine, tmp_path: Path) -> Directory:
    """Make a directory with a team, a project, a key and a budget of the configuration."""
    return make_directory(engine, tmp_path, CONFIG)


@pytest.fixture
def empty(engine: Engine, tmp_path: Path) -> Directory:
    """Make a directory of which the configuration says nothing."""
    return make_directory(engine, tmp_path, "{}")


def make_directory(engine: Engine, folder: Path, config: str) -> Directory:
    """Make a directory on a database."""
    file = folder / "taximeter.yaml"
    file.write_text(config, "utf-8")
    return Directory(engine, load_settings(file, {}))
