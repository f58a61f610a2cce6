"""Budgets: what was spent and leased of each purse; credit history; idempotent calls.

Moves: the costs of all entries are summed into `purses` (of each account; of each account and
token by month of admission); an account's credit becomes its first grant.
Loses: nothing. Takes: about 2 s per million entries.

Revision ID: 0006
Revises: 0005
"""

from collections import Counter
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Both databases divide whole numbers to whole numbers.
_SPENT_BY_DAY = (
    "SELECT account_id, token_id, created_unix_ns / 86400000000000, SUM(cost_nanos) "
    "FROM entries GROUP BY 1, 2, 3"
)


def upgrade() -> None:
    op.add_column("accounts", sa.Column("monthly_limit_nanos", sa.BigInteger))
    op.add_column("tokens", sa.Column("monthly_limit_nanos", sa.BigInteger))
    op.add_column("entries", sa.Column("jwt_id", sa.Text))
    op.add_column("jobs", sa.Column("gateway", sa.Text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("jwt_id", sa.Text))
    op.add_column(
        "reservations", sa.Column("gateway", sa.Text, nullable=False, server_default="")
    )
    _tables()
    op.execute(
        "INSERT INTO grants (id, account_id, nanos, note, granted_by, created_unix_ns) "
        "SELECT 'first_' || id, id, credit_nanos, 'Credit so far.', '', created_unix_ns "
        "FROM accounts WHERE credit_nanos IS NOT NULL"
    )
    _fill_purses()


def _tables() -> None:
    op.create_table(
        "purses",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("spent_nanos", sa.BigInteger, nullable=False),
        sa.CheckConstraint("spent_nanos >= 0"),
    )
    op.create_table(
        "leases",
        sa.Column("purse", sa.Text, primary_key=True),
        sa.Column("gateway", sa.Text, primary_key=True),
        sa.Column("nanos", sa.BigInteger, nullable=False),
        sa.Column("recalled", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.CheckConstraint("nanos >= 0"),
    )
    op.create_index("leases_by_gateway", "leases", ["gateway"])
    op.create_table(
        "gateways",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("epoch_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("seen_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("nanos", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("granted_by", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("grants_by_account", "grants", ["account_id", "created_unix_ns"])
    op.create_table(
        "idempotency",
        sa.Column("account_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("gateway", sa.Text, nullable=False),
        sa.Column("epoch_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.LargeBinary),
        sa.Column("body", sa.LargeBinary),
        sa.Column("body_bytes", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_index("idempotency_by_time", "idempotency", ["created_unix_ns"])


def _fill_purses() -> None:
    connection = op.get_bind()
    spent: Counter[str] = Counter()
    for account_id, token_id, day, nanos in connection.execute(sa.text(_SPENT_BY_DAY)):
        month = datetime.fromtimestamp(day * 86400, UTC).strftime("%Y-%m")
        spent[f"credit:{account_id}"] += int(nanos)
        spent[f"month:{account_id}:{month}"] += int(nanos)
        spent[f"token:{token_id}:{month}"] += int(nanos)
    if spent:
        rows = [{"key": key, "nanos": nanos} for key, nanos in spent.items()]
        connection.execute(
            sa.text("INSERT INTO purses (key, spent_nanos) VALUES (:key, :nanos)"), rows
        )
