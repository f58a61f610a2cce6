"""A client that leaves while its page is read: the worker stops, and what was read is billed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.steps import eventually, in_flight
from tests.process import serving
from tests.weights import local_card
from tests.writing import data_url, page

MODEL = "RapidAI/RapidOCR"


@pytest.mark.engine
async def test_what_was_read_is_billed(tmp_path: Path) -> None:
    lines = [[f"Line {at} of a page with many lines", str(at)] for at in range(60)]
    body = {"image": data_url(page(lines))}
    async with serving(tmp_path, local_card(MODEL)) as server, server.client() as client:

        async def settled() -> bool:
            return len(server.entries()) == 2

        whole = await client.post(f"/v1/inference/{MODEL}", json=body)
        assert whole.status_code == 200, whole.text
        asking = asyncio.create_task(client.post(f"/v1/inference/{MODEL}", json=body))
        async with server.client() as watcher:
            await in_flight(watcher, MODEL, 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await in_flight(watcher, MODEL, 0)
            await eventually(settled)
        paid, left = server.entries()
        assert (paid.status, left.status) == ("succeeded", "cancelled")
        assert 0 < left.quantity < paid.quantity
        assert left.cost_nanos == pytest.approx(left.quantity / 2, abs=1)
        # The replica is as it was.
        again = await client.post(f"/v1/inference/{MODEL}", json=body)
        assert again.json()["text"] == whole.json()["text"]
