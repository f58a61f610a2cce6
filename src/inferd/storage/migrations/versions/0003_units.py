"""Units besides tokens: a rate for each price version, what an entry consumed of it.

Moves: nothing; entries so far were billed by tokens alone. Loses: nothing. Takes: milliseconds.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prices", sa.Column("unit_rate", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("entries", sa.Column("unit", sa.Text))
    op.add_column("entries", sa.Column("quantity", sa.BigInteger, nullable=False, server_default="0"))
