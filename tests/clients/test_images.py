"""Pictures and films through clients, with the packaged models."""

from __future__ import annotations

import asyncio
import json
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients.support import openai_base, package
from tests.clients.test_node import installed
from tests.process import TOKEN, InferdProcess, serving
from tests.weights import local_card

IMAGES, FILMS = "inferd/emoji-flow", "inferd/emoji-motion"
PNG, SIZE_AT = b"\x89PNG\r\n\x1a\n", 16

__all__ = ["installed"]

# The packages complain about each other.
pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    folder = tmp_path_factory.mktemp("images")
    async with serving(folder, local_card(IMAGES), local_card(FILMS)) as running:
        yield running


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(PNG)
    width, height = png[SIZE_AT : SIZE_AT + 4], png[SIZE_AT + 4 : SIZE_AT + 8]
    return int.from_bytes(width, "big"), int.from_bytes(height, "big")


async def test_openai_for_python(server: InferdProcess) -> None:
    openai = package("openai")
    async with openai.AsyncOpenAI(
        base_url=openai_base(server), api_key=TOKEN, max_retries=0
    ) as client:
        drawn: Any = await client.images.generate(
            model=IMAGES, prompt="a red apple", size="256x256", n=2
        )
        pictures = [b64decode(one.b64_json) for one in drawn.data]
        assert [size(one) for one in pictures] == [(256, 256)] * 2
        by_url: Any = await client.images.generate(
            model=IMAGES, prompt="a rocket", size="256x256", response_format="url"
        )
        async with server.client() as plain:
            fetched = await plain.get(by_url.data[0].url, headers={"authorization": ""})
        assert size(fetched.content) == (256, 256)
        edited: Any = await client.images.edit(
            model=IMAGES, image=pictures[0], prompt="a blue heart", size="256x256", n=2
        )
        assert [size(b64decode(one.b64_json)) for one in edited.data] == [(256, 256)] * 2
        listed: Any = await client.images.edit(
            model=IMAGES, image=[pictures[0]], mask=pictures[1], prompt="x", size="256x256"
        )
        assert size(b64decode(listed.data[0].b64_json)) == (256, 256)
        varied: Any = await client.images.create_variation(
            model=IMAGES, image=pictures[0], n=1, size="256x256"
        )
        assert size(b64decode(varied.data[0].b64_json)) == (256, 256)
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.images.generate(model=IMAGES, prompt="x", size="9x9")
        assert refusal.value.param == "size"


async def test_streams_of_openai_for_python(server: InferdProcess) -> None:
    openai = package("openai")
    types = package("openai.types")
    async with openai.AsyncOpenAI(
        base_url=openai_base(server), api_key=TOKEN, max_retries=0
    ) as client:
        wish: dict[str, Any] = {"model": IMAGES, "prompt": "a red apple", "size": "1024x1024"}
        shared: dict[str, Any] = {**wish, "stream": True, "partial_images": 3}
        drawing: Any = await client.images.generate(**shared, quality="high")
        *partial, last = [event async for event in drawing]
        assert all(isinstance(one, types.ImageGenPartialImageEvent) for one in partial)
        assert [one.partial_image_index for one in partial] == [0, 1, 2]
        assert isinstance(last, types.ImageGenCompletedEvent)
        for one in (*partial, last):
            # The client itself does not look whether all that it declares is there.
            assert one.__class__.model_validate(one.to_dict()) == one
            assert (one.size, one.quality, one.output_format) == ("1024x1024", "high", "png")
            assert size(b64decode(one.b64_json)) == (1024, 1024)
        assert (last.usage.total_tokens, last.usage.input_tokens_details.text_tokens) == (0, 0)
        assert last.usage.estimated_cost > 0
        source = b64decode(last.b64_json)
        editing: Any = await client.images.edit(**shared, image=source)
        *partial, last = [event async for event in editing]
        assert all(isinstance(one, types.ImageEditPartialImageEvent) for one in partial)
        assert len(partial) == 3
        assert isinstance(last, types.ImageEditCompletedEvent)
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.images.generate(**{**shared, "partial_images": 4})
        assert refusal.value.param == "partial_images"


async def test_films_of_openai_for_python(server: InferdProcess) -> None:
    openai = package("openai")
    async with openai.AsyncOpenAI(
        base_url=openai_base(server), api_key=TOKEN, max_retries=0
    ) as client:
        async with asyncio.timeout(60):
            job: Any = await client.videos.create_and_poll(
                model=FILMS, prompt="a cat", seconds="2", size="128x128"
            )
        assert job.status == "succeeded"
        film: Any = await client.videos.download_content(job.id, variant="video")
        assert (await film.aread())[4:8] == b"ftyp"


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
async def test_node(server: InferdProcess, installed: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("node", "images.mjs", server.url, TOKEN, IMAGES),
        cwd=installed,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, complaint.decode()
    told: dict[str, Any] = json.loads(output)
    native = [one.removeprefix("data:image/png;base64,") for one in told["images"]]
    assert [size(b64decode(one)) for one in native] == [(128, 128)] * 2
    assert (told["seed"], told["status"]) == (3, "succeeded")
    assert "pixels" in told["error"] or "400" in told["error"]
    # The AI SDK asks for one picture a call; the same seed gives the same picture.
    assert told["ai"] == [native[0]] * 2
    assert size(b64decode(told["wide"])) == (680, 384)
    assert size(b64decode(told["edited"])) == (128, 128), told.get("editError")
    assert told["missing"][:2] == ["AI_APICallError", 404]
