"""Tables of sign-in and operation: sessions, passwords, sign-ins under way, audit."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from inferd.storage.tables import metadata

audit = Table(
    "audit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at_unix_ns", BigInteger, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    Column("token_name", Text, nullable=False),
    Column("person_id", Text),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
audit_by_account = Index("audit_by_account", audit.c.account_id, audit.c.id)

passwords = Table(
    "passwords",
    metadata,
    Column("person_id", Text, primary_key=True),
    Column("login", Text, nullable=False, unique=True),
    Column("hash", Text, nullable=False),
    Column("changed_unix_ns", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("person_id", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("seen_unix_ns", BigInteger, nullable=False),
    Column("expires_unix_ns", BigInteger, nullable=False),
)
sessions_by_person = Index("sessions_by_person", sessions.c.person_id)

sign_ins = Table(
    "sign_ins",
    metadata,
    Column("state_digest", LargeBinary, primary_key=True),
    Column("browser_digest", LargeBinary, nullable=False),
    Column("provider", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("verifier", Text, nullable=False),
    Column("return_to", Text, nullable=False),
    Column("expires_unix_ns", BigInteger, nullable=False),
)

sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("failures", BigInteger, nullable=False),
    Column("until_unix_ns", BigInteger, nullable=False),
)

command_sign_ins = Table(
    "command_sign_ins",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("person_id", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("expires_unix_ns", BigInteger, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("person_id", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
)
