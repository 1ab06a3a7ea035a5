"""Records by month on PostgreSQL, and views of the sums for people who write SQL.

Must never be edited once it has been released: databases remember that they ran it.

Records have ids that sort by time, so their months are ranges of ids, and an id stays unique over
all of them. What is there already becomes the first part as it stands: nothing is copied.
SQLite has no partitions; there nothing changes.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLES: Final = {"records": "id", "record_lines": "record_id"}
_INDEXES: Final = {
    "records": (
        ("ix_records_corrects", "(corrects) WHERE corrects IS NOT NULL"),
        ("ix_records_provider_request_id", "(provider_request_id) WHERE {} IS NOT NULL"),
        ("ix_records_started_at_us", "(started_at_us)"),
        ("ix_records_team_started_at_us", "(team, started_at_us)"),
    ),
    "record_lines": (),
}
_KEYS: Final = {"records": "(id)", "record_lines": "(record_id, line)"}
_ULID: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

_NEXT_MONTH: Final = sa.text(
    "SELECT CAST(extract(epoch FROM "
    "date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AS bigint)"
)
_SUM: Final = "({0}_high::numeric * 1000000 + {0}_low)"
_OF_CELL: Final = "c.organization, c.team, c.project, c.key, c.provider, c.model, c.currency"


def upgrade() -> None:
    """Put the tables there under parents, and make the views."""
    if op.get_bind().dialect.name != "postgresql":
        return
    # A part says the name of the table that everybody knows.
    op.execute(
        """
        CREATE OR REPLACE FUNCTION taximeter_refuse_change() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', coalesce(TG_ARGV[0], TG_TABLE_NAME)
            USING ERRCODE = 'integrity_constraint_violation';
        END
        $$
        """
    )
    border = _first_id(op.get_bind().execute(_NEXT_MONTH).scalar_one())
    for table in _TABLES:
        _put_under_parent(table, border)
    for step in ("hour", "day"):
        _make_view(step)
    _make_view_of_meters()


def downgrade() -> None:
    """Refuse: there is one way to go.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")


def _put_under_parent(table: str, border: str) -> None:
    first, key = f"{table}_first", _TABLES[table]
    op.execute(f"ALTER TABLE {table} RENAME TO {first}")
    op.execute(f"ALTER TABLE {first} RENAME CONSTRAINT pk_{table} TO pk_{first}")
    for name, _ in _INDEXES[table]:
        op.execute(f"ALTER INDEX {name} RENAME TO {name.replace(table, first)}")
    if table == "records":
        op.execute(f"ALTER TABLE {first} RENAME CONSTRAINT uq_records_writer_seq TO uq_{first}")
    op.execute(f"CREATE TABLE {table} (LIKE {first} INCLUDING DEFAULTS) PARTITION BY RANGE ({key})")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY {_KEYS[table]}")
    for name, columns in _INDEXES[table]:
        op.execute(f"CREATE INDEX {name} ON {table} {columns.format('provider_request_id')}")
    # Ids that no clock of this month could have made go where all strange ones go.
    op.execute(f"CREATE TABLE {table}_other (LIKE {table} INCLUDING ALL)")
    op.execute(f"DROP TRIGGER {table}_refuse_change ON {first}")
    strange = f"{first} WHERE {key} >= '{border}'"
    op.execute(f"INSERT INTO {table}_other SELECT * FROM {strange}")  # noqa: S608 - of this file
    op.execute(f"DELETE FROM {strange}")  # noqa: S608 - likewise
    op.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ('{border}')"
    )
    op.execute(f"ALTER TABLE {table} ATTACH PARTITION {table}_other DEFAULT")
    if table == "records":
        op.execute(
            f"ALTER TABLE {table}_other ADD CONSTRAINT uq_{table}_other UNIQUE (writer, seq)"
        )
    op.execute(
        f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION taximeter_refuse_change('{table}')"
    )
    for part in (table, f"{table}_other"):
        op.execute(
            f"CREATE TRIGGER {part}_refuse_truncate BEFORE TRUNCATE ON {part} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION taximeter_refuse_change('{table}')"
        )


def _make_view(step: str) -> None:
    columns = (
        f"to_timestamp(r.start_us / 1000000) AS {step}",
        f"{_OF_CELL}, c.model_requested, c.api, c.outcome",
        "r.requests AS calls, r.unknown_cost AS calls_of_unknown_cost",
        f"{_SUM.format('r.cost')} / 1000000000000 AS cost",
        f"{_SUM.format('r.list_cost')} / 1000000000000 AS list_cost",
        f"{_SUM.format('r.input')}::bigint AS input_tokens",
        f"{_SUM.format('r.output')}::bigint AS output_tokens",
    )
    _make(f"usage_by_{step}", columns, f"r.view = 'plain.{step}'")


def _make_view_of_meters() -> None:
    quantity = f"{_SUM.format('r.whole')} + {_SUM.format('r.fraction')} / 1000000000000"
    columns = (
        f"to_timestamp(r.start_us / 1000000) AS day, {_OF_CELL}, c.meter",
        f"({quantity}) AS quantity, {_SUM.format('r.cost')} / 1000000000000 AS cost",
    )
    _make("usage_by_day_and_meter", columns, "r.view = 'meters.day' AND c.odd IS NULL")


def _make(name: str, columns: Sequence[str], condition: str) -> None:
    op.execute(
        f"CREATE VIEW {name} AS SELECT {', '.join(columns)} FROM usage_rollups r "  # noqa: S608
        f"JOIN usage_cells c ON c.id = r.cell_id WHERE {condition}"
    )


def _first_id(seconds: int) -> str:
    """The part of an id that tells the time; sorts before every id of that moment."""
    millis = seconds * 1000
    return "".join(_ULID[millis >> shift & 31] for shift in range(45, -1, -5))
