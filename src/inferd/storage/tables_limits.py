"""The tables of limits, and of news between gateways."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
)

from inferd.storage.tables import metadata

limits = Table(
    "limits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text),
    Column("token_id", Text),
    Column("model", Text),
    Column("concurrent_requests", BigInteger),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("own", Boolean, nullable=False),
    Column("changed_unix_ns", BigInteger, nullable=False),
    CheckConstraint("concurrent_requests > 0"),
    CheckConstraint("requests_per_minute > 0"),
    CheckConstraint("tokens_per_minute > 0"),
)

limit_requests = Table(
    "limit_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("rate_limit", BigInteger, nullable=False),
    Column("tpm_rate_limit", BigInteger),
    Column("reason", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("answer", Text),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("resolved_unix_ns", BigInteger),
    CheckConstraint("status IN ('pending', 'granted', 'rejected')"),
)
pending = Index(
    "limit_requests_pending",
    limit_requests.c.account_id,
    unique=True,
    sqlite_where=limit_requests.c.status == "pending",
    postgresql_where=limit_requests.c.status == "pending",
)

changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
