"""How Cohere's clients are told of trouble: a message, whole or at the end of a stream.

Must never say more than the refusal it is handed.
"""

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.facts import ErrorBody
from gateway.wire.openai_dialect import comment_of


class CohereDialect:
    """The error shape of Cohere's API."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in Cohere's error shape.

        Args:
            error: The refusal.

        Returns:
            JSON with ``message``, and the code and facts of the refusal beside it.

        Source:
            https://docs.cohere.com/reference/errors, checked 2026-11-23.
        """
        return msgspec.json.encode(_object_of(error))

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as the event that ends a v2 chat.

        Args:
            error: What went wrong.

        Returns:
            A ``message-end`` event whose ``delta.error`` says it.

        Source:
            https://docs.cohere.com/reference/chat-stream, ``message-end``, checked 2026-11-23.
        """
        delta = {"error": error.message, "finish_reason": "ERROR"}
        said = msgspec.json.encode({"type": "message-end", "delta": delta, **_object_of(error)})
        return b"event: message-end\ndata: " + said + b"\n\n"

    def shape_stream_facts(self, facts: RawHeaders) -> bytes:
        """Write cost facts as one comment.

        Args:
            facts: Header names and values.

        Returns:
            One comment line with its blank line; clients skip it.
        """
        return comment_of(facts)

    def error_headers(self, error: ErrorBody) -> RawHeaders:
        """List what a refusal has beside its content type.

        Args:
            error: The refusal.

        Returns:
            Nothing: clients read the body.
        """
        return []


class CohereV1Dialect(CohereDialect):
    """The error shape of Cohere's API, version 1."""

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as the event that ends a v1 chat.

        Args:
            error: What went wrong.

        Returns:
            A ``stream-end`` event whose ``finish_reason`` is ``ERROR``.

        Source:
            https://docs.cohere.com/v1/reference/chat-stream, ``stream-end``, checked 2026-11-23.
        """
        said = {"event_type": "stream-end", "is_finished": True, "finish_reason": "ERROR"}
        return b"data: " + msgspec.json.encode({**said, **_object_of(error)}) + b"\n\n"


def _object_of(error: ErrorBody) -> dict[str, object]:
    return {"message": error.message, "code": error.code, "kind": error.kind, **error.details}
