"""Limits of several gateways over a real Valkey: exact while it is there, safe while it is not."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from inferd.access.limit_rules import EACH, Rule
from inferd.access.limits import Ticket
from inferd.access.shared_limits import SharedLimits
from inferd.clock import SystemClock
from inferd.errors import BadRequest, TooManyRequests
from inferd.storage.shared_counts import SCRIPT
from inferd.storage.valkey import Valkey, check_url
from tests.servers import ValkeyServer

SECONDS_MAX = 15


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A server that the test may kill."""
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def gateways(
    server: ValkeyServer, count: int, *rules: Rule, **options: int
) -> AsyncGenerator[list[SharedLimits]]:
    """So many gateways of one installation, all of which know of each other."""
    prefix = secrets.token_hex(4)
    async with AsyncExitStack() as stack:
        opened: list[SharedLimits] = []
        for _ in range(count):
            valkey = Valkey(server.url, SCRIPT)
            limits = SharedLimits(SystemClock(), valkey, prefix, gateways=count, **options)
            limits.set_rules(rules)
            await valkey.open()
            stack.push_async_callback(valkey.close)
            stack.push_async_callback(limits.close)
            opened.append(limits)
        await asyncio.gather(*(limits.open() for limits in opened))
        await until_shared(opened)
        yield opened


async def until_shared(opened: list[SharedLimits], *, shared: bool = True) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not all(each.shared == shared for each in opened):
            await asyncio.sleep(0.02)
    # One more beat: everybody has heard of everybody.
    await asyncio.sleep(0.6)


def ticket(tokens: int = 0, account: str = "a") -> Ticket:
    return Ticket(account, "t", "m", tokens)


async def admitted(limits: SharedLimits, count: int, tokens: int = 0) -> list[Ticket]:
    """Ask so often at once; those that were let in."""
    waits: list[float] = []

    async def one() -> Ticket | None:
        asked = ticket(tokens)
        try:
            await limits.enter(asked)
        except TooManyRequests as error:
            waits.append(error.retry_after_seconds or 0)
            return None
        return asked

    found = await asyncio.gather(*(one() for _ in range(count)))
    assert all(0 < wait <= 60.01 for wait in waits)
    return [each for each in found if each is not None]


async def soon(limits: SharedLimits, count: int, tokens: int = 0) -> None:
    """So many are let in, once the news of another gateway have arrived; then no more."""
    inside = 0
    async with asyncio.timeout(5):
        while inside < count:
            inside += len(await admitted(limits, count - inside + 1, tokens))
            await asyncio.sleep(0)
    assert inside == count
    assert await admitted(limits, 1, tokens) == []


async def test_four_gateways_let_in_exactly_the_limit(valkey: ValkeyServer) -> None:
    rule = Rule("a", None, "m", requests_per_minute=60)
    async with gateways(valkey, 4, rule) as four:
        inside = await asyncio.gather(*(admitted(each, 40) for each in four))
        assert sum(len(each) for each in inside) == 60
        assert await admitted(four[0], 5) == []


async def test_a_gateway_may_use_all_of_a_limit(valkey: ValkeyServer) -> None:
    async with gateways(valkey, 3, Rule("a", requests_per_minute=50)) as three:
        assert len(await admitted(three[1], 80)) == 50


async def test_tokens_are_set_aside_and_corrected_across_gateways(valkey: ValkeyServer) -> None:
    async with gateways(valkey, 2, Rule("a", tokens_per_minute=100)) as (one, two):
        (first,) = await admitted(one, 1, 80)
        assert await admitted(two, 1, 30) == []
        one.correct(first, 70)
        await soon(two, 1, 30)
        one.correct(first, 10)
        one.leave(first)
        await soon(two, 1, 60)
        assert await admitted(one, 1, 1) == []
        with pytest.raises(BadRequest):
            await one.enter(ticket(101))


