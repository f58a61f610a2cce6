"""A client who leaves while the real Kokoro speaks."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from pathlib import Path

import pytest

from inferd.engines.speech_text import pieces
from inferd.serving.router import RouterOptions
from tests.gateway import gateway
from tests.ledger import entries
from tests.weights import local_card

KOKORO = "hexgrad/Kokoro-82M"
TEXT = " ".join(f"This is the sentence with the number {at}." for at in range(12))


@pytest.mark.engine
async def test_it_stops_at_the_next_piece_and_what_was_made_is_billed(tmp_path: Path) -> None:
    spoken = list(accumulate(len(piece) for piece in pieces(TEXT)))
    assert len(spoken) == 12
    options = RouterOptions(memory_bytes=1 << 33)
    async with gateway(tmp_path, local_card(KOKORO), router_options=options) as gate:
        sent, gone = asyncio.Event(), asyncio.Event()
        body = {"model": KOKORO, "input": TEXT, "response_format": "pcm"}
        calling = asyncio.create_task(
            gate.client.post("/v1/audio/speech", body, sent=sent, gone=gone)
        )
        await sent.wait()
        gone.set()
        await calling
        (entry,) = await entries(gate)
        assert entry.status == "cancelled"
        # The piece that was being spoken is said to its end, and the next one never begins.
        characters = entry.quantity // 1_000_000
        assert characters in spoken[:4]
        price = gate.services.catalog.get(KOKORO).unit_rate()
        assert entry.cost_nanos > 0
        assert entry.cost_nanos == pytest.approx(entry.quantity * price / 1e12, rel=0.01)
        # The engine is free again: whoever comes next is served.
        again = await gate.client.post("/v1/audio/speech", {**body, "input": "Hello."})
        assert again.status == 200
