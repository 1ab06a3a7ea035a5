"""What all wire formats of Google's have in common, and those that cost nothing.

Must never change a body: the model stands in the address.
"""

from collections.abc import Sequence
from typing import Final

from gateway.wire.cutters import SseCutter
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ReplyHead,
    RequestFacts,
    StreamLane,
    free_facts,
)
from gateway.wire.gemini_answer import GeminiLane
from gateway.wire.gemini_request import model_named, read_prompt
from gateway.wire.google_dialect import GoogleDialect
from gateway.wire.tap import Tap

# These models give no thought; of any other it is not known.
# Source: https://ai.google.dev/gemini-api/docs/thinking, checked 2026-11-23.
_NEVER_THINKS: Final = ("gemini-1.", "gemini-2.0-flash-0", "gemini-2.0-flash-lite", "gemma-3-")


class GoogleFormat(GoogleDialect):
    """What all formats of Google's have in common."""

    api = "gemini"
    stream_types: tuple[str, ...] = ()

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
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for the bytes of the answer.
        """
        return GeminiLane(facts, head)

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False only for the families known not to.
        """
        return not model.startswith(_NEVER_THINKS)

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Its texts; ``None`` when a part is not text, or cannot be read.
        """
        return read_prompt(asked.body)


class Free(GoogleFormat):
    """What costs nothing: counts, lists, files, and what was made before."""

    api = "gemini.free"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that the request costs nothing.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.

        Raises:
            BadRequest: The name of the model is too long.
        """
        return free_facts(model_named(asked.names))

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to pass a streamed answer on.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane that reads nothing.
        """
        return Tap(SseCutter(), _Nothing())

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            Nothing that is billed.
        """
        return Answer()


class _Nothing:
    """Reads nothing."""

    def __init__(self) -> None:
        self.answer = Answer()

    def take(self, event: bytes) -> bool:
        """Pass an event by."""
        return False


class Upload(Free):
    """Uploads of files: in one request, because a resumable one goes on past the gateway."""

    api = "gemini.upload"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that the request costs nothing.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.

        Raises:
            BadRequest: It begins a resumable upload, whose next address is Google's own and gets
                no key.

        Source:
            https://ai.google.dev/gemini-api/docs/files, checked 2026-11-23.
        """
        for name, value in asked.headers:
            if name == "x-goog-upload-protocol" and value.strip().lower() == "resumable":
                raise BadRequest(
                    "resumable uploads go on at Google's own address, past this gateway: send the "
                    "file with X-Goog-Upload-Protocol: multipart or as inlineData, or upload it "
                    "to Google directly"
                )
        return free_facts()


class Batch(Free):
    """Batches, whose answers are fetched later: refused, because nobody would meter them."""

    api = "gemini.batch"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Refuse.

        Args:
            asked: The request as it came.

        Returns:
            Never anything.

        Raises:
            BadRequest: Always.
        """
        raise BadRequest(
            "a batch is answered later and this version does not meter it: make the calls one by "
            "one, with serviceTier flex where they can wait"
        )
