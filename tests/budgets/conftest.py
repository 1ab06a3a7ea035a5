"""What the tests of budgets share: one real server that speaks Redis."""

from collections.abc import Iterator

import pytest

from tests.valkey import Valkey, running_valkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server; whoever uses it empties it first."""
    with running_valkey() as server:
        yield server
