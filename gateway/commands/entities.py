"""What listing, making, showing and removing look like for every noun of the directory.

Must never reach into the database; ``gateway.directory`` does.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gateway.commands.output import pairs_text, write_fields, write_json, write_line, write_table
from gateway.commands.parsing import parse_pair
from gateway.directory_model import E, Entity, Page

_PAGE_ROWS: Final = 500
ReadPage = Callable[[int, str | None], Page[E]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """How one kind of thing is shown.

    Attributes:
        plural: What many of it are called.
        columns: Heading to the value of an entity.
    """

    plural: str
    columns: Mapping[str, Callable[[Any], object]]


def add_tags(parser: argparse.ArgumentParser) -> None:
    """Add ``--tag``, which may be repeated.

    Args:
        parser: That of something that makes an entity with tags.
    """
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        type=parse_pair,
        metavar="NAME=VALUE",
        help="a tag of its calls; may be repeated",
    )


def read_all(page: ReadPage[E]) -> Iterator[E]:
    """Read every page of a list.

    Args:
        page: One of the directory's.

    Yields:
        Entities by id.
    """
    cursor = None
    while True:
        found = page(_PAGE_ROWS, cursor)
        yield from found.items
        cursor = found.next_cursor
        if cursor is None:
            return


def list_all(noun: Noun, page: ReadPage[E], args: argparse.Namespace) -> int:
    """Write every entity.

    Args:
        noun: How to show it.
        page: One of the directory's.
        args: With ``json``.

    Returns:
        Exit code.
    """
    entities = list(read_all(page))
    if args.json:
        write_json([to_plain(entity) for entity in entities])
    elif entities:
        cells = [[_cell(read(entity)) for read in noun.columns.values()] for entity in entities]
        write_table(list(noun.columns), cells)
    else:
        write_line(f"no {noun.plural}")
    return 0


def show_one(noun: Noun, entity: Entity, args: argparse.Namespace, *more: tuple[str, str]) -> int:
    """Write one entity.

    Args:
        noun: How to show it.
        entity: The one.
        args: With ``json``.
        more: Further fields: name and value.

    Returns:
        Exit code.
    """
    if args.json:
        write_json({**to_plain(entity), **dict(more)})
        return 0
    fields = [(name.lower(), _cell(read(entity))) for name, read in noun.columns.items()]
    created = getattr(entity, "created_at", None)
    write_fields([*fields, *([("created", _cell(created))] if created else []), *more])
    return 0


def say_done(noun: str, name: str, done: str) -> int:
    """Say that something is gone.

    Args:
        noun: What it was.
        name: Its id.
        done: What happened to it.

    Returns:
        Exit code.
    """
    write_line(f"{noun} {name} {done}")
    return 0


def to_plain(entity: Entity) -> dict[str, Any]:
    """Write an entity the way the API does.

    Args:
        entity: Any.

    Returns:
        Plain data, instants as RFC 3339 UTC.
    """
    return {name: _plain(value) for name, value in asdict(entity).items()}


def _plain(value: object) -> object:
    match value:
        case datetime():
            return instant_text(value)
        case tuple():
            return list(value)
        case _:
            return value


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return instant_text(value)
        case Mapping():
            return pairs_text(value.items())
        case _:
            return str(value)


def instant_text(at: datetime) -> str:
    """Write an instant for people and programs alike.

    Args:
        at: Aware instant.

    Returns:
        RFC 3339 in UTC, to the second.
    """
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
