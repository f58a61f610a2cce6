"""Tables of usage: sums by day that live beside the entries, duties of one gateway, checks."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from inferd.storage.tables import metadata

SUMS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "quantity", "cost_nanos")
"""What a roll-up sums; the rest of its columns is its key."""


def _sums() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in SUMS]


rollups = Table(
    "rollups",
    metadata,
    # Whole days since 1970, UTC. First in the key: a month of all accounts is one range of it.
    Column("day", BigInteger, primary_key=True),
    Column("account_id", Text, primary_key=True),
    Column("token_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("tier", Text, primary_key=True),
    # "": billed by tokens alone.
    Column("unit", Text, primary_key=True),
    Column("price_id", BigInteger, primary_key=True),
    # "": none.
    Column("tag", Text, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)
rollups_by_account = Index("rollups_by_account", rollups.c.account_id, rollups.c.day)

# The same sums, coarser: what the charts of a whole account and of all accounts are drawn from.
account_rollups = Table(
    "account_rollups",
    metadata,
    Column("day", BigInteger, primary_key=True),
    Column("account_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)
account_rollups_by_account = Index(
    "account_rollups_by_account", account_rollups.c.account_id, account_rollups.c.day
)

end_user_rollups = Table(
    "end_user_rollups",
    metadata,
    Column("day", BigInteger, primary_key=True),
    Column("account_id", Text, primary_key=True),
    Column("token_id", Text, primary_key=True),
    Column("end_user", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)
end_user_rollups_by_account = Index(
    "end_user_rollups_by_account", end_user_rollups.c.account_id, end_user_rollups.c.day
)

duties = Table(
    "duties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("held_until_unix_ns", BigInteger, nullable=False),
    Column("done_unix_ns", BigInteger, nullable=False),
)

verifications = Table(
    "verifications",
    metadata,
    Column("id", Text, primary_key=True),
    Column("ended_unix_ns", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("differences", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)
