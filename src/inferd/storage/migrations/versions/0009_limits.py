"""Limits of accounts, tokens and models; requests for higher ones; news between gateways.

Moves: nothing. Loses: nothing. Takes: milliseconds.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "limits",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text),
        sa.Column("token_id", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("concurrent_requests", sa.BigInteger),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("own", sa.Boolean, nullable=False),
        sa.Column("changed_unix_ns", sa.BigInteger, nullable=False),
        sa.CheckConstraint("concurrent_requests > 0"),
        sa.CheckConstraint("requests_per_minute > 0"),
        sa.CheckConstraint("tokens_per_minute > 0"),
    )
    op.create_table(
        "limit_requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("rate_limit", sa.BigInteger, nullable=False),
        sa.Column("tpm_rate_limit", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("resolved_unix_ns", sa.BigInteger),
        sa.CheckConstraint("status IN ('pending', 'granted', 'rejected')"),
    )
    op.create_index(
        "limit_requests_pending",
        "limit_requests",
        ["account_id"],
        unique=True,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
