"""Further accounts and people, made in the database of a server."""

from __future__ import annotations

from pathlib import Path

from inferd import ids
from inferd.access.caller import INFERENCE_RUN
from inferd.access.installation import installation_key
from inferd.access.tokens import Tokens
from inferd.clock import SystemClock
from inferd.storage import accounts, people
from inferd.storage.database import Database
from inferd.storage.rows import AccountRow, MemberRow, PersonRow, Role
from tests.gateway import Gateway


async def another_account(data_dir: Path, name: str, url: str | None = None) -> tuple[str, str]:
    """Its id, and the secret of a token that may compute."""
    clock = SystemClock()
    database = Database(url or data_dir / "inferd.db", directory=data_dir)
    try:
        row = AccountRow(ids.sortable("acc"), name, clock.unix_ns(), None)
        async with database.writing() as connection:
            await accounts.add(connection, row)
        tokens = Tokens(database, installation_key(data_dir), clock)
        _, secret = await tokens.create(row.id, "auto", (INFERENCE_RUN,))
    finally:
        await database.close()
    return row.id, secret


async def join(gate: Gateway, name: str, role: Role) -> str:
    """A person in the admin's account, and what he is called."""
    person = PersonRow(
        f"per_{name}",
        email=f"{name}@example.com",
        email_verified=True,
        name=name,
        picture=None,
        created_unix_ns=1,
    )
    async with gate.services.database.writing() as connection:
        await people.add(connection, person)
        await people.join(connection, MemberRow(gate.account_id, person.id, role, 1))
    return person.id
