"""How Bedrock's clients are told of trouble: a message, the error's type in a header, or a frame.

Must never say more than the refusal it is handed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.eventstream import write_exception
from gateway.wire.facts import ErrorBody

# By status, then what differs. boto3 makes its exceptions of these names. By its standard rules it
# tries ``ThrottlingException``, every 5xx and any 429 of a type the operation does not declare
# again. A budget without room is not worth that, and of what every operation declares access denied
# says it best. Its legacy rules try any 429 again.
# Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, errors;
# botocore/retries/standard.py of botocore 1.44.4, checked 2026-11-23.
_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        401: "AccessDeniedException",
        403: "AccessDeniedException",
        404: "ResourceNotFoundException",
        429: "AccessDeniedException",
        502: "ServiceUnavailableException",
        503: "ServiceUnavailableException",
        504: "ModelTimeoutException",
    }
)
_TYPES_BY_CODE: Final[Mapping[str, str]] = MappingProxyType({"rate_limited": "ThrottlingException"})
# What the streamed operations declare as members of their stream.
_IN_STREAM: Final[Mapping[int, str]] = MappingProxyType(
    {
        502: "modelStreamErrorException",
        503: "serviceUnavailableException",
        504: "modelStreamErrorException",
    }
)
_OTHER: Final = "ValidationException"
_OTHER_IN_STREAM: Final = "internalServerException"


class BedrockDialect:
    """The error shape of Bedrock's runtime."""

    def shape_error(self, error: ErrorBody) -> bytes:
        """Write a refusal in Bedrock's error shape.

        Args:
            error: The refusal.

        Returns:
            JSON with ``message``, and beside it the stable code and the facts. boto3 shows
            its callers nothing but the message, so the code stands in it as well.
        """
        message = f"{error.message} ({error.code})"
        return msgspec.json.encode({"message": message, "code": error.code, **error.details})

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as a frame inside a stream that has begun.

        Args:
            error: What went wrong.

        Returns:
            One exception frame; boto3 raises ``EventStreamError`` when it reads it.
        """
        kind = _IN_STREAM.get(error.status, _OTHER_IN_STREAM)
        return write_exception(kind, self.shape_error(error))

    def shape_stream_facts(self, facts: RawHeaders) -> bytes:
        """Write cost facts inside a stream.

        Args:
            facts: Header names and values.

        Returns:
            Nothing: a frame no client expects is no comment.
        """
        return b""

    def error_headers(self, error: ErrorBody) -> RawHeaders:
        """List what a refusal has beside its content type.

        Args:
            error: The refusal.

        Returns:
            The type of the error, which Amazon's SDKs name their exceptions by.
        """
        kind = _TYPES_BY_CODE.get(error.code) or _TYPES.get(error.status, _OTHER)
        return [("x-amzn-errortype", kind)]
