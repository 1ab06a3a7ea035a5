"""Anthropic's calls that cost nothing: counts, lists, files and batch upkeep.

Must never be given an address whose answers are billed.
"""

from typing import Final

import msgspec

from gateway.wire.anthropic_answer import UNREADABLE
from gateway.wire.anthropic_dialect import AnthropicDialect
from gateway.wire.anthropic_request import decode_request, refuse_repeats
from gateway.wire.cutters import LineCutter
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ReplyHead,
    RequestFacts,
    StreamLane,
    free_facts,
)
from gateway.wire.tap import Tap

_ERRORS_FROM: Final = 400
_MODEL: Final = "model"


class _Kind(msgspec.Struct):
    type: str | None = None


_decode_kind = msgspec.json.Decoder(_Kind).decode


class NoFold:
    """Reads nothing: what passes has no usage.

    Attributes:
        answer: That nothing is billed.
    """

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer = Answer(is_billed=False)

    def take(self, event: bytes) -> bool:
        """Look at one piece.

        Args:
            event: Any bytes.

        Returns:
            Never that it is the end.
        """
        return False


class AnthropicFree(AnthropicDialect):
    """Calls that name no model and cost nothing."""

    api = "anthropic.other"
    stream_types: tuple[str, ...] = (
        "application/octet-stream",
        "application/pdf",
        "application/zip",
        "audio/",
        "image/",
        "text/",
        "video/",
    )

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that the call costs nothing.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.
        """
        return free_facts()

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes.
        """
        return asked.body

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to pass an answer on.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane that reads nothing and to which nothing may be appended.
        """
        lane = Tap(LineCutter(), NoFold())
        lane.can_append = False
        return lane

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            That nothing is billed, and whether it is an error.
        """
        return Answer(
            is_billed=False,
            is_readable=True,
            is_complete=True,
            is_error=head.status >= _ERRORS_FROM or _is_error(body),
        )

    def may_think(self, model: str) -> bool:
        """Tell whether there can be output that is never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            Never: no model runs.
        """
        return False

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Nothing: there is no prompt.
        """
        return []


class AnthropicCount(AnthropicFree):
    """The wire format of ``POST /v1/messages/count_tokens``, whose numbers are no usage."""

    api = "anthropic.count_tokens"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that the call costs nothing, and which model it names.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.

        Raises:
            BadRequest: Not JSON, not an object, no model, or a model given twice.
        """
        request = decode_request(asked.body)
        refuse_repeats(asked.body)
        model = request.model or asked.names.get(_MODEL)
        if not model:
            raise BadRequest("the request names no model: give 'model'")
        return free_facts(model)


def _is_error(body: bytes) -> bool:
    try:
        return _decode_kind(body).type == "error"
    except UNREADABLE:
        return False
