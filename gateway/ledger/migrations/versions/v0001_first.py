"""Every table, and the triggers that keep the ledger append-only."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

_APPEND_ONLY: Final = ("records", "record_lines", "audit")


def upgrade() -> None:
    """Create all tables and triggers in an empty database."""
    _create_records()
    _create_record_lines()
    _create_shipped()
    _create_directory()
    _create_keys()
    _create_control()
    for table in _APPEND_ONLY:
        if op.get_bind().dialect.name == "sqlite":
            _refuse_changes_sqlite(table)
        else:
            _refuse_changes_postgres(table)


def downgrade() -> None:
    """Refuse: there is nothing before the first revision but an empty database.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")


def _refuse_changes_sqlite(table: str) -> None:
    for change in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER {table}_refuse_{change} BEFORE {change.upper()} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def _refuse_changes_postgres(table: str) -> None:
    op.execute(
        """
        CREATE OR REPLACE FUNCTION taximeter_refuse_change() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
        END
        $$
        """
    )
    op.execute(
        f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION taximeter_refuse_change()"
    )
    op.execute(
        f"CREATE TRIGGER {table}_refuse_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION taximeter_refuse_change()"
    )


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("id", _id, nullable=False),
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("prev_hash", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("api", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text()),
        sa.Column("model_requested", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("provider_request_id", sa.Text()),
        sa.Column("organization", sa.Text()),
        sa.Column("team", sa.Text()),
        sa.Column("project", sa.Text()),
        sa.Column("key", sa.Text()),
        sa.Column("user", sa.Text()),
        sa.Column("tags", _json, nullable=False),
        sa.Column("usage", _json, nullable=False),
        sa.Column("input_total", sa.BigInteger()),
        sa.Column("output_total", sa.BigInteger()),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("user_input_tokens", sa.BigInteger()),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("cost_pico", sa.BigInteger()),
        sa.Column("list_cost_pico", sa.BigInteger()),
        sa.Column("provider_cost_pico", sa.BigInteger()),
        sa.Column("price_version", sa.Text()),
        sa.Column("cost_status", sa.Text(), nullable=False),
        sa.Column("corrects", _id),
        sa.Column("flags", _json, nullable=False),
        sa.Column("ceiling_pico", sa.BigInteger()),
        sa.Column("ceiling_tokens", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_records")),
        sa.UniqueConstraint("writer", "seq", name=op.f("uq_records_writer_seq")),
    )
    op.create_index(
        "ix_records_corrects",
        "records",
        ["corrects"],
        sqlite_where=sa.text("corrects IS NOT NULL"),
        postgresql_where=sa.text("corrects IS NOT NULL"),
    )
    op.create_index("ix_records_started_at_us", "records", ["started_at_us"])
    op.create_index("ix_records_team_started_at_us", "records", ["team", "started_at_us"])


def _create_record_lines() -> None:
    op.create_table(
        "record_lines",
        sa.Column("record_id", _id, nullable=False),
        sa.Column("line", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text()),
        sa.Column("price_id", sa.Text()),
        sa.Column("unit_price", sa.Text()),
        sa.Column("per", sa.BigInteger()),
        sa.Column("list_cost_pico", sa.BigInteger()),
        sa.Column("cost_pico", sa.BigInteger()),
        sa.PrimaryKeyConstraint("record_id", "line", name=op.f("pk_record_lines")),
        sqlite_with_rowid=False,
    )


def _create_shipped() -> None:
    op.create_table(
        "shipped",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name=op.f("pk_shipped")),
    )


def _create_directory() -> None:
    op.create_table(
        "teams",
        sa.Column("id", _id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tags", _json, nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
    )
    op.create_table(
        "projects",
        sa.Column("id", _id, nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tags", _json, nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_table(
        "directory_version",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_directory_version")),
    )


def _create_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", _id, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("models", _json, nullable=False),
        sa.Column("tags", _json, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger()),
        sa.Column("revoked_at_us", sa.BigInteger()),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_keys_secret_sha256")),
    )


def _create_control() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", _id, nullable=False),
        sa.Column("definition", _json, nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )
    op.create_table(
        "audit",
        sa.Column("id", _id, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("noun", sa.Text(), nullable=False),
        sa.Column("noun_id", sa.Text(), nullable=False),
        sa.Column("before", _json),
        sa.Column("after", _json),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency")),
    )
