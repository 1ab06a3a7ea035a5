"""Amounts added to single windows of budgets.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table, which like the ledger's is only ever added to."""
    op.create_table(
        "budget_top_ups",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", _id, nullable=False),
        sa.Column("budget", _id, nullable=False),
        sa.Column("amount", sa.Text()),
        sa.Column("window_at_us", sa.BigInteger()),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_budget_top_ups")),
    )
    op.create_index("ix_budget_top_ups_budget_seq", "budget_top_ups", ["budget", "seq"])
    if op.get_bind().dialect.name == "sqlite":
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER budget_top_ups_refuse_{change} BEFORE {change.upper()} "
                "ON budget_top_ups BEGIN SELECT RAISE(ABORT, 'budget_top_ups is append-only'); END"
            )
        return
    for name, change, each in (
        ("change", "UPDATE OR DELETE", "ROW"),
        ("truncate", "TRUNCATE", "STATEMENT"),
    ):
        op.execute(
            f"CREATE TRIGGER budget_top_ups_refuse_{name} BEFORE {change} ON budget_top_ups "
            f"FOR EACH {each} EXECUTE FUNCTION taximeter_refuse_change()"
        )


def downgrade() -> None:
    """Refuse: going back would lose who added what.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
