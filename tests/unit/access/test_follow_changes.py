"""What one gateway changes, the others hear within a second: over Valkey, and without it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from inferd.access import follow_changes
from inferd.access.changes import Changes
from inferd.access.follow_changes import FollowChanges
from inferd.storage import changes
from inferd.storage.database import Database
from inferd.storage.migrate import migrate
from inferd.storage.valkey import Valkey
from tests.awake import Stopwatch
from tests.servers import ValkeyServer


class Gateway:
    """One of several over a database: what it hears, in order."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(url, directory=folder)
        self.changes = Changes(self.database)
        self.heard: asyncio.Queue[str | None] = asyncio.Queue()
        self.deaf = 0
        self.changes.listen("token", self._hear)

    async def _hear(self, subject: str | None) -> None:
        if self.deaf:
            self.deaf -= 1
            raise RuntimeError("deaf")
        self.heard.put_nowait(subject)

    async def hears(self, subject: str, seconds: float = 1.0) -> None:
        """Wait for it; what was heard before may be heard again."""
        clock = Stopwatch()
        async with asyncio.timeout(10):
            while await self.heard.get() != subject:
                pass
        assert clock.seconds() < seconds


@asynccontextmanager
async def two(
    url: str, folder: Path, server: ValkeyServer | None
) -> AsyncGenerator[tuple[Gateway, Gateway]]:
    channel = secrets.token_hex(4)
    async with AsyncExitStack() as stack:
        made: list[Gateway] = []
        for name in "ab":
            gateway = Gateway(url, folder)
            stack.push_async_callback(gateway.database.close)
            valkey = None
            if server is not None:
                valkey = Valkey(server.url)
                await valkey.open()
                stack.push_async_callback(valkey.close)
            follow = FollowChanges(gateway.changes, gateway.database, valkey, channel, name)
            await follow.open()
            stack.push_async_callback(follow.close)
            made.append(gateway)
        yield made[0], made[1]


async def test_news_come_within_a_second_without_valkey(database_url: str, tmp_path: Path) -> None:
    async with two(database_url, tmp_path, None) as (one, other):
        for number in range(3):
            await one.changes.publish("token", f"tok_{number}")
            await one.hears(f"tok_{number}")
            await other.hears(f"tok_{number}")


async def test_news_come_over_valkey_before_the_poll(
    database_url: str, tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_changes, "POLL_SECONDS", 3600)
    async with two(database_url, tmp_path, valkey) as (one, other):
        # A subscription takes a moment; its channel is there once somebody else hears us.
        async with asyncio.timeout(5):
            while other.heard.empty():
                await one.changes.publish("token", "tok_0")
                await asyncio.sleep(0.02)
        await one.changes.publish("token", "tok_1")
        await other.hears("tok_1", 0.5)


async def test_a_change_that_was_rolled_back_is_no_news(database_url: str, tmp_path: Path) -> None:
    async with two(database_url, tmp_path, None) as (one, other):
        with pytest.raises(RuntimeError):
            await never(one)
        await one.changes.publish("token", "tok_later")
        assert await one.heard.get() == "tok_later"
        assert await other.heard.get() == "tok_later"


async def never(gateway: Gateway) -> None:
    async with gateway.changes.writing() as change:
        change.touch("token", "tok_never")
        raise RuntimeError("rolled back")


async def test_who_could_not_listen_is_told_again(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with two(database_url, tmp_path, None) as (one, other):
        other.deaf = 1
        await one.changes.publish("token", "tok_1")
        await other.hears("tok_1", 2)
    assert "was not heard" in caplog.text


async def test_a_row_that_becomes_visible_late_is_heard(postgres_url: str, tmp_path: Path) -> None:
    await asyncio.to_thread(migrate, postgres_url)
    async with two(postgres_url, tmp_path, None) as (one, other):
        async with one.changes.writing() as slow:
            slow.touch("token", "tok_slow")
            # Its row has its id now and is not visible before the block ends.
            await changes.write(slow, 1_900_000_000_000_000_000)
            slow.touched.clear()
            await other.changes.publish("token", "tok_quick")
            await other.hears("tok_quick")
            await one.hears("tok_quick")
        await other.hears("tok_slow")
