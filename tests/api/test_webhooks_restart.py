"""Native calls with a webhook that a process left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from sqlalchemy import update

from inferd import ids
from inferd.storage import accounts, webhook_calls
from inferd.storage.tables import entries as entry_table
from inferd.storage.webhook_calls import CallRow
from tests.api.test_webhooks import (
    ECHO,
    asked,
    gate,
    hook,
    opened,
)
from tests.gateway import ADMIN_TOKEN, Gateway
from tests.ledger import entries
from tests.receiver import Receiver

__all__ = ["gate", "hook"]


class TestRestart:
    async def test_what_a_dead_process_left_is_computed_and_delivered(
        self, tmp_path: Path, hook: Receiver
    ) -> None:
        async with opened(tmp_path) as gate:
            row = await left_behind(gate, hook)
        async with opened(tmp_path, gate.services.database.url) as gate:
            assert (await hook.next()).json()["request_id"] == row.request_id
            assert [entry.request_id for entry in await entries(gate)] == [row.request_id]

    async def test_what_had_failed_already_is_not_computed_for_nothing(
        self, tmp_path: Path, hook: Receiver
    ) -> None:
        """Under an id that the ledger has, a success could not be booked."""
        async with opened(tmp_path) as gate:
            row = await left_behind(gate, hook)
            await asked(gate, hook, "/v1/inference/test/broken")
            await hook.next()
            async with gate.services.database.writing() as connection:
                change = update(entry_table).values(request_id=row.request_id)
                await connection.execute(change)
        async with opened(tmp_path, gate.services.database.url) as gate:
            came = (await hook.next()).json()
            assert came["request_id"] == row.request_id
            assert came["inference_status"]["status"] == "failed"
            assert [entry.status for entry in await entries(gate)] == ["failed"]

    async def test_a_suspended_account_pays_for_nothing_that_was_left(
        self, tmp_path: Path, hook: Receiver
    ) -> None:
        async with opened(tmp_path) as gate:
            await left_behind(gate, hook)
            async with gate.services.database.writing() as connection:
                await accounts.suspend(connection, gate.account_id, "unpaid")
        async with opened(tmp_path, gate.services.database.url) as gate:
            came = (await hook.next()).json()
            assert came["inference_status"]["status"] == "failed"
            assert "unpaid" in came["detail"]["error"]
            assert await entries(gate) == []

    async def test_a_shutdown_costs_nothing_and_the_next_start_answers(
        self, tmp_path: Path, hook: Receiver
    ) -> None:
        async with opened(tmp_path) as gate:
            answer = await asked(
                gate, hook, "/v1/inference/test/slow", input="w " * 400, max_new_tokens=400
            )
            request_id = answer.json()["request_id"]
            async with asyncio.timeout(10):
                while not any(flight.stage == "decode" for flight in gate.flights):
                    await asyncio.sleep(0)
        async with opened(tmp_path, gate.services.database.url) as gate:
            assert await entries(gate) == []
            came = (await hook.next()).json()
            assert came["request_id"] == request_id
            assert came["inference_status"]["status"] == "succeeded"
            assert [entry.request_id for entry in await entries(gate)] == [request_id]


async def left_behind(gate: Gateway, hook: Receiver) -> CallRow:
    """A call as a process that died leaves it."""
    services = gate.services
    body = msgspec.json.encode({"input": "one two", "webhook": hook.url})
    row = CallRow(
        request_id=ids.request_id(),
        account_id=gate.account_id,
        token_id=(await services.tokens.authenticate(ADMIN_TOKEN)).token_id,
        jwt_id=None,
        jwt_limit_nanos=None,
        path=ECHO,
        query="",
        headers=msgspec.msgpack.encode([(b"content-type", b"application/json")]),
        body=await services.blobs.put(body),
        answer=None,
        webhook=hook.url,
        status="running",
        created_unix_ns=services.clock.unix_ns(),
        ended_unix_ns=None,
        gateway=services.ledger.gateway,
        delivery="waiting",
        due_unix_ns=None,
        attempts=msgspec.msgpack.encode([]),
    )
    async with services.database.writing() as connection:
        await webhook_calls.add(connection, row)
    return row
