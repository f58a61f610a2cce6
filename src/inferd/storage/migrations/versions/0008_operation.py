"""Sessions, passwords, sign-ins under way, audit.

Moves: nothing. Loses: nothing. Takes: milliseconds.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("token_name", sa.Text, nullable=False),
        sa.Column("person_id", sa.Text),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("audit_by_account", "audit", ["account_id", "id"])
    op.create_table(
        "passwords",
        sa.Column("person_id", sa.Text, primary_key=True),
        sa.Column("login", sa.Text, nullable=False, unique=True),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("changed_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("person_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("seen_unix_ns", sa.BigInteger, nullable=False),
        sa.Column("expires_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("sessions_by_person", "sessions", ["person_id"])
    op.create_table(
        "sign_ins",
        sa.Column("state_digest", sa.LargeBinary, primary_key=True),
        sa.Column("browser_digest", sa.LargeBinary, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("nonce", sa.Text, nullable=False),
        sa.Column("verifier", sa.Text, nullable=False),
        sa.Column("return_to", sa.Text, nullable=False),
        sa.Column("expires_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sign_in_failures",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("until_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "command_sign_ins",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("person_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("expires_unix_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "identities",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("person_id", sa.Text, nullable=False),
        sa.Column("created_unix_ns", sa.BigInteger, nullable=False),
    )
