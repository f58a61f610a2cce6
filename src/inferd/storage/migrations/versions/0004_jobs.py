"""Jobs: work that outlives its request.

Moves: nothing. Loses: nothing. Takes: milliseconds.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_unix_ns", sa.BigInteger),
        sa.CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')"),
    )
    op.create_index("jobs_by_status", "jobs", ["status"])
