"""What budgets had to tell, and who was told.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table of alerts and that of their deliveries."""
    op.create_table(
        "budget_alerts",
        sa.Column("id", _id, nullable=False),
        sa.Column("budget", _id, nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("window_end_us", sa.BigInteger()),
        sa.Column("raised_at_us", sa.BigInteger(), nullable=False),
        sa.Column("raised_by", sa.Text(), nullable=False),
        sa.Column("is_silent", sa.Boolean(), nullable=False),
        sa.Column("facts", _json, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_alerts")),
        sa.UniqueConstraint(
            "budget",
            "window_start_us",
            "kind",
            "threshold",
            name=op.f("uq_budget_alerts_budget_window_start_us_kind_threshold"),
        ),
    )
    op.create_index(
        op.f("ix_budget_alerts_window_end_us"), "budget_alerts", ["window_end_us"], unique=False
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("alert", _id, nullable=False),
        sa.Column("receiver", _id, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at_us", sa.BigInteger()),
        sa.Column("leased_by", sa.Text()),
        sa.Column("leased_until_us", sa.BigInteger()),
        sa.Column("last_error", sa.Text()),
        sa.Column("done_at_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("alert", "receiver", name=op.f("pk_alert_deliveries")),
    )
    op.create_index(
        op.f("ix_alert_deliveries_receiver"),
        "alert_deliveries",
        ["receiver", "next_attempt_at_us"],
        unique=False,
        sqlite_where=sa.text("status = 'waiting'"),
        postgresql_where=sa.text("status = 'waiting'"),
    )


def downgrade() -> None:
    """Refuse: going back would lose what was told to whom, and tell it again.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