async def test_what_was_undone_never_happened_and_what_left_is_not_in_flight(
    valkey: ValkeyServer,
) -> None:
    rule = Rule(EACH, None, EACH, concurrent_requests=2, requests_per_minute=3)
    async with gateways(valkey, 2, rule) as (one, two):
        first, second = await admitted(one, 3)
        assert await admitted(two, 1) == []
        one.undo(first)
        await soon(two, 1)
        one.leave(second)
        await soon(two, 1)
        assert one.in_flight("a", "m") == 0


async def test_a_client_that_leaves_while_it_asks_leaves_nothing_behind(
    valkey: ValkeyServer,
) -> None:
    rule = Rule("a", None, "m", concurrent_requests=5, requests_per_minute=10)
    async with gateways(valkey, 2, rule) as (one, two):
        for _ in range(20):
            asking = asyncio.ensure_future(one.enter(ticket()))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await soon(two, 5)


async def test_what_a_killed_gateway_had_in_flight_is_given_back_within_seconds(
    valkey: ValkeyServer,
) -> None:
    rule = Rule("a", None, "m", concurrent_requests=4)
    async with gateways(valkey, 2, rule) as (one, two):
        assert len(await admitted(one, 3)) == 3
        assert len(await admitted(two, 3)) == 1
        # What kill -9 does: it falls silent and says no goodbye.
        assert one._beating is not None  # pyright: ignore[reportPrivateUsage]
        one._beating.cancel()  # pyright: ignore[reportPrivateUsage]
        await one._valkey.close()  # pyright: ignore[reportPrivateUsage]
        await soon(two, 3)


async def test_a_goodbye_gives_everything_in_flight_back_at_once(valkey: ValkeyServer) -> None:
    rule = Rule("a", None, "m", concurrent_requests=4)
    async with gateways(valkey, 2, rule) as (one, two):
        await admitted(one, 4)
        await one.close()
        await soon(two, 4)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_without_valkey_the_sum_stays_within_the_limit(
    own_valkey: ValkeyServer, how: str
) -> None:
    rule = Rule("a", None, "m", requests_per_minute=40)
    async with gateways(own_valkey, 4, rule) as four:
        before = sum(
            len(each)
            for each in await asyncio.gather(
                admitted(four[0], 12), admitted(four[1], 5), admitted(four[2], 3)
            )
        )
        assert before == 20
        if how == "killed":
            own_valkey.kill()
        else:
            os.kill(own_valkey.pid, signal.SIGSTOP)
        async with asyncio.timeout(3):
            alone = await asyncio.gather(*(admitted(each, 40) for each in four))
        assert before + sum(len(each) for each in alone) <= 40
        # Accounts without such a limit are served on.
        await four[3].enter(ticket(account="b"))
        if how == "killed":
            own_valkey.start()
        else:
            os.kill(own_valkey.pid, signal.SIGCONT)
        await until_shared(four)
        again = await asyncio.gather(*(admitted(each, 40) for each in four))
        total = before + sum(len(each) for each in (*alone, *again))
        assert total == 40


async def test_in_flight_survives_a_restart_of_valkey(own_valkey: ValkeyServer) -> None:
    rule = Rule("a", None, "m", concurrent_requests=6)
    async with gateways(own_valkey, 2, rule) as (one, two):
        held = await admitted(one, 4)
        own_valkey.kill()
        await asyncio.sleep(0.2)
        own_valkey.start()
        await until_shared([one, two])
        assert len(await admitted(two, 9)) == 2
        for each in held:
            one.leave(each)
        await soon(two, 4)


async def test_a_gateway_that_stood_still_says_again_what_it_holds(valkey: ValkeyServer) -> None:
    rule = Rule("a", None, "m", concurrent_requests=4)
    async with gateways(valkey, 2, rule) as (one, two):
        held = await admitted(one, 3)
        assert one._beating is not None  # pyright: ignore[reportPrivateUsage]
        one._beating.cancel()  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(3.2)
        (taken,) = (await admitted(two, 1))[:1]
        await one.open()
        await asyncio.sleep(0.8)
        assert await admitted(two, 3) == []
        two.leave(taken)
        for each in held:
            one.leave(each)
        await soon(two, 4)


def test_an_address_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadRequest, match="valkey_url"):
        check_url("http://127.0.0.1:6379")
