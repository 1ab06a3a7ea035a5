"""Chat completions by their bodies alone, for tests that care about nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.wire.facts import Answer, Asked, ErrorBody, RequestFacts, StreamLane
from gateway.wire.openai_chat import OpenAIChat

_FORMAT: Final = OpenAIChat()


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()


OK: Final = Head()


class Chat:
    """The wire format of ``POST /chat/completions``, of bodies."""

    def read_facts(self, body: bytes) -> RequestFacts:
        return _FORMAT.read_facts(Asked(body=body))

    def prepare_body(self, body: bytes, facts: RequestFacts, model: str) -> bytes:
        return _FORMAT.prepare_body(Asked(body=body), facts, model)

    def open_stream(self, facts: RequestFacts) -> StreamLane:
        return _FORMAT.open_stream(facts, OK)

    def read_whole(self, body: bytes) -> Answer:
        facts = _FORMAT.read_facts(Asked(body=b'{"model":"m","messages":[]}'))
        return _FORMAT.read_whole(body, facts, OK)

    def read_prompt(self, body: bytes) -> list[str] | None:
        return _FORMAT.read_prompt(Asked(body=body))

    def shape_error(self, error: ErrorBody) -> bytes:
        return _FORMAT.shape_error(error)

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        return _FORMAT.shape_stream_error(error)

    def shape_stream_facts(self, facts: list[tuple[str, str]]) -> bytes:
        return _FORMAT.shape_stream_facts(facts)

    def may_think(self, model: str) -> bool:
        return _FORMAT.may_think(model)


CHAT: Final = Chat()
