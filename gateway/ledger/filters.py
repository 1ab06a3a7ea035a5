"""Which records a question is about, as conditions both databases understand.

Must never build SQL from text that came from outside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import ColumnElement, FromClause, and_, exists, or_, true

from gateway.tables import records

_PLAIN_NAMES: Final = ("organization", "team", "project", "key", "user", "provider")
# What the name of a tag is written behind.
TAG: Final = "tag."
# In a cut: journals that are not named do not count at all.
NO_OTHERS: Final = "*"


class QueryRefused(ValueError):
    """A question the ledger cannot answer; the text says what to ask instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records are meant; everything given must match.

    Attributes:
        from_us: First instant a record may have started at, microseconds since 1970.
        to_us: First instant after them.
        organization: Organisation id. The next three likewise.
        team: Team id.
        project: Project id.
        key: Key id.
        user: End user.
        provider: Provider id of the configuration.
        model: Model as served or as requested, with or without ``provider/`` before it.
        api: Wire format and operation.
        outcome: How the call ended.
        tags: Value each of these tags must have.
    """

    from_us: int | None = None
    to_us: int | None = None
    organization: str | None = None
    team: str | None = None
    project: str | None = None
    key: str | None = None
    user: str | None = None
    provider: str | None = None
    model: str | None = None
    api: str | None = None
    outcome: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def where(wanted: RecordFilter) -> Sequence[ColumnElement[bool]]:
    """Write a filter as conditions.

    Args:
        wanted: Any filter.

    Returns:
        Conditions on ``records``, to be met together.

    Raises:
        QueryRefused: A tag's name cannot be looked up.
    """
    found = []
    if wanted.from_us is not None:
        found.append(records.c.started_at_us >= wanted.from_us)
    if wanted.to_us is not None:
        found.append(records.c.started_at_us < wanted.to_us)
    return [*found, *whose(wanted, records)]


def whose(wanted: RecordFilter, table: FromClause) -> Sequence[ColumnElement[bool]]:
    """Write a filter as conditions, but for the time.

    Args:
        wanted: Any filter.
        table: ``records``, or one that has the same columns as far as the filter names them.

    Returns:
        Conditions on the table, to be met together.

    Raises:
        QueryRefused: A tag's name cannot be looked up.
    """
    found = []
    for name in (*_PLAIN_NAMES, "api", "outcome"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(table.c[name] == value)
    if wanted.model is not None:
        found.append(_has_model(wanted.model, table))
    found += [tag_value(name, table) == value for name, value in wanted.tags.items()]
    return found


def in_scope(scope: Mapping[str, str]) -> Sequence[ColumnElement[bool]]:
    """Write a budget's scope as conditions.

    Args:
        scope: As in ``Budget.scope``.

    Returns:
        Conditions on ``records`` that agree with ``gateway.budgets.rules.is_in_scope``.

    Raises:
        QueryRefused: The scope names something records do not have.
    """
    found = []
    for part, value in scope.items():
        if part in _PLAIN_NAMES:
            found.append(records.c[part] == value)
        elif part == "model":
            found.append(_is_requested(value))
        elif part.startswith(TAG):
            found.append(tag_value(part.removeprefix(TAG)) == value)
        else:
            raise QueryRefused(f"{part!r} is not part of a scope")
    return found


def group_column(name: str, table: FromClause = records) -> ColumnElement[str | None]:
    """Find what to group records by.

    Args:
        name: Such as ``team`` or ``tag.env``; not ``meter``, which is no column of ``records``.
        table: As for ``whose``.

    Returns:
        The column or expression.

    Raises:
        QueryRefused: There is no such name.
    """
    if name in (*_PLAIN_NAMES, "model", "api", "outcome"):
        return table.c[name]
    if name.startswith(TAG):
        return tag_value(name.removeprefix(TAG), table)
    allowed = ", ".join((*_PLAIN_NAMES, "model", "api", "outcome", "meter", "tag.<name>"))
    raise QueryRefused(f"cannot group by {name!r}; use {allowed}")


def tag_value(name: str, table: FromClause = records) -> ColumnElement[str | None]:
    """Find the value of a tag.

    Args:
        name: The tag.
        table: As for ``whose``.

    Returns:
        An expression that is null where the tag is not set.

    Raises:
        QueryRefused: The name is empty or holds a quote, backslash or control character, which
            SQLite's JSON paths cannot express.
    """
    if not name or not name.isprintable() or '"' in name or "\\" in name:
        raise QueryRefused(f"{name!r} is not the name of a tag")
    value: ColumnElement[str | None] = table.c.tags[name].as_string()
    return value


def is_uncorrected(
    amount: str, up_to: Mapping[str, int] | None = None, table: FromClause = records
) -> ColumnElement[bool]:
    """Tell records whose amount no later record has made known.

    Args:
        amount: Column that a correction would have filled.
        up_to: As for ``within``; later corrections are as good as not there.
        table: As for ``within``.

    Returns:
        A condition on ``records``. Databases evaluate it row by row, through the index on
        ``corrects``, so put it after a condition that few records meet.
    """
    other = records.alias("correction")
    return ~exists().where(
        other.c.corrects == table.c.id, other.c[amount].is_not(None), within(up_to or {}, other)
    )


def within(up_to: Mapping[str, int], table: FromClause = records) -> ColumnElement[bool]:
    """Tell records that a cut through the journals includes.

    Args:
        up_to: Last ``seq`` included, by writer; journals that are not named count fully, or not
            at all where ``NO_OTHERS`` is among the names.
        table: ``records`` or an alias of it.

    Returns:
        A condition.
    """
    named = {writer: seq for writer, seq in up_to.items() if writer != NO_OTHERS}
    return and_(
        table.c.writer.in_(named) if NO_OTHERS in up_to else true(),
        *(or_(table.c.writer != writer, table.c.seq <= seq) for writer, seq in named.items()),
    )


def _has_model(model: str, table: FromClause) -> ColumnElement[bool]:
    names = (table.c.model, table.c.model_requested)
    full_names = [table.c.provider.concat("/").concat(name) for name in names]
    return or_(*(name == model for name in (*names, *full_names)))


def _is_requested(model: str) -> ColumnElement[bool]:
    # "openai/gpt-5" asks the provider "openai" for "gpt-5"; a model whose own name holds a slash
    # loses only its provider's id.
    requested = records.c.model_requested
    return or_(requested == model, requested == records.c.provider.concat("/").concat(model))
