"""Table of voices that accounts have added."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from inferd.storage.tables import metadata

voices = Table(
    "voices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    Column("updated_unix_ns", BigInteger, nullable=False),
    # Pairs of a type and a file, as msgpack.
    Column("recordings", LargeBinary, nullable=False),
)
by_account = Index("voices_by_account", voices.c.account_id, voices.c.created_unix_ns)
