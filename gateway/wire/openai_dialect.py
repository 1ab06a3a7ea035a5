"""How OpenAI's clients are told of trouble: the error object, whole or inside a stream.

Must never say more than the refusal it is handed.
"""

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.facts import ErrorBody


def comment_of(facts: RawHeaders) -> bytes:
    """Write cost facts as a comment of an event stream.

    Args:
        facts: Header names and values.

    Returns:
        One comment line with its blank line; clients skip it.
    """
    return ": {}\n\n".format(" ".join(f"{name}={value}" for name, value in facts)).encode()


class OpenAIDialect:
    """The error shape of OpenAI's API and of everything compatible with it."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in OpenAI's error shape.

        Args:
            error: The refusal.

        Returns:
            JSON with ``error.message``, ``type``, ``param``, ``code`` and the refusal's facts.
        """
        shaped = {
            "message": error.message,
            "type": error.kind,
            "param": None,
            "code": error.code,
            **error.details,
        }
        return msgspec.json.encode({"error": shaped})

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun.

        Args:
            error: What went wrong.

        Returns:
            One ``data:`` event; OpenAI's SDKs raise when they read it.
        """
        return b"data: " + self.shape_error(error) + b"\n\n"

    def shape_stream_facts(self, facts: RawHeaders) -> bytes:
        """Write cost facts as one comment.

        Args:
            facts: Header names and values.

        Returns:
            One SSE comment line with its blank line; clients skip it.
        """
        return comment_of(facts)

    def error_headers(self, error: ErrorBody) -> RawHeaders:
        """List what a refusal has beside its content type.

        Args:
            error: The refusal.

        Returns:
            Nothing: OpenAI's clients read the body.
        """
        return []
