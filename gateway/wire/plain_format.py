"""What wire formats have in common that need nothing special, and calls that cost nothing.

Must never change a byte of a request but the model name.
"""

import json
from collections.abc import Sequence
from typing import Final

from gateway.wire.cutters import SseCutter
from gateway.wire.facts import Answer, Asked, ReplyHead, RequestFacts, StreamLane, free_facts
from gateway.wire.splice import replace_spans, scan_members
from gateway.wire.tap import Tap

EVENTS: Final = "text/event-stream"
LINES: Final = ("application/x-ndjson", "application/stream+json", "application/jsonl")


class PlainFormat:
    """Passes a request on as it came; a reader adds what it knows.

    Attributes:
        stream_types: Content types, or how they begin, of an answer that is passed on as it comes.
        model_field: Member of the body that names the model.
    """

    stream_types: tuple[str, ...] = (EVENTS,)
    model_field: str = "model"

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        if model == facts.model:
            return asked.body
        name = json.dumps(model).encode()
        members = [m for m in scan_members(asked.body) if m.name == self.model_field]
        return replace_spans(asked.body, [(member.start, member.end, name) for member in members])

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False: what is thought is shown.
        """
        return False

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            ``None``: they are not read.
        """
        return None

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to pass a stream on of which nothing is read.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane that holds nothing but its last event.
        """
        return Tap(SseCutter(), Unread())

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer of which nothing is read.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            Nothing that is billed.
        """
        return Answer()


class Unread:
    """Reads no event.

    Attributes:
        answer: Nothing that is billed.
    """

    def __init__(self) -> None:
        self.answer = Answer()

    def take(self, event: bytes) -> bool:
        """Look at no event.

        Args:
            event: One event, framing and all.

        Returns:
            False.
        """
        return False


class FreeCalls(PlainFormat):
    """Calls that cost nothing: lists, counts, checks, files."""

    stream_types: tuple[str, ...] = (EVENTS, *LINES)

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read nothing: the call is free.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.
        """
        return free_facts(asked.names.get("model", ""))
