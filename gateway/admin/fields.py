"""The field types and list parameters every noun of the API shares.

Must never accept what a database cannot hold, such as a NUL character.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Depends, Path, Query
from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema

from gateway.clock import epoch_us, to_rfc3339
from gateway.directory_model import (
    ID_CHARS_MAX,
    ID_PATTERN,
    MODELS_MAX,
    NAME_CHARS_MAX,
    PATTERN_CHARS_MAX,
)
from gateway.tags import TAG_NAME_CHARS_MAX, TAG_VALUE_CHARS_MAX, TAGS_MAX

LIMIT_MAX: Final = 1000
_PLAIN: Final = r"^[^\x00-\x1f\x7f]*$"
_INSTANT: Final = {"type": "string", "format": "date-time"}


def read_instant(text: object) -> datetime:
    """Read an instant.

    Args:
        text: RFC 3339 text with a time zone, such as ``2026-11-23T10:00:00Z``.

    Returns:
        The instant in UTC.

    Raises:
        ValueError: Not such text.
    """
    if not isinstance(text, str):
        raise ValueError("write an instant as text, such as 2026-11-23T10:00:00Z")  # noqa: TRY004 - pydantic wants it
    try:
        at = datetime.fromisoformat(text) if "T" in text.upper() else None
        if at is not None and at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below, for every way of not being an instant
    raise ValueError("write an instant such as 2026-11-23T10:00:00Z (in a URL, + is written %2B)")


def write_instant(at: datetime) -> str:
    """Write an instant as everything else here does.

    Args:
        at: Aware instant.

    Returns:
        RFC 3339 text in UTC with microseconds.
    """
    return to_rfc3339(epoch_us(at))


InstantIn = Annotated[datetime, BeforeValidator(read_instant), WithJsonSchema(_INSTANT)]
InstantOut = Annotated[
    datetime, PlainSerializer(write_instant, return_type=str), WithJsonSchema(_INSTANT)
]
Id = Annotated[str, StringConstraints(pattern=ID_PATTERN, max_length=ID_CHARS_MAX)]
PlainText = Annotated[str, StringConstraints(pattern=_PLAIN, min_length=1, max_length=500)]
Name = Annotated[str, StringConstraints(pattern=_PLAIN, min_length=1, max_length=NAME_CHARS_MAX)]
Tags = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=TAG_NAME_CHARS_MAX)],
        Annotated[str, StringConstraints(min_length=1, max_length=TAG_VALUE_CHARS_MAX)],
    ],
    Field(max_length=TAGS_MAX, examples=[{"env": "prod"}]),
]
Models = Annotated[
    list[
        Annotated[
            str,
            StringConstraints(pattern=_PLAIN, min_length=1, max_length=PATTERN_CHARS_MAX),
        ]
    ],
    Field(min_length=1, max_length=MODELS_MAX, examples=[["openai/gpt-5*", "demo/*"]]),
]
InstantQuery = Annotated[InstantIn | None, Query()]
# The directory answers 404 to whatever cannot be an id.
PathId = Annotated[str, Path(alias="id")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Which page of a list is wanted.

    Attributes:
        limit: Most items.
        cursor: ``next_cursor`` of the page before; ``None`` for the first.
    """

    limit: int
    cursor: str | None


def read_paging(
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most items on a page.")] = 100,
    cursor: Annotated[
        PlainText | None, Query(description="`next_cursor` of the page before; omit for the first.")
    ] = None,
) -> Paging:
    """Read which page a request wants.

    Args:
        limit: Most items.
        cursor: ``next_cursor`` of the page before.

    Returns:
        The page wanted.
    """
    return Paging(limit=limit, cursor=cursor)


PageQuery = Annotated[Paging, Depends(read_paging)]
