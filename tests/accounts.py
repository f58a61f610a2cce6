"""Further accounts of a running server, made in its database."""

from __future__ import annotations

from pathlib import Path

from inferd import ids
from inferd.access.caller import INFERENCE_RUN
from inferd.access.installation import installation_key
from inferd.access.tokens import Tokens
from inferd.clock import SystemClock
from inferd.storage import accounts
from inferd.storage.database import Database
from inferd.storage.rows import AccountRow


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
