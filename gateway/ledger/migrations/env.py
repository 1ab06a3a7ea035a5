"""Runs the revisions on the connection that ``gateway.ledger.migrate`` hands over.

Must never open a database of its own: the caller holds the lock and the transaction.
"""

from alembic import context

from gateway.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
