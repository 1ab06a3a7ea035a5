"""The control plane, new for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Make a control plane over an empty ledger."""
    made = World(tmp_path)
    yield made
    made.engine.dispose()
