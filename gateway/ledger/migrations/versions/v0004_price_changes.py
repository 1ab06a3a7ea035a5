"""What a version of the price book changes, so that a scheduled one can be taken back alone.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns, null for every version that is there: nobody wrote down what it changed."""
    op.add_column("price_versions", sa.Column("carries", _id))
    op.add_column("price_versions", sa.Column("turn", sa.BigInteger()))
    op.add_column("price_versions", sa.Column("edit", _json))
    op.add_column("price_versions", sa.Column("kept", _json))


def downgrade() -> None:
    """Refuse: going back would lose what versions changed.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
