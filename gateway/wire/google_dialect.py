"""How Google's clients are told of trouble: the error object, whole or inside a stream.

Must never say more than the refusal it is handed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.facts import ErrorBody
from gateway.wire.openai_dialect import comment_of

# Source: https://cloud.google.com/apis/design/errors, checked 2026-11-23. What is missing there has
# the name of its class.
_STATUS_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        405: "UNIMPLEMENTED",
        409: "ABORTED",
        413: "INVALID_ARGUMENT",
        429: "RESOURCE_EXHAUSTED",
        500: "INTERNAL",
        502: "UNAVAILABLE",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
)


class GoogleDialect:
    """The error shape of Google's APIs."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in Google's error shape.

        Args:
            error: The refusal.

        Returns:
            JSON with ``error.code``, ``message``, ``status`` and one ``ErrorInfo`` in ``details``:
            its ``reason`` is the stable code, its ``metadata`` the refusal's facts as text. Beside
            it a ``RetryInfo`` where it is known when the same call would fit.

        Source:
            https://cloud.google.com/apis/design/errors and
            https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto,
            checked 2026-11-23.
        """
        facts = {name: str(value) for name, value in error.details.items() if value is not None}
        details: list[dict[str, object]] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": error.code,
                "domain": "taximeter",
                "metadata": {"code": error.code, "type": error.kind, **facts},
            }
        ]
        if "retry_after_s" in facts:
            # What Google's clients read instead of a header.
            delay = f"{facts['retry_after_s']}s"
            kind = "type.googleapis.com/google.rpc.RetryInfo"
            details.append({"@type": kind, "retryDelay": delay})
        fallback = "INTERNAL" if error.status >= 500 else "FAILED_PRECONDITION"
        shaped = {
            "code": error.status,
            "message": error.message,
            "status": _STATUS_NAMES.get(error.status, fallback),
            "details": details,
        }
        return msgspec.json.encode({"error": shaped})

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun.

        Args:
            error: What went wrong.

        Returns:
            One ``data:`` event, its lines ended as Google ends them.
        """
        return b"data: " + self.shape_error(error) + b"\r\n\r\n"

    def shape_stream_facts(self, facts: RawHeaders) -> bytes:
        """Write cost facts as one comment.

        Args:
            facts: Header names and values.

        Returns:
            One SSE comment line with its blank line.
        """
        return comment_of(facts)

    def error_headers(self, error: ErrorBody) -> RawHeaders:
        """List what a refusal has beside its content type.

        Args:
            error: The refusal.

        Returns:
            Nothing: Google's clients read the body.
        """
        return []
