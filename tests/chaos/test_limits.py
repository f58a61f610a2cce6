"""Gateways that share limits while Valkey dies, freezes and forgets: never above, in any window.

The window is made short, in the script and in the gateways alike, so that half a minute holds many.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections.abc import Iterator

import pytest

from inferd.access import limits as limits_module
from inferd.access import shared_limits, window
from inferd.access.limit_rules import Rule
from inferd.access.limits import Ticket
from inferd.access.shared_limits import SharedLimits
from inferd.clock import SystemClock
from inferd.errors import TooManyRequests
from inferd.storage.shared_counts import SCRIPT
from inferd.storage.valkey import Valkey
from tests.chaos.dice import dice
from tests.servers import ValkeyServer

pytestmark = pytest.mark.chaos

GATEWAYS = 4
WINDOW_SECONDS = 2.0
REQUESTS, TOKENS = 40, 1000
RUN_SECONDS = 40
CLOCK = SystemClock()


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> str:
    """The script for it."""
    for module in (window, limits_module, shared_limits):
        monkeypatch.setattr(module, "WINDOW_NS", int(WINDOW_SECONDS * 1e9))
    ticks = int(WINDOW_SECONDS * 1e9) // window.TICK_NS
    script = SCRIPT.replace("WINDOW_TICKS = 12000", f"WINDOW_TICKS = {ticks}")
    assert script != SCRIPT
    return script


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """One that dies often."""
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


class Caller:
    """Calls one gateway again and again, and writes down what was let in and when."""

    def __init__(self, limits: SharedLimits, chance: random.Random) -> None:
        self.limits = limits
        self.chance = chance
        self.admitted: list[tuple[float, float, int]] = []
        """Earliest and latest moment of the admission, and its tokens as they ended."""

    async def call(self) -> None:
        """For ever: enter, correct, leave, as requests do."""
        while True:
            await asyncio.sleep(self.chance.random() * 0.02)
            asked = Ticket("a", "t", "m", self.chance.randint(1, 60))
            before = CLOCK.seconds()
            try:
                await self.limits.enter(asked)
            except TooManyRequests:
                continue
            after = CLOCK.seconds()
            await asyncio.sleep(self.chance.random() * 0.05)
            if self.chance.random() < 0.1:
                self.limits.undo(asked)
                continue
            self.limits.correct(asked, self.chance.randint(0, asked.tokens))
            self.limits.leave(asked)
            self.admitted.append((before, after, asked.tokens))


async def torment(server: ValkeyServer, chance: random.Random) -> None:
    """Kill, freeze and start it again."""
    while True:
        await asyncio.sleep(1 + chance.random() * 5)
        if chance.random() < 0.5:
            server.kill()
            await asyncio.sleep(chance.random() * 4)
            await asyncio.to_thread(server.start)
        else:
            os.kill(server.pid, signal.SIGSTOP)
            await asyncio.sleep(chance.random() * 3)
            os.kill(server.pid, signal.SIGCONT)


def fullest(admitted: list[tuple[float, float, int]]) -> tuple[int, int]:
    """Most requests and tokens that surely were admitted within one window."""
    requests = tokens = 0
    for began, _, _ in admitted:
        inside = [
            t for first, last, t in admitted if began <= first and last < began + WINDOW_SECONDS
        ]
        requests, tokens = max(requests, len(inside)), max(tokens, sum(inside))
    return requests, tokens


async def test_never_above_the_limit_whatever_happens_to_valkey(
    server: ValkeyServer, short_window: str
) -> None:
    chance, prefix = dice(), secrets.token_hex(4)
    gateways: list[tuple[Valkey, SharedLimits]] = []
    for _ in range(GATEWAYS):
        valkey = Valkey(server.url, short_window)
        limits = SharedLimits(CLOCK, valkey, prefix, gateways=GATEWAYS)
        limits.set_rules([Rule("a", requests_per_minute=REQUESTS, tokens_per_minute=TOKENS)])
        await valkey.open()
        gateways.append((valkey, limits))
    await asyncio.gather(*(limits.open() for _, limits in gateways))
    callers = [Caller(limits, chance) for _, limits in gateways for _ in range(4)]
    tasks = [asyncio.ensure_future(caller.call()) for caller in callers]
    tasks.append(asyncio.ensure_future(torment(server, chance)))
    done, _ = await asyncio.wait(tasks, timeout=RUN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert not done, [task.exception() for task in done]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    admitted = [each for caller in callers for each in caller.admitted]
    requests, tokens = fullest(admitted)
    print(f"{len(admitted)} admitted; fullest window: {requests} requests, {tokens} tokens")
    assert requests <= REQUESTS
    assert tokens <= TOKENS
    assert len(admitted) > REQUESTS * RUN_SECONDS / WINDOW_SECONDS / 4
    for valkey, limits in gateways:
        assert limits.in_flight("a", "m") == 0
        await limits.close()
        await valkey.close()
