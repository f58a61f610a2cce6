"""Price variants and discounts, sums of usage by day, tags, who did a nightly duty.

Moves: every entry is summed into `rollups`, `account_rollups` and, with an end user,
`end_user_rollups`; a price
version learns its unit from its entries. Loses: nothing. Takes: about 10 s per million entries.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SUMS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "quantity", "cost_nanos")
# Whole days since 1970: both databases divide whole numbers to whole numbers.
_DAY = "settled_unix_ns / 86400000000000"
_SUMMED = (
    "COUNT(*), SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens), SUM(quantity), "
    "SUM(cost_nanos)"
)


def _sums() -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS]


def upgrade() -> None:
    _prices()
    op.add_column("entries", sa.Column("tag", sa.Text))
    op.add_column("jobs", sa.Column("end_user", sa.Text))
    op.add_column("jobs", sa.Column("tag", sa.Text))
    _rollups()
    _duties()
    op.execute(
        f"INSERT INTO rollups SELECT {_DAY}, account_id, token_id, model, tier, "
        f"COALESCE(unit, ''), price_id, '', {_SUMMED} FROM entries GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )
    op.execute(
        f"INSERT INTO account_rollups SELECT {_DAY}, account_id, model, COALESCE(unit, ''), "
        f"{_SUMMED} FROM entries GROUP BY 1, 2, 3, 4"
    )
    op.execute(
        f"INSERT INTO end_user_rollups SELECT {_DAY}, account_id, token_id, end_user, "
        f"COALESCE(unit, ''), {_SUMMED} FROM entries WHERE end_user IS NOT NULL "
        "GROUP BY 1, 2, 3, 4, 5"
    )


def _prices() -> None:
    op.add_column("prices", sa.Column("unit", sa.Text))
    op.add_column(
        "prices",
        sa.Column("discount_millionths", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.add_column("prices", sa.Column("source", sa.Text, nullable=False, server_default="card"))
    op.add_column(
        "prices", sa.Column("set_unix_ns", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column("prices", sa.Column("payer_account_id", sa.Text))
    op.execute("UPDATE prices SET set_unix_ns = valid_from_unix_ns")
    op.execute(
        "UPDATE prices SET unit = (SELECT MAX(entries.unit) FROM entries "
        "WHERE entries.price_id = prices.id) WHERE unit_rate > 0"
    )
    op.create_index("prices_by_model", "prices", ["model", "valid_from_unix_ns"])


def _rollups() -> None:
    op.create_table(
        "rollups",
        sa.Column("day", sa.BigInteger, primary_key=True),
        sa.Column("account_id", sa.Text, primary_key=True),
        sa.Column("token_id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("tier", sa.Text, primary_key=True),
        sa.Column("unit", sa.Text, primary_key=True),
        sa.Column("price_id", sa.BigInteger, primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
        *_sums(),
        sqlite_with_rowid=False,
    )
    op.create_index("rollups_by_account", "rollups", ["account_id", "day"])
    op.create_table(
        "account_rollups",
        sa.Column("day", sa.BigInteger, primary_key=True),
        sa.Column("account_id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("unit", sa.Text, primary_key=True),
        *_sums(),
        sqlite_with_rowid=False,
    )
    op.create_index("account_rollups_by_account", "account_rollups", ["account_id", "day"])
    op.create_table(
        "end_user_rollups",
        sa.Column("day", sa.BigInteger, primary_key=True),
        sa.Column("account_id", sa.Text, primary_key=True),
        sa.Column("token_id", sa.Text, primary_key=True),
        sa.Column("end_user", sa.Text, primary_key=True),
        sa.Column("unit", sa.Text, primary_key=True),
        *_sums(),
        sqlite_with_rowid=False,
    )
    op.create_index("end_user_rollups_by_account", "end_user_rollups", ["account_id", "day"])


def _duties() -> None:
    op.create_table(
        "duties",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("gateway", sa.Text, nullable=False),
        sa.Column("held_until_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("done_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "verifications",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("ended_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("differences", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
