"""Table of native calls that are answered by a webhook: the call, its answer, its delivery."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, LargeBinary, Table, Text

from inferd.storage.tables import metadata

webhook_calls = Table(
    "webhook_calls",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    Column("jwt_id", Text),
    Column("jwt_limit_nanos", BigInteger),
    Column("path", Text, nullable=False),
    Column("query", Text, nullable=False),
    # Those of the call that say something about its body, as msgpack.
    Column("headers", LargeBinary, nullable=False),
    # Names of blobs.
    Column("body", Text, nullable=False),
    Column("answer", Text),
    Column("webhook", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("ended_unix_ns", BigInteger),
    Column("gateway", Text, nullable=False, server_default=""),
    Column("delivery", Text, nullable=False),
    # When the next attempt is due; NULL: none is.
    Column("due_unix_ns", BigInteger),
    Column("attempts", LargeBinary, nullable=False),
    CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')"),
    CheckConstraint("delivery IN ('waiting', 'pending', 'delivered', 'failed')"),
)
by_account = Index(
    "webhook_calls_by_account", webhook_calls.c.account_id, webhook_calls.c.created_unix_ns
)
by_status = Index("webhook_calls_by_status", webhook_calls.c.status)
by_due = Index("webhook_calls_by_due", webhook_calls.c.due_unix_ns)
