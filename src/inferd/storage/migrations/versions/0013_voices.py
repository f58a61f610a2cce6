"""Voices that accounts have added.

Moves: nothing. Loses: nothing. Takes: milliseconds.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "voices",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("updated_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("recordings", sa.LargeBinary, nullable=False),
    )
    op.create_index("voices_by_account", "voices", ["account_id", "created_unix_ns"])
