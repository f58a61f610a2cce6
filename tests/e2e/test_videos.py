"""A film that is being made when the server is killed is there after the next start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.process import serving
from tests.weights import local_card

MODEL = "inferd/emoji-motion"


@pytest.mark.engine
async def test_a_kill_loses_no_film_and_bills_it_once(tmp_path: Path) -> None:
    async with serving(tmp_path, local_card(MODEL)) as server:
        async with server.client() as client:
            body = {"model": MODEL, "prompt": "a cat", "seconds": 10, "size": "64x64"}
            job: Any = (await client.post("/v1/videos", json=body)).json()
            async with asyncio.timeout(60):
                while job["status"] == "queued":
                    job = (await client.get(f"/v1/videos/{job['id']}")).json()
        assert job["status"] == "in_progress"
        await server.kill()
        assert server.entries() == []
        await server.start()
        async with server.client() as client, asyncio.timeout(60):
            while job["status"] not in ("succeeded", "failed"):
                job = (await client.get(f"/v1/videos/{job['id']}")).json()
            film = await client.get(f"/v1/videos/{job['id']}/content")
        assert film.content[4:8] == b"ftyp"
        told = [(entry.status, entry.quantity) for entry in server.entries()]
        assert told == [("succeeded", 10_000_000)]
