"""The tables of people and teams."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, Table, Text

from inferd.storage.tables import metadata

people = Table(
    "people",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, unique=True),
    Column("email_verified", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    Column("picture", Text),
    Column("created_unix_ns", BigInteger, nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("person_id", Text, ForeignKey("people.id"), primary_key=True),
    Column("role", Text, nullable=False),
    Column("created_unix_ns", BigInteger, nullable=False),
    CheckConstraint("role IN ('admin', 'member')"),
)
by_person = Index("members_by_person", members.c.person_id)
