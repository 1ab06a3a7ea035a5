"""What a session over a WebSocket is made of, whatever its protocol: frames, and what they mean.

Must never change a frame, and never hold more of a conversation than its open responses need.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ErrorBody,
    ReplyHead,
    RequestFacts,
    StreamLane,
    WireFormat,
    free_facts,
)

Frame = str | bytes


class Asks(msgspec.Struct, frozen=True, kw_only=True):
    """What a client's frame asks for.

    Attributes:
        facts: Of the response it asks for, or that the provider may begin by itself from now on;
            ``None`` where it asks for nothing that is billed.
        is_begun: Whether a response begins with the frame; else it only may.
        event: The client's own id of the frame, by which the provider says that it failed.
        model: Model of the session, where the frame names it.
        further_models: Other models it puts to work, which are billed apart.
        has_words: Whether it may hold what the user wrote.
    """

    facts: RequestFacts | None = None
    is_begun: bool = False
    event: str | None = None
    model: str | None = None
    further_models: tuple[str, ...] = ()
    has_words: bool = False


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A response has begun.

    Attributes:
        key: What the provider calls it.
    """

    key: str


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A response has ended.

    Attributes:
        key: What the provider calls it.
        answer: What it told.
    """

    key: str
    answer: Answer


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The provider did not do what a frame asked for.

    Attributes:
        event: The client's own id of that frame; ``None`` where the provider does not say.
    """

    event: str | None


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """Something was done beside the responses, by another model, and is billed apart.

    Attributes:
        facts: The least that bounds it; its model is the other one.
        answer: What it used.
    """

    facts: RequestFacts
    answer: Answer


Tells = Begun | Finished | Failed | Aside


class Conversation(Protocol):
    """Reads the frames of one session, each on a copy."""

    @property
    def facts(self) -> RequestFacts:
        """What a response comes to that the provider begins by itself."""
        ...

    def read_client(self, frame: Frame) -> Asks:
        """Read what a client's frame asks for; raises ``BadRequest``."""
        ...

    def read_server(self, frame: Frame) -> Tells | None:
        """Read what a provider's frame tells; never raises, whatever it holds."""
        ...

    def cancel(self, key: str) -> Frame | None:
        """Write the frame that ends a response early; ``None`` where there is none."""
        ...

    def open_answer(self, key: str) -> Answer:
        """Tell what is known of a response that has not ended."""
        ...

    def shape_error(self, error: ErrorBody) -> Frame:
        """Write a refusal as this protocol's clients expect it."""
        ...


class SessionFormat(WireFormat, Protocol):
    """A protocol that is spoken over a WebSocket."""

    def open_conversation(self, model: str) -> Conversation:
        """Begin to read a session; the model is empty where a frame names it."""
        ...


class LiveFormat:
    """What the formats of all sessions have in common: the handshake is no call of its own.

    Attributes:
        stream_types: Content types of streams: none.
        names_model_late: Whether a frame names the model, and not the address.
    """

    names_model_late = False
    stream_types: tuple[str, ...] = ()

    def read_handshake(self, asked: Asked) -> str:
        """Read the model of a session.

        Args:
            asked: The handshake.

        Returns:
            The model; empty where a frame names it.
        """
        return ""

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a handshake.

        Args:
            asked: The handshake.

        Returns:
            The model, and that it costs nothing by itself.

        Raises:
            BadRequest: It is none.
        """
        if not any(
            name == "upgrade" and "websocket" in value.lower() for name, value in asked.headers
        ):
            raise BadRequest("this address is for sessions: connect to it with a WebSocket")
        return free_facts(self.read_handshake(asked), stream=True)

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make a frame to send.

        Args:
            asked: The frame.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes.
        """
        return asked.body

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Refuse: a session is no stream.

        Args:
            facts: What was asked for.
            head: Of an answer.

        Returns:
            Never anything.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read an answer to a handshake that was refused.

        Args:
            body: As it came.
            facts: What was asked for.
            head: Its status and headers.

        Returns:
            Nothing that is billed.
        """
        return Answer()

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            Always, as nobody knows.
        """
        return True

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: What began the response.

        Returns:
            ``None``: the prompt is the whole session, and mostly sound.
        """
        return None


def bytes_of(frame: Frame) -> bytes:
    """Take a frame as bytes.

    Args:
        frame: Text or bytes.

    Returns:
        Its bytes; text in UTF-8.
    """
    return frame if isinstance(frame, bytes) else frame.encode("utf-8", "surrogatepass")
