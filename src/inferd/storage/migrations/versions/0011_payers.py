"""Films keep what decides their price; accounts a monthly limit that the installation's admin sets.

Moves: nothing; a film of before that is made again pays the tier `default`. Loses: nothing.
Takes: milliseconds.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("tier", sa.Text, nullable=False, server_default="default"))
    op.add_column("jobs", sa.Column("jwt_limit_nanos", sa.BigInteger))
    op.add_column("jobs", sa.Column("price_id", sa.Integer))
    op.add_column("accounts", sa.Column("admin_monthly_limit_nanos", sa.BigInteger))
