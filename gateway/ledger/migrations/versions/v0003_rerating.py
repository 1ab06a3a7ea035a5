"""What a record was priced as, and the runs that price the past again.

Must never be edited once it has been released: databases remember that they ran it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_id = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns, null for every record that is there, and the table of runs."""
    for name in ("priced_as", "priced_model", "tier", "region"):
        op.add_column("records", sa.Column(name, sa.Text()))
    op.add_column("records", sa.Column("variants", _json))
    op.create_table(
        "rerate_runs",
        sa.Column("id", _id, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("request", _json, nullable=False),
        sa.Column("result", _json),
        sa.PrimaryKeyConstraint("id", "status", name=op.f("pk_rerate_runs")),
    )
    _refuse_changes()


def downgrade() -> None:
    """Refuse: going back would lose what records were priced as.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the ledger is append-only: restore a backup to go back")


def _refuse_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER rerate_runs_refuse_{change} BEFORE {change.upper()} "
                "ON rerate_runs BEGIN SELECT RAISE(ABORT, 'rerate_runs is append-only'); END"
            )
        return
    for name, change, each in (
        ("change", "UPDATE OR DELETE", "ROW"),
        ("truncate", "TRUNCATE", "STATEMENT"),
    ):
        op.execute(
            f"CREATE TRIGGER rerate_runs_refuse_{name} BEFORE {change} ON rerate_runs "
            f"FOR EACH {each} EXECUTE FUNCTION taximeter_refuse_change()"
        )
