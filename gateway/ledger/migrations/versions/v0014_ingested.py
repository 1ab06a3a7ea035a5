"""What was told of calls that did not pass the gateway, so that nothing is booked twice.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "ingested",
        sa.Column("name_sha256", sa.Text(), nullable=False),
        sa.Column("content_sha256", sa.Text(), nullable=False),
        sa.Column("record_id", _id, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("answer", _json, nullable=False),
        sa.PrimaryKeyConstraint("name_sha256", name=op.f("pk_ingested")),
    )


def downgrade() -> None:
    """Refuse: going back would book again what was told before.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")
