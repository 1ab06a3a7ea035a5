"""Who shares budgets.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the table, empty."""
    op.create_table(
        "workers",
        sa.Column("writer", sa.Text(), primary_key=True),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.Column("retired_at_us", sa.BigInteger()),
    )


def downgrade() -> None:
    """Refuse: going back would lose whose claims are still open.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
