"""Versions of the price book: their contents, who recorded them, what was decided."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

_APPEND_ONLY: Final = ("price_objects", "price_versions", "price_decisions")


def upgrade() -> None:
    """Create the tables of prices; records keep the names of their versions as they are."""
    op.create_table(
        "price_objects",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_price_objects")),
    )
    op.create_table(
        "price_versions",
        sa.Column("version", _id, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("manifest", _json, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("base", _id),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("effective_from_us", sa.BigInteger()),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_price_versions")),
        sa.UniqueConstraint("seq", name=op.f("uq_price_versions_seq")),
    )
    op.create_table(
        "price_decisions",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", _id, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("effective_from_us", sa.BigInteger()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("became", _id),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_price_decisions")),
    )
    for table in _APPEND_ONLY:
        if op.get_bind().dialect.name == "sqlite":
            _refuse_changes_sqlite(table)
        else:
            _refuse_changes_postgres(table)


def downgrade() -> None:
    """Refuse: records name versions that only these tables hold.

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
    # The function is the ledger's, from the first revision.
    op.execute(
        f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION taximeter_refuse_change()"
    )
    op.execute(
        f"CREATE TRIGGER {table}_refuse_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION taximeter_refuse_change()"
    )
