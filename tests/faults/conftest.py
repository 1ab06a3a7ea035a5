"""What the fault tests share: a scripted upstream per module.

Must never start a gateway: each module starts the one it needs, with its own configuration.
"""

from collections.abc import Iterator

import pytest

from tests.openai_answers import answer_like_openai
from tests.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream; plays OpenAI unless a test says otherwise."""
    with ScriptedUpstream(answer_like_openai) as running:
        yield running
