"""An answer whose reader fails is still the client's, and is metered as one that told nothing."""

import pytest

from gateway.admission import OpenCall
from gateway.exchange import read_answer
from gateway.wire.facts import Answer, free_facts
from gateway.wire.openai_answer import Make
from gateway.wire.openai_chat import OpenAIChat
from gateway.wire.tap import ODD
from tests.openai_answers import completion
from tests.path.world import AT, FakeReply, Play, World


@pytest.mark.parametrize("kind", ODD)
def test_a_whole_answer_that_cannot_be_read_is_flagged(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing it said counts, and nothing of it is logged."""

    def fail(_: Answer, __: bytes) -> None:
        raise kind("a secret of the answer")

    call = OpenCall(id="1", at=AT, started_at_us=0, started_s=0, headers=[], facts=free_facts())
    call.format = OpenAIChat(Make(note=fail))

    answer = read_answer(call, FakeReply(Play(), World(Play())), completion())

    assert (f"the answer could not be read ({kind.__name__})",) == answer.flags
    assert answer.usage is None
    assert "secret" not in caplog.text
