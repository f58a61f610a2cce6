"""What all gateways of an installation must agree on: the fingerprint of its key.

Moves: nothing; the first gateway that starts writes it. Loses: nothing. Takes: milliseconds.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
