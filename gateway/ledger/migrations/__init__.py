"""The history of the tables, as Alembic revisions that run from an installed package."""
