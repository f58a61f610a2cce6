"""The first tables: accounts, tokens, prices, entries, reservations.

Moves: nothing, there was nothing before. Loses: nothing. Takes: milliseconds.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("credit_nanos", sa.BigInteger),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("fragment", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("revoked_unix_ns", sa.BigInteger),
    )
    op.create_index(
        "tokens_live_names",
        "tokens",
        ["account_id", "name"],
        unique=True,
        sqlite_where=sa.text("revoked_unix_ns IS NULL"),
        postgresql_where=sa.text("revoked_unix_ns IS NULL"),
    )
    op.create_table(
        "prices",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("input_rate", sa.BigInteger, nullable=False),
        sa.Column("cached_rate", sa.BigInteger, nullable=False),
        sa.Column("output_rate", sa.BigInteger, nullable=False),
        sa.Column("valid_from_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("valid_to_unix_ns", sa.BigInteger),
        sa.CheckConstraint("input_rate >= 0 AND cached_rate >= 0 AND output_rate >= 0"),
    )
    op.create_index(
        "prices_current",
        "prices",
        ["model"],
        unique=True,
        sqlite_where=sa.text("valid_to_unix_ns IS NULL"),
        postgresql_where=sa.text("valid_to_unix_ns IS NULL"),
    )
    op.create_table(
        "entries",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("dialect", sa.Text, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("end_user", sa.Text),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("price_id", sa.Integer, sa.ForeignKey("prices.id"), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("settled_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("queue_ms", sa.BigInteger, nullable=False),
        sa.Column("first_event_ms", sa.BigInteger),
        sa.Column("runtime_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint("status IN ('succeeded', 'cancelled', 'failed')"),
        sa.CheckConstraint("cached_tokens >= 0 AND cached_tokens <= input_tokens"),
        sa.CheckConstraint("output_tokens >= 0 AND cost_nanos >= 0"),
    )
    op.create_index("entries_by_account", "entries", ["account_id", "settled_unix_ns"])
    op.create_table(
        "reservations",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("nanos", sa.BigInteger, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.CheckConstraint("nanos >= 0"),
    )


def downgrade() -> None:
    for table in ("reservations", "entries", "prices", "tokens", "accounts"):
        op.drop_table(table)
