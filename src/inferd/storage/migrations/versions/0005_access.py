"""Accounts, people, teams, and what a token may.

Moves: nothing; accounts that exist become personal ones, tokens stay as they are.
Loses: nothing. Takes: milliseconds.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.Text, nullable=False, server_default="personal"),
        sa.Column("profile", sa.Text, nullable=False, server_default="{}"),
        sa.Column("suspended", sa.Text),
        sa.Column("deleted_unix_ns", sa.BigInteger),
    ):
        op.add_column("accounts", column)
    for column in (
        sa.Column("person_id", sa.Text),
        sa.Column("expires_unix_ns", sa.BigInteger),
        sa.Column("allowed_ips", sa.Text),
        sa.Column("allowed_models", sa.Text),
        sa.Column("sealed", sa.LargeBinary),
    ):
        op.add_column("tokens", column)
    op.create_table(
        "people",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("email", sa.Text, unique=True),
        sa.Column("email_verified", sa.Boolean, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("picture", sa.Text),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "members",
        sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("person_id", sa.Text, sa.ForeignKey("people.id"), primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.CheckConstraint("role IN ('admin', 'member')"),
    )
    op.create_index("members_by_person", "members", ["person_id"])
