"""A call with a webhook survives what ends its server."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.steps import card, in_flight
from tests.process import serving
from tests.receiver import receiver

SLOW = "/v1/inference/t/slow"


async def test_a_kill_loses_no_call_and_bills_it_once(data_dir: Path) -> None:
    slow = card("t/slow", "token_ms=5")
    async with (
        receiver() as hook,
        serving(data_dir, slow, private_webhooks="127.0.0.0/8") as server,
    ):
        body = {"input": "w " * 300, "max_new_tokens": 300, "webhook": hook.url}
        async with server.client() as client:
            asked = await client.post(SLOW, json=body)
            assert asked.json()["inference_status"]["status"] == "queued"
            await in_flight(client, "t/slow", 1)
        await server.kill()
        await server.start()
        came = (await hook.next()).json()
        assert came["request_id"] == asked.json()["request_id"]
        assert came["num_tokens"] == 300
        (entry,) = server.entries()
        assert (entry.request_id, entry.status) == (came["request_id"], "succeeded")
        assert entry.output_tokens == 300
