"""How Anthropic's clients are told of trouble: the error object, whole or as an event.

Must never say more than the refusal it is handed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.facts import ErrorBody
from gateway.wire.openai_dialect import comment_of

# Source: https://platform.claude.com/docs/en/api/errors, checked 2026-11-23.
_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        405: "invalid_request_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
)


class AnthropicDialect:
    """The error shape of Anthropic's API."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in Anthropic's error shape.

        Args:
            error: The refusal.

        Returns:
            JSON with ``error.type``, ``message``, the stable ``code`` and the refusal's facts.
        """
        shaped = {
            **error.details,
            "type": _TYPES.get(error.status, "api_error"),
            "message": error.message,
            "code": error.code,
        }
        return msgspec.json.encode({"type": "error", "error": shaped})

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun.

        Args:
            error: What went wrong.

        Returns:
            One ``error`` event; Anthropic's SDKs raise when they read it.
        """
        return b"event: error\ndata: " + self.shape_error(error) + b"\n\n"

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
            Nothing: Anthropic's clients read the body.
        """
        return []
