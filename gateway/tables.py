"""Every table of the database, for SQLite and PostgreSQL alike.

Must never use a type that holds money in a float. Money columns are integers of 10^-12 units.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import JSON

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Python's None is the database's NULL here, not JSON's null, so that ``is null`` finds it.
_json = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

# Ids are compared byte by byte, as SQLite does by default, so that paging is the same everywhere.
_id = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

# SQLite counts on by itself in a column of this type alone.
_serial = BigInteger().with_variant(Integer(), "sqlite")

# One row per request, as gateway.ledger.record.LedgerRecord. Append-only.
records = Table(
    "records",
    metadata,
    Column("id", _id, primary_key=True),
    Column("writer", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("started_at_us", BigInteger, nullable=False),
    Column("ended_at_us", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("http_status", Integer),
    Column("stream", Boolean, nullable=False),
    Column("api", Text, nullable=False),
    Column("provider", Text),
    Column("model_requested", Text),
    Column("model", Text),
    Column("provider_request_id", Text),
    Column("organization", Text),
    Column("team", Text),
    Column("project", Text),
    Column("key", Text),
    Column("user", Text),
    Column("tags", _json, nullable=False),
    Column("usage", _json, nullable=False),
    Column("input_total", BigInteger),
    Column("output_total", BigInteger),
    Column("basis", Text, nullable=False),
    Column("user_input_tokens", BigInteger),
    Column("input_parts", _json),
    Column("currency", Text, nullable=False),
    Column("cost_pico", BigInteger),
    Column("list_cost_pico", BigInteger),
    Column("provider_cost_pico", BigInteger),
    Column("price_version", Text),
    Column("cost_status", Text, nullable=False),
    Column("corrects", _id),
    Column("flags", _json, nullable=False),
    Column("ceiling_pico", BigInteger),
    Column("ceiling_tokens", BigInteger),
    Column("priced_as", Text),
    Column("priced_model", Text),
    Column("tier", Text),
    Column("region", Text),
    Column("variants", _json),
    Column("model_asked", Text),
    Column("model_behind", Text),
    Column("tier_asked", Text),
    UniqueConstraint("writer", "seq"),
    Index("ix_records_started_at_us", "started_at_us"),
    Index("ix_records_team_started_at_us", "team", "started_at_us"),
    # What an answer that is fetched later belongs to.
    Index(
        "ix_records_provider_request_id",
        "provider_request_id",
        sqlite_where=text("provider_request_id IS NOT NULL"),
        postgresql_where=text("provider_request_id IS NOT NULL"),
    ),
    # Few records correct another one; the rest stay out of the index.
    Index(
        "ix_records_corrects",
        "corrects",
        sqlite_where=text("corrects IS NOT NULL"),
        postgresql_where=text("corrects IS NOT NULL"),
    ),
)

# The meters of each record: its rated lines, and unpriced counts with no price and no cost.
# Append-only. In SQLite the primary key is the table itself: half the pages to write.
record_lines = Table(
    "record_lines",
    metadata,
    Column("record_id", _id, primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("started_at_us", BigInteger, nullable=False),
    Column("meter", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("sku", Text),
    Column("price_id", Text),
    Column("unit_price", Text),
    Column("per", BigInteger),
    Column("list_cost_pico", BigInteger),
    Column("cost_pico", BigInteger),
    sqlite_with_rowid=False,
)

# How far each journal has been read into the ledger, written in the transaction that did it.
shipped = Table(
    "shipped",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

# What sums of usage are split by: one row for every set of values that has occurred, named by
# ``cell`` because nulls are never equal. ``odd`` is a quantity that fits into no number of the
# sums.
usage_cells = Table(
    "usage_cells",
    metadata,
    Column("id", _serial, primary_key=True),
    Column("cell", _id, nullable=False, unique=True),
    Column("organization", Text),
    Column("team", Text),
    Column("project", Text),
    Column("key", Text),
    Column("provider", Text),
    Column("model", Text),
    Column("model_requested", Text),
    Column("api", Text),
    Column("outcome", Text),
    Column("currency", Text, nullable=False),
    Column("user", Text),
    Column("tags", _json),
    Column("meter", Text),
    Column("odd", Text),
)

# Sums of usage by hour and by day, derived from the records: gateway.ledger.rollups. Every ``view``
# holds all of them, split by other columns. Amounts that can outgrow 64 bits are kept in two parts,
# see gateway.ledger.sums; ``lines`` tells how often an odd quantity occurred.
usage_rollups = Table(
    "usage_rollups",
    metadata,
    Column("view", Text, primary_key=True),
    Column("start_us", BigInteger, primary_key=True, autoincrement=False),
    Column("cell_id", BigInteger, primary_key=True, autoincrement=False),
    *(
        Column(name, BigInteger, nullable=False)
        for name in (
            *("requests", "unknown_cost", "unknown_usage", "lines"),
            *("input_high", "input_low", "output_high", "output_low"),
            *("cost_high", "cost_low", "list_cost_high", "list_cost_low"),
            *("whole_high", "whole_low", "fraction_high", "fraction_low"),
        )
    ),
    sqlite_with_rowid=False,
)

# The last record of each journal that the sums above have, written in the transaction that added
# it.
usage_marks = Table(
    "usage_marks",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# Processes that share budgets, by the name of their journal: what counts as theirs, and whether
# they have gone.
workers = Table(
    "workers",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("from_seq", BigInteger, nullable=False),
    Column("started_at_us", BigInteger, nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
    Column("retired_at_us", BigInteger),
)

teams = Table(
    "teams",
    metadata,
    Column("id", _id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tags", _json, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", _id, primary_key=True),
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("tags", _json, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

# Secrets are kept as SHA-256 only: they are 256-bit random, so a slow hash buys nothing.
keys = Table(
    "keys",
    metadata,
    Column("id", _id, primary_key=True),
    Column("project", Text, nullable=False),
    Column("secret_sha256", Text, nullable=False, unique=True),
    Column("models", _json, nullable=False),
    Column("tags", _json, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("created_at_us", BigInteger, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", _id, primary_key=True),
    Column("definition", _json, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

# Amounts added to single windows of budgets. Append-only: a row without an amount ends those before
# it, when the budget is deleted or another of its name is made.
budget_top_ups = Table(
    "budget_top_ups",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", _id, nullable=False),
    Column("budget", _id, nullable=False),
    Column("amount", Text),
    Column("window_at_us", BigInteger),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_budget_top_ups_budget_seq", "budget", "seq"),
)

# One row, id 1. Grows with every change of teams, projects, keys or budgets; workers watch it.
directory_version = Table(
    "directory_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

# Who changed what, when. Append-only.
audit = Table(
    "audit",
    metadata,
    Column("id", _id, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("noun", Text, nullable=False),
    Column("noun_id", Text, nullable=False),
    Column("before", _json),
    Column("after", _json),
)

# Answers of control-plane POSTs by Idempotency-Key, so that a repeat gets the first answer.
idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),
    Column("request_sha256", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

# Usage that did not pass the gateway, by the hash of the source and the id under which it was told:
# written in the transaction that adds its record, so that a repeat adds nothing.
ingested = Table(
    "ingested",
    metadata,
    Column("name_sha256", Text, primary_key=True),
    Column("content_sha256", Text, nullable=False),
    Column("record_id", _id, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("answer", _json, nullable=False),
)

# Contents of price book versions: the prices of one provider, or the agreements, as gzipped text.
# Named by their hash and shared by versions. Append-only, like the two tables below.
price_objects = Table(
    "price_objects",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# Versions of the price book. Their ``seq`` and that of decisions count on together.
price_versions = Table(
    "price_versions",
    metadata,
    Column("version", _id, primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("digest", Text, nullable=False),
    Column("manifest", _json, nullable=False),
    Column("origin", Text, nullable=False),
    Column("base", _id),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("effective_from_us", BigInteger),
    Column("recorded_by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("status", Text, nullable=False),
    # The version whose change this one has over another base; null for a change of its own.
    Column("carries", _id),
    # Its place among the changes, where a version made again takes that of the one it replaces.
    Column("turn", BigInteger),
    # What was asked for, so that it can be laid over another base.
    Column("edit", _json),
    # Prices set by hand that a candidate keeps beside its lists, and what those say.
    Column("kept", _json),
)

# What was decided about a version after it was recorded; the last row counts.
price_decisions = Table(
    "price_decisions",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("version", _id, nullable=False),
    Column("status", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("effective_from_us", BigInteger),
    Column("actor", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("became", _id),
)

# Runs that priced the past again: a row when one begins and another when it is done. Append-only.
rerate_runs = Table(
    "rerate_runs",
    metadata,
    Column("id", _id, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("request", _json, nullable=False),
    Column("result", _json),
)

# What budgets had to tell: one row per budget, window, kind and threshold, whichever gateway saw it
# first. A rolling window has no start of its own: there the span runs from where the one before
# ended to where spending fell clearly below, and is open until then.
budget_alerts = Table(
    "budget_alerts",
    metadata,
    Column("id", _id, primary_key=True),
    Column("budget", _id, nullable=False),
    Column("window_start_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("threshold", Integer, nullable=False),
    Column("window_end_us", BigInteger),
    Column("raised_at_us", BigInteger, nullable=False),
    Column("raised_by", Text, nullable=False),
    # A lower threshold that was passed together with a higher one: known, but nobody is told.
    Column("is_silent", Boolean, nullable=False),
    Column("facts", _json, nullable=False),
    UniqueConstraint("budget", "window_start_us", "kind", "threshold"),
    Index("ix_budget_alerts_window_end_us", "window_end_us"),
)

# Who is told, and how far that is: the outbox, and the log of what was sent.
alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert", _id, primary_key=True),
    Column("receiver", _id, primary_key=True),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at_us", BigInteger),
    Column("leased_by", Text),
    Column("leased_until_us", BigInteger),
    Column("last_error", Text),
    Column("done_at_us", BigInteger),
    # Few deliveries wait; the rest stay out of the index.
    Index(
        "ix_alert_deliveries_receiver",
        "receiver",
        "next_attempt_at_us",
        sqlite_where=text("status = 'waiting'"),
        postgresql_where=text("status = 'waiting'"),
    ),
)
