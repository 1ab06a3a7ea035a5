"""The hash chain that shows whether the ledger was changed behind its back.

Each record's hash covers the one before it of the same journal. Must never repair anything.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, and_, select

from gateway.ledger.record import LedgerRecord
from gateway.ledger.rows import from_row, to_line_rows
from gateway.tables import record_lines, records, shipped

GENESIS: Final = "0" * 64

# Tags and meters are sorted: a database may keep the members of an object in its own order.
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_BATCH_ROWS: Final = 1_000

ProblemKind = Literal["changed", "missing", "inserted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProblem:
    """One place where the ledger is not what was written.

    Attributes:
        kind: What happened to the record.
        writer: Journal the record came from; ``None`` for a line that belongs to no record.
        seq: Position in that journal; the first one of a gap; ``None`` likewise.
        record_id: The record; ``None`` when it is gone.
        detail: What was found, for a person.
    """

    kind: ProblemKind
    writer: str | None
    seq: int | None
    record_id: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """The end of one journal's chain, as last shipped.

    Attributes:
        seq: Position of the last record; 0 when there is none.
        hash: Its hash; ``GENESIS`` when there is none.
    """

    seq: int
    hash: str


START: Final = ChainHead(seq=0, hash=GENESIS)


def chain_hash(prev_hash: str, record: LedgerRecord) -> str:
    """Compute the hash of a record.

    Args:
        prev_hash: Hash of the record before it in the same journal; ``GENESIS`` for the first.
        record: As journalled.

    Returns:
        SHA-256 over the text of ``prev_hash`` and the record's JSON, 64 hexadecimal digits.
    """
    return hashlib.sha256(prev_hash.encode() + _ENCODER.encode(record)).hexdigest()


def verify_chains(
    connection: Connection, step: Callable[[int], None] | None = None
) -> Iterator[ChainProblem]:
    """Recompute every chain.

    Args:
        connection: Inside a transaction that sees one state of the database throughout.
        step: Told how many more records have been read.

    Yields:
        Every problem, journal by journal and in the order of ``seq``; nothing when all is well.
        Memory does not grow with the ledger.
    """
    heads = load_heads(connection)
    seen = set()
    for writer, found in groupby(_read_records(connection, step), key=itemgetter("writer")):
        seen.add(writer)
        yield from _verify_chain(writer, heads.get(writer, START), found)
    for writer, head in heads.items():
        if writer not in seen and head.seq > 0:
            yield _missing(writer, 1, head.seq)
    yield from _find_strays(connection)


def load_heads(connection: Connection) -> Mapping[str, ChainHead]:
    """Load the end of every chain.

    Args:
        connection: Any.

    Returns:
        Heads by writer.
    """
    rows = connection.execute(select(shipped.c.writer, shipped.c.seq, shipped.c.hash))
    return {row.writer: ChainHead(seq=row.seq, hash=row.hash) for row in rows}


def _verify_chain(
    writer: str, head: ChainHead, found: Iterator[Mapping[str, Any]]
) -> Iterator[ChainProblem]:
    last = START
    for row in found:
        if row["seq"] > head.seq or row["seq"] < 1:
            yield _problem("inserted", row, "the journal never shipped this position")
            continue
        if row["seq"] > last.seq + 1:
            # Whoever deletes a record leaves the next one chained to what is gone.
            is_unknown = row["prev_hash"] == last.hash
            yield _missing(writer, last.seq + 1, row["seq"] - 1, is_unknown=is_unknown)
        elif row["prev_hash"] != last.hash:
            yield _problem("changed", row, "it was chained to another record than the one before")
        if not _is_intact(row):
            yield _problem("changed", row, "its content does not match its hash")
        last = ChainHead(seq=row["seq"], hash=row["hash"])
    if last.seq < head.seq:
        yield _missing(writer, last.seq + 1, head.seq)
    elif last.hash != head.hash:
        yield ChainProblem(
            kind="changed",
            writer=writer,
            seq=last.seq,
            record_id=None,
            detail="the last hash is not the one that was shipped",
        )


def _is_intact(row: Mapping[str, Any]) -> bool:
    try:
        record = from_row(row, row["lines"])
        expected = chain_hash(row["prev_hash"], record)
        lines = to_line_rows(record)
    except (TypeError, ValueError, AttributeError, KeyError):
        # Whoever tampers may leave values of any shape behind.
        return False
    return bool(expected == row["hash"] and lines == row["lines"])


def _read_records(
    connection: Connection, step: Callable[[int], None] | None
) -> Iterator[Mapping[str, Any]]:
    after: tuple[str, int] | None = None
    while batch := _read_batch(connection, after):
        yield from batch
        if step is not None:
            step(len(batch))
        after = (batch[-1]["writer"], batch[-1]["seq"])


def _read_batch(
    connection: Connection, after: tuple[str, int] | None
) -> Sequence[Mapping[str, Any]]:
    query = select(records).order_by(records.c.writer, records.c.seq).limit(_BATCH_ROWS)
    if after is not None:
        writer, seq = after
        query = query.where(
            (records.c.writer > writer) | and_(records.c.writer == writer, records.c.seq > seq)
        )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    lines = load_lines(connection, [row["id"] for row in rows])
    for row in rows:
        row["lines"] = lines.get(row["id"], [])
    return rows


def load_lines(
    connection: Connection, record_ids: Sequence[str]
) -> Mapping[str, list[dict[str, Any]]]:
    """Load the lines of some records.

    Args:
        connection: Any.
        record_ids: The records; a few thousand at most.

    Returns:
        Lines by record id, in order; records without lines are left out.
    """
    if not record_ids:
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    query = (
        select(record_lines)
        .where(record_lines.c.record_id.in_(record_ids))
        .order_by(record_lines.c.record_id, record_lines.c.line)
    )
    for row in connection.execute(query).mappings():
        found.setdefault(row["record_id"], []).append(dict(row))
    return found


def _find_strays(connection: Connection) -> Iterator[ChainProblem]:
    query = (
        select(record_lines.c.record_id, record_lines.c.line)
        .select_from(record_lines.outerjoin(records, records.c.id == record_lines.c.record_id))
        .where(records.c.id.is_(None))
    )
    for row in connection.execute(query):
        yield ChainProblem(
            kind="inserted",
            writer=None,
            seq=None,
            record_id=row.record_id,
            detail=f"line {row.line} belongs to no record",
        )


def _missing(writer: str, first: int, last: int, *, is_unknown: bool = False) -> ChainProblem:
    told = "this record is gone" if first == last else f"records {first} to {last} are gone"
    if is_unknown:
        told += (
            ", and nothing was ever chained to them: the journal was damaged there, or was put "
            "back to an older state and brought them under its former name"
        )
    return ChainProblem(kind="missing", writer=writer, seq=first, record_id=None, detail=told)


def _problem(kind: ProblemKind, row: Mapping[str, Any], detail: str) -> ChainProblem:
    return ChainProblem(
        kind=kind, writer=row["writer"], seq=row["seq"], record_id=row["id"], detail=detail
    )
