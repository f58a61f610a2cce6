"""Who may still be billed for what he asked for earlier, on both databases."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import insert, text

from inferd.storage import accounts, payers
from inferd.storage.database import Database
from inferd.storage.rows import AccountRow
from inferd.storage.tables_operation import sessions

_TOKEN = (
    "INSERT INTO tokens (id, account_id, name, digest, fragment, scopes, created_unix_ns, "
    "revoked_unix_ns, person_id, expires_unix_ns) VALUES "
    "('tok_good', 'good', '1', :one, '', '', 1, NULL, NULL, 200), "
    "('tok_gone', 'good', '2', :two, '', '', 1, 5, NULL, NULL), "
    "('tok_left', 'good', '3', :three, '', '', 1, NULL, 'per_left', NULL)"
)


async def test_who_is_refused_and_which_credentials_live(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url, directory=tmp_path)
    async with database.writing() as connection:
        for name in ("good", "poor", "dead"):
            await accounts.add(connection, AccountRow(name, name, 1, None))
        await accounts.suspend(connection, "poor", "a debt")
        await accounts.delete(connection, "dead", 5)
        await connection.execute(text(_TOKEN), {"one": b"1", "two": b"2", "three": b"3"})
        await connection.execute(
            insert(sessions).values(
                id="ses_1",
                digest=b"4",
                person_id="per_1",
                account_id="good",
                provider="",
                address="",
                created_unix_ns=1,
                seen_unix_ns=1,
                expires_unix_ns=200,
            )
        )
    async with database.reading() as connection:
        assert await payers.refusals(connection, ["good", "poor", "dead", "never"]) == {
            "poor": "The account is suspended: a debt",
            "dead": "The account was deleted.",
            "never": "The account was deleted.",
        }
        known = ("tok_good", "tok_gone", "tok_left", "tok_local", "ses_1", "ses_2", "tok_never")
        live = {one for one in known if await payers.is_live(connection, one, 100)}
        assert live == {"tok_good", "tok_local", "ses_1"}
        assert not await payers.is_live(connection, "tok_good", 200)
    await database.close()
