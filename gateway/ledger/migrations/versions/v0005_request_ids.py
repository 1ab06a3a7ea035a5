"""An index by the provider's own id, for what is told of a call after it has ended.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the index; records without such an id stay out of it."""
    is_there = sa.text("provider_request_id IS NOT NULL")
    op.create_index(
        "ix_records_provider_request_id",
        "records",
        ["provider_request_id"],
        sqlite_where=is_there,
        postgresql_where=is_there,
    )


def downgrade() -> None:
    """Refuse, as every revision before it.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
