"""What a call asked for, beside what it was priced as.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the columns, null for every record that is there."""
    for name in ("model_asked", "model_behind", "tier_asked"):
        op.add_column("records", sa.Column(name, sa.Text()))


def downgrade() -> None:
    """Refuse: going back would lose what records were priced by.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
