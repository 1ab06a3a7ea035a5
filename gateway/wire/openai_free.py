"""Calls of OpenAI's API that cost nothing: counts, lists, files.

Must never stand for an address whose calls cost something.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.wire.cutters import LineCutter
from gateway.wire.facts import Answer, Asked, ReplyHead, RequestFacts, StreamLane, free_facts
from gateway.wire.openai_answer import NAME_CHARS_MAX, UNREADABLE
from gateway.wire.openai_dialect import OpenAIDialect
from gateway.wire.splice import replace_spans, scan_members
from gateway.wire.tap import Tap

# What may stand before the object of a body that is JSON.
_BLANKS_MAX: Final = 64


class _Named(msgspec.Struct):
    model: str | None = None


class _Identified(msgspec.Struct):
    id: str | None = None


_decode_named = msgspec.json.Decoder(_Named).decode
_decode_identified = msgspec.json.Decoder(_Identified).decode


class _Unread:
    """Reads nothing.

    Attributes:
        answer: An empty one.
    """

    def __init__(self) -> None:
        self.answer = Answer()

    def take(self, event: bytes) -> bool:
        """Pass an event on."""
        return False


class FreeCalls(OpenAIDialect):
    """The wire format of calls that cost nothing, whatever they send and get.

    Attributes:
        api: Its name in the ledger.
        stream_types: Content types of an answer that is passed on as it comes: any.
    """

    stream_types: tuple[str, ...] = ("text/event-stream",)

    def __init__(self, api: str) -> None:
        self.api = api

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came; it may have no body, or one that is not JSON.

        Returns:
            That it costs nothing, and the model where the body names one.
        """
        return free_facts(_model_of(asked.body))

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        return rename_model(asked.body, facts.model, model)

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to pass a streamed answer on.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane that reads nothing.
        """
        return Tap(LineCutter(), _Unread())

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            Its id.
        """
        try:
            name = _decode_identified(body).id
        except UNREADABLE:
            return Answer()
        return Answer(request_id=name[:NAME_CHARS_MAX] if name else None, is_readable=True)

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False: nothing is produced.
        """
        return False

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Nothing: nothing is counted.
        """
        return None


def rename_model(body: bytes, named: str, model: str) -> bytes:
    """Write another model into a body.

    Args:
        body: A JSON object.
        named: The model it names.
        model: The provider's own name of it.

    Returns:
        The same bytes, but for the model name where it differs.
    """
    if named == model:
        return body
    edits = [
        (member.start, member.end, msgspec.json.encode(model))
        for member in scan_members(body)
        if member.name == "model"
    ]
    return replace_spans(body, edits)


def _model_of(body: bytes) -> str:
    if not body[:_BLANKS_MAX].lstrip().startswith(b"{"):
        return ""
    try:
        return (_decode_named(body).model or "")[:NAME_CHARS_MAX]
    except UNREADABLE:
        return ""
