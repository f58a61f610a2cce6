"""The tables, as the newest migration leaves them. Money is whole nano-dollars, time Unix ns."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("credit_nanos", BigInteger),
    Column("kind", Text, nullable=False, server_default="personal"),
    Column("profile", Text, nullable=False, server_default="{}"),
    Column("suspended", Text),
    Column("deleted_unix_ns", BigInteger),
    Column("monthly_limit_nanos", BigInteger),
    # What the installation's admin allows; the lower of both applies.
    Column("admin_monthly_limit_nanos", BigInteger),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("fragment", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("revoked_unix_ns", BigInteger),
    Column("person_id", Text),
    Column("expires_unix_ns", BigInteger),
    Column("allowed_ips", Text),
    Column("allowed_models", Text),
    Column("sealed", LargeBinary),
    Column("monthly_limit_nanos", BigInteger),
)
live_names = Index(
    "tokens_live_names",
    tokens.c.account_id,
    tokens.c.name,
    unique=True,
    sqlite_where=tokens.c.revoked_unix_ns.is_(None),
    postgresql_where=tokens.c.revoked_unix_ns.is_(None),
)

prices = Table(
    "prices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("input_rate", BigInteger, nullable=False),
    Column("cached_rate", BigInteger, nullable=False),
    Column("output_rate", BigInteger, nullable=False),
    Column("valid_from_unix_ns", BigInteger, nullable=False),
    Column("valid_to_unix_ns", BigInteger),
    Column("priority_millionths", BigInteger),
    Column("flex_millionths", BigInteger),
    Column("unit_rate", BigInteger, nullable=False, server_default="0"),
    Column("unit", Text),
    Column("discount_millionths", BigInteger, nullable=False, server_default="0"),
    Column("source", Text, nullable=False, server_default="card"),
    Column("set_unix_ns", BigInteger, nullable=False, server_default="0"),
    Column("payer_account_id", Text),
    CheckConstraint("input_rate >= 0 AND cached_rate >= 0 AND output_rate >= 0"),
)
prices_by_model = Index("prices_by_model", prices.c.model, prices.c.valid_from_unix_ns)
current_price = Index(
    "prices_current",
    prices.c.model,
    unique=True,
    sqlite_where=prices.c.valid_to_unix_ns.is_(None),
    postgresql_where=prices.c.valid_to_unix_ns.is_(None),
)

entries = Table(
    "entries",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("error_code", Text),
    Column("end_user", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("price_id", Integer, ForeignKey("prices.id"), nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("settled_unix_ns", BigInteger, nullable=False),
    Column("queue_ms", BigInteger, nullable=False),
    Column("first_event_ms", BigInteger),
    Column("runtime_ms", BigInteger, nullable=False),
    Column("tier", Text, nullable=False, server_default="default"),
    Column("unit", Text),
    Column("quantity", BigInteger, nullable=False, server_default="0"),
    Column("tag", Text),
    Column("jwt_id", Text),
    CheckConstraint("status IN ('succeeded', 'cancelled', 'failed')"),
    CheckConstraint("cached_tokens >= 0 AND cached_tokens <= input_tokens"),
    CheckConstraint("output_tokens >= 0 AND cost_nanos >= 0"),
)
by_account = Index("entries_by_account", entries.c.account_id, entries.c.settled_unix_ns)

reservations = Table(
    "reservations",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("gateway", Text, nullable=False, server_default=""),
    CheckConstraint("nanos >= 0"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("status", Text, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("ended_unix_ns", BigInteger),
    Column("end_user", Text),
    Column("tag", Text),
    Column("gateway", Text, nullable=False, server_default=""),
    Column("jwt_id", Text),
    Column("tier", Text, nullable=False, server_default="default"),
    Column("jwt_limit_nanos", BigInteger),
    Column("price_id", Integer),
    CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')"),
)
by_status = Index("jobs_by_status", jobs.c.status)
