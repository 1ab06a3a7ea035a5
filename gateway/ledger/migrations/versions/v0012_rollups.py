"""Sums of usage by hour and by day, and how far they are.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the tables, empty: a gateway fills them beside its work."""
    texts = ("organization", "team", "project", "key", "provider")
    models = ("model", "model_requested", "api", "outcome")
    sums = (
        *("requests", "unknown_cost", "unknown_usage", "lines"),
        *("input_high", "input_low", "output_high", "output_low"),
        *("cost_high", "cost_low", "list_cost_high", "list_cost_low"),
        *("whole_high", "whole_low", "fraction_high", "fraction_low"),
    )
    op.create_table(
        "usage_cells",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("cell", _id, nullable=False),
        *(sa.Column(name, sa.Text()) for name in (*texts, *models)),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("user", sa.Text()),
        sa.Column("tags", _json),
        sa.Column("meter", sa.Text()),
        sa.Column("odd", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_cells")),
        sa.UniqueConstraint("cell", name=op.f("uq_usage_cells_cell")),
    )
    op.create_table(
        "usage_rollups",
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cell_id", sa.BigInteger(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in sums),
        sa.PrimaryKeyConstraint("view", "start_us", "cell_id", name=op.f("pk_usage_rollups")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_marks",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name=op.f("pk_usage_marks")),
    )


def downgrade() -> None:
    """Refuse, as every revision before it.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
