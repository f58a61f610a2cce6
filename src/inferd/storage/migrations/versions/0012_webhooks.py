"""Native calls that are answered by a webhook.

Moves: nothing. Loses: nothing. Takes: milliseconds.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhook_calls",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("jwt_id", sa.Text),
        sa.Column("jwt_limit_nanos", sa.BigInteger),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("webhook", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_unix_ns", sa.BigInteger),
        sa.Column("gateway", sa.Text, nullable=False, server_default=""),
        sa.Column("delivery", sa.Text, nullable=False),
        sa.Column("due_unix_ns", sa.BigInteger),
        sa.Column("attempts", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')"),
        sa.CheckConstraint("delivery IN ('waiting', 'pending', 'delivered', 'failed')"),
    )
    by_account = ["account_id", "created_unix_ns"]
    op.create_index("webhook_calls_by_account", "webhook_calls", by_account)
    op.create_index("webhook_calls_by_status", "webhook_calls", ["status"])
    op.create_index("webhook_calls_by_due", "webhook_calls", ["due_unix_ns"])
