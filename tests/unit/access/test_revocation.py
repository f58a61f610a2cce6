"""Revoked, suspended and deleted within a second on every gateway, with Valkey and without it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from inferd.access.accounts import Accounts
from inferd.access.caller import ACCOUNT_ADMIN, INFERENCE_RUN, Caller
from inferd.access.changes import Changes
from inferd.access.follow_changes import FollowChanges
from inferd.access.tokens import Tokens
from inferd.clock import SystemClock
from inferd.errors import Unauthorized
from inferd.storage.database import Database
from inferd.storage.valkey import Valkey
from tests.awake import Stopwatch
from tests.jwts import offline_jwt
from tests.servers import ValkeyServer

KEY = b"k" * 32
OPERATOR = Caller("acc", "tok", "t", frozenset({"admin"}))


class Gateway:
    """What one of several gateways knows of callers."""

    def __init__(self, url: str, folder: Path) -> None:
        clock = SystemClock()
        self.database = Database(url, directory=folder)
        self.changes = Changes(self.database)
        self.tokens = Tokens(self.database, KEY, clock, changes=self.changes)
        self.accounts = Accounts(self.database, self.changes, clock)


@pytest.fixture(params=["valkey", "poll"])
async def two(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, valkey: ValkeyServer
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two over one database, that hear of each other."""
    channel = secrets.token_hex(4)
    async with AsyncExitStack() as stack:
        made: list[Gateway] = []
        for name in "ab":
            gateway = Gateway(database_url, tmp_path)
            stack.push_async_callback(gateway.database.close)
            client = None
            if request.param == "valkey":
                client = Valkey(valkey.url)
                await client.open()
                stack.push_async_callback(client.close)
            follow = FollowChanges(gateway.changes, gateway.database, client, channel, name)
            await follow.open()
            stack.push_async_callback(follow.close)
            made.append(gateway)
        yield made[0], made[1]


async def account(gateway: Gateway) -> str:
    async with gateway.changes.writing() as change:
        return (await gateway.accounts.create_in(change, OPERATOR, "blue", "team")).id


async def within_a_second(holds: Callable[[], Awaitable[bool]]) -> None:
    clock = Stopwatch()
    while not await holds():
        assert clock.seconds() < 1.0
        await asyncio.sleep(0.005)


async def refused(tokens: Tokens, credential: str) -> bool:
    try:
        await tokens.authenticate(credential)
    except Unauthorized:
        return True
    return False


async def test_a_token_that_is_revoked_and_its_jwts(two: tuple[Gateway, Gateway]) -> None:
    one, other = two
    uid = await account(one)
    row, secret = await one.tokens.create(uid, "t", (INFERENCE_RUN,))
    jwt = offline_jwt(uid, "t", secret, {"exp": int(time.time()) + 60})
    for credential in (secret, jwt):
        await other.tokens.authenticate(credential)
    await one.tokens.revoke(uid, row.id)
    assert await refused(one.tokens, secret)
    await within_a_second(lambda: refused(other.tokens, secret))
    assert await refused(other.tokens, jwt)


async def test_an_account_that_is_suspended_and_deleted(two: tuple[Gateway, Gateway]) -> None:
    one, other = two
    uid = await account(one)
    _, secret = await one.tokens.create(uid, "t", (INFERENCE_RUN, ACCOUNT_ADMIN))

    async def suspended() -> bool:
        return (await other.tokens.authenticate(secret)).suspended is not None

    assert not await suspended()
    await one.accounts.suspend(OPERATOR, uid, "no")
    await within_a_second(suspended)
    await one.accounts.delete(OPERATOR, uid)
    await within_a_second(lambda: refused(other.tokens, secret))
