"""Tables of budgets: what was spent of each purse, who has leased the rest, credit, called keys."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    false,
)

from inferd.storage.tables import metadata

purses = Table(
    "purses",
    metadata,
    # credit:ACCOUNT, month:ACCOUNT:2026-11, token:TOKEN:2026-11, jwt:ID
    Column("key", Text, primary_key=True),
    Column("spent_nanos", BigInteger, nullable=False),
    CheckConstraint("spent_nanos >= 0"),
)

leases = Table(
    "leases",
    metadata,
    Column("purse", Text, primary_key=True),
    Column("gateway", Text, primary_key=True),
    Column("nanos", BigInteger, nullable=False),
    # Another gateway needs what is not spent of it.
    Column("recalled", Boolean, nullable=False, server_default=false()),
    CheckConstraint("nanos >= 0"),
)
leases_by_gateway = Index("leases_by_gateway", leases.c.gateway)

gateways = Table(
    "gateways",
    metadata,
    Column("id", Text, primary_key=True),
    # When its process began: a second one of the same id ends the first.
    Column("epoch_unix_ns", BigInteger, nullable=False),
    Column("seen_unix_ns", BigInteger, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("granted_by", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
)
grants_by_account = Index("grants_by_account", grants.c.account_id, grants.c.created_unix_ns)

idempotency = Table(
    "idempotency",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    # Of method, path and body: the same key may not ask for something else.
    Column("fingerprint", LargeBinary, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("epoch_unix_ns", BigInteger, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    # NULL while the call runs.
    Column("status", Integer),
    Column("headers", LargeBinary),
    # NULL: the answer was too large to be kept.
    Column("body", LargeBinary),
    # Of the body, or 0.
    Column("body_bytes", BigInteger, nullable=False, server_default="0"),
)
idempotency_by_time = Index("idempotency_by_time", idempotency.c.created_unix_ns)
