"""Several machines, one database: the same tokens, the same prices, one key."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.awake import Stopwatch
from tests.books import Books
from tests.e2e.steps import CHAT, body, card, in_flight
from tests.process import InferdProcess, serving
from tests.servers import PostgresServer, ValkeyServer, free_port

EFFECTIVE_SECONDS = 1.0
"""A change on one machine is effective on every other by then."""


def machine(root: Path, name: str, **settings: Any) -> InferdProcess:
    """A data directory and its server, not started yet."""
    folder = root / name
    folder.mkdir()
    made = InferdProcess(folder, **settings)
    made.add_card(card("t/echo"))
    return made


@pytest.fixture(params=["with valkey", "without valkey"])
async def machines(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer, valkey: ValkeyServer
) -> AsyncIterator[tuple[InferdProcess, InferdProcess]]:
    """Two of them; the second one is given the first one's key as a file.

    Without Valkey: it is configured, and was never there.
    """
    url = valkey.url if request.param == "with valkey" else f"valkey://127.0.0.1:{free_port()}"
    shared: dict[str, Any] = {"database_url": await postgres.migrated(), "valkey_url": url}
    key = tmp_path / "one" / "secret.key"
    pair = (
        machine(tmp_path, "one", **shared),
        machine(tmp_path, "two", installation_key_file=key, **shared),
    )
    try:
        for one in pair:
            await one.start()
        yield pair
    finally:
        for one in pair:
            await one.stop()


async def test_a_token_is_good_and_revoked_on_every_machine(
    machines: tuple[InferdProcess, InferdProcess],
) -> None:
    one, two = machines
    async with one.client() as here, two.client() as there:
        made = (await here.post("/v1/api-tokens", json={"name": "t"})).json()
        headers = {"authorization": f"Bearer {made['token']}"}
        assert (await there.post(CHAT, json=body("t/echo"), headers=headers)).status_code == 200
        revoked = await here.delete(f"/v1/api-tokens/id/{made['token_id']}")
        assert revoked.status_code < 300, revoked.text
        ends = time.monotonic() + EFFECTIVE_SECONDS
        status = 200
        while status == 200 and time.monotonic() < ends:
            await asyncio.sleep(0.02)
            asked = await there.post(CHAT, json=body("t/echo"), headers=headers)
            status = asked.status_code
        assert status == 401


async def test_a_price_is_the_same_on_every_machine_within_a_second(
    machines: tuple[InferdProcess, InferdProcess],
) -> None:
    one, two = machines
    async with one.client() as here, two.client() as there:

        async def cost() -> float:
            answer = (await there.post(CHAT, json=body("t/echo"))).json()
            return answer["usage"]["estimated_cost"]

        before = await cost()
        price = {"model": "t/echo", "price": {"input": "10", "output": "20", "cached": "5"}}
        changed = await here.post("/v1/admin/prices", json=price)
        assert changed.status_code < 300, changed.text
        clock = Stopwatch()
        after = before
        while after == before and clock.seconds() < EFFECTIVE_SECONDS:
            await asyncio.sleep(0.02)
            after = await cost()
        assert after == pytest.approx(10 * before)


async def test_a_machine_with_another_key_does_not_start(
    tmp_path: Path, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    shared = {"database_url": await postgres.migrated(), "valkey_url": valkey.url}
    one = machine(tmp_path, "one", **shared)
    await one.start()
    try:
        stranger = machine(tmp_path, "stranger", **shared)
        with pytest.raises(AssertionError, match="installation with another key"):
            await stranger.start()
        shutil.copy2(one.data_dir / "secret.key", stranger.data_dir)
        await stranger.start()
        await stranger.stop()
    finally:
        await one.stop()


async def test_a_second_machine_does_not_start_without_valkey(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """Each would let in the whole limit. One that has died is no other, nor is itself."""
    url = await postgres.migrated()
    one = machine(tmp_path, "one", database_url=url)
    key = one.data_dir / "secret.key"
    await one.start()
    try:
        two = machine(tmp_path, "two", database_url=url, installation_key_file=key)
        with pytest.raises(AssertionError, match="set valkey_url"):
            await two.start()
        await one.kill()
        await one.start()
        await one.kill()
        # It is known to be dead when it was not seen for a few seconds.
        await two.start()
        await two.stop()
    finally:
        await one.stop()


async def _ask(server: InferdProcess, headers: dict[str, str]) -> None:
    async with server.client() as client:
        with suppress(httpx.TransportError):
            await client.post(CHAT, json=body("t/slow", "w " * 300), headers=headers)


async def test_fewer_gateways_finish_what_more_have_left(
    tmp_path: Path, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    shared = {"database_url": await postgres.migrated(), "valkey_url": valkey.url}
    books = Books(str(shared["database_url"]), tmp_path, postgres)
    slow = card("t/slow", "token_ms=10")
    async with serving(tmp_path, slow, workers=3, **shared) as server:
        async with server.client() as client:
            made = await client.post("/v1/api-tokens", json={"name": "t", "monthly_limit": 1})
            headers = {"authorization": f"Bearer {made.json()['token']}"}
            asking = [asyncio.ensure_future(_ask(server, headers)) for _ in range(8)]
            await in_flight(client, "t/slow", 8)
        assert await books.ask("SELECT request_id FROM reservations") != []
        await server.kill()
        await asyncio.gather(*asking)
    async with serving(tmp_path, workers=1, **shared):
        assert await books.ask("SELECT request_id FROM reservations") == []
        assert list((tmp_path / "gateways").iterdir()) == []
        leases = await books.ask("SELECT gateway FROM leases WHERE nanos > 0")
        assert {gateway.rpartition(".")[2] for (gateway,) in leases} <= {"0"}
