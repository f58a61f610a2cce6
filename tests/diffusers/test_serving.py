"""A folder of diffusers behind a real server: a card, a call, a picture, a bill."""

from __future__ import annotations

import asyncio
import io
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inferd.catalog.card import CardPrice, ModelCard, ModelFile, PathSource
from inferd.tasks.base import TaskName
from tests.diffusers import tiny
from tests.process import serving

pytestmark = [pytest.mark.diffusers, pytest.mark.filterwarnings("ignore")]


def card(name: str, task: TaskName, folder: Path, price: CardPrice, **options: Any) -> ModelCard:
    return ModelCard(
        name=name,
        task=task,
        engine="diffusers",
        extra="diffusers",
        licence="none",
        summary="Tiny.",
        price=price,
        options=options,
        files=(ModelFile(role="model", file_name="tiny", source=PathSource(str(folder))),),
    )


async def test_a_picture_and_a_film(tmp_path: Path) -> None:
    pictures, films = tiny.sdxl(tmp_path / "made"), tiny.wan(tmp_path / "made")
    data = tmp_path / "data"
    data.mkdir()
    cards = (
        card("t/sdxl", "text-to-image", pictures, CardPrice(image_units="1"), steps=4),
        card("t/wan", "text-to-video", films, CardPrice(output_seconds="1"), steps=2),
    )
    async with serving(data, *cards) as server, server.client() as client:
        body = {"model": "t/sdxl", "prompt": "a cat", "size": "128x64", "n": 2}
        answer = await client.post("/v1/images/generations", json=body)
        assert answer.status_code == 200, answer.text + server.stderr()
        for one in answer.json()["data"]:
            with Image.open(io.BytesIO(b64decode(one["b64_json"]))) as picture:
                assert picture.size == (128, 64)
        assert answer.json()["usage"]["estimated_cost"] == pytest.approx(2 / 128)
        wish = {"model": "t/wan", "prompt": "a cat", "seconds": 0.5, "size": "32x32"}
        job: Any = (await client.post("/v1/videos", json=wish)).json()
        async with asyncio.timeout(120):
            while job["status"] not in ("succeeded", "failed"):
                job = (await client.get(f"/v1/videos/{job['id']}")).json()
        assert job["status"] == "succeeded", job["error"]
        film = await client.get(f"/v1/videos/{job['id']}/content")
        assert film.content[4:8] == b"ftyp"
        assert [entry.quantity for entry in server.entries()] == [15_625, 500_000]
