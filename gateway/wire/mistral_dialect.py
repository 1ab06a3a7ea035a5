"""How Mistral's clients are told of trouble: the error object, whole or inside a stream.

Must never say more than the refusal it is handed.
"""

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.facts import ErrorBody
from gateway.wire.openai_dialect import comment_of


class MistralDialect:
    """The error shape of Mistral's API."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in Mistral's error shape.

        Args:
            error: The refusal.

        Returns:
            JSON with ``object``, ``message``, ``type``, ``param`` and ``code``, and the refusal's
            facts.

        Source:
            https://docs.mistral.ai/api, errors, checked 2026-11-23.
        """
        return msgspec.json.encode(_object_of(error))

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun.

        Args:
            error: What went wrong.

        Returns:
            One ``data:`` event.
        """
        return b"data: " + self.shape_error(error) + b"\n\n"

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


class ConversationDialect(MistralDialect):
    """The error shape of Mistral's conversations, whose events have names."""

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as the event that ends a conversation's answer.

        Args:
            error: What went wrong.

        Returns:
            A ``conversation.response.error`` event.

        Source:
            https://docs.mistral.ai/api/endpoint/beta/conversations, checked 2026-11-23.
        """
        kind = "conversation.response.error"
        said = {"type": kind, "message": error.message, "code": error.status}
        return f"event: {kind}\ndata: ".encode() + msgspec.json.encode(said) + b"\n\n"


def _object_of(error: ErrorBody) -> dict[str, object]:
    return {
        "object": "error",
        "message": error.message,
        "type": error.kind,
        "param": None,
        "code": error.code,
        **error.details,
    }
