"""A transaction that says what it touches, so that whoever remembers it can forget."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection

Kind = Literal["account", "token", "session", "limits", "purse", "prices"]


class Change:
    """The transaction, and the ids of what is not what it was."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.touched: list[tuple[Kind, str]] = []

    def touch(self, kind: Kind, subject: str) -> None:
        """Say that this is not what it was; `subject` is its id."""
        self.touched.append((kind, subject))
