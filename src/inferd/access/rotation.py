"""A new key for the installation: tokens move to it, none stops working."""

from __future__ import annotations

from typing import NamedTuple

from inferd.access import audit
from inferd.access.caller import ADMIN, Caller
from inferd.access.scopes import ADMIN_ACCOUNT
from inferd.access.token_secrets import TokenSecrets
from inferd.storage import accounts, tokens
from inferd.storage.database import Database


class Moved(NamedTuple):
    """What became of the live tokens."""

    now: int
    """Lie under the key."""
    later: int
    """Were not used since their secret is kept: they move at their next use."""


async def move_tokens(database: Database, secrets: TokenSecrets) -> Moved:
    """Put every live token whose secret can be opened under the current key, all or none."""
    moved = later = 0
    async with database.writing() as connection:
        for row in await tokens.every(connection):
            secret = secrets.unseal(row)
            if secret is None:
                later += 1
                continue
            text = secret.decode("utf-8", "surrogatepass")
            sealed = secrets.seal(row.id, text)
            await tokens.reseal(connection, row.id, secrets.digest(text), sealed)
            moved += 1
        account = await accounts.by_name(connection, ADMIN_ACCOUNT)
        if account is not None:
            here = Caller(account.id, "tok_local", "local", frozenset({ADMIN}))
            told = {"moved": moved, "later": later}
            await audit.write(connection, here, "installation.rotate-key", "", told)
    return Moved(moved, later)
