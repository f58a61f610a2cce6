"""Service tiers: multipliers of a price version, and the tier that an entry paid.

Moves: nothing; entries so far paid the default tier. Loses: nothing. Takes: milliseconds.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prices", sa.Column("priority_millionths", sa.BigInteger))
    op.add_column("prices", sa.Column("flex_millionths", sa.BigInteger))
    op.add_column("entries", sa.Column("tier", sa.Text, nullable=False, server_default="default"))
