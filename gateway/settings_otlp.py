"""The shape of the settings about OpenTelemetry.

Must never show the value of a header: for most collectors it is a credential.
"""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _checked_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as broken:
        raise ValueError(f"the address cannot be read: {broken}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write an address such as http://collector:4318")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it is an address without user, ? and #; credentials go into headers")
    if any(c.isspace() for c in url) or not url.isascii():
        raise ValueError("an address is ASCII without spaces")
    return url.rstrip("/")


class OtlpSettings(BaseModel):
    """Where spans and metrics of calls are sent by OTLP.

    Attributes:
        endpoint: Address of a collector, without ``/v1/traces``; ``None`` sends nothing.
        headers: Sent along, such as a credential.
        interval_s: Seconds between two messages.
        queue_max: Calls that wait at most; what comes after them is dropped and counted.
        timeout_s: Longest wait for an answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, AfterValidator(_checked_endpoint)] | None = None
    headers: dict[str, SecretStr] = {}
    interval_s: float = Field(default=5, gt=0, le=300)
    queue_max: int = Field(default=10_000, ge=1, le=1_000_000)
    timeout_s: float = Field(default=10, gt=0, le=60)

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a header name")
            text = value.get_secret_value()
            if not text.isascii() or not text.isprintable():
                raise ValueError(f"the value of {name} is not printable ASCII")
        return headers
