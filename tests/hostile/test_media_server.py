"""A real server whose worker decodes what strangers send: it lives, answers, and leaves no file."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from inferd.tasks.media import INLINE_BYTES_MAX
from tests.hostile.attack import leaks
from tests.hostile.test_media_bytes import FOREIGN, encoded, jpeg_of, png_of, webp_of
from tests.process import InferdProcess, serving
from tests.web import page, web
from tests.weights import local_card

MODEL = "inferd/efficientnet-lite0"
PATH = f"/v1/inference/{MODEL}"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    folder = tmp_path_factory.mktemp("media-server")
    async with serving(folder, local_card(MODEL)) as running:
        yield running


async def post(client: httpx.AsyncClient, content: bytes) -> httpx.Response:
    return await client.post(PATH, files={"image": ("a.png", content)})


def left_over(server: InferdProcess) -> list[Path]:
    return list((server.data_dir / "media").iterdir())


def large() -> bytes:
    """A sound picture that travels in a file."""
    out = io.BytesIO()
    Image.effect_noise((1000, 1000), 50).convert("RGB").save(out, "BMP")
    assert len(out.getvalue()) > INLINE_BYTES_MAX
    return out.getvalue()


async def test_a_worker_outlives_every_picture(server: InferdProcess) -> None:
    bombs = [png_of(50_000, 50_000), jpeg_of(65_000, 65_000), webp_of(16_383, 16_383)]
    broken = [encoded(name)[:-40] for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
    single = [encoded("PNG", (1, 1))]
    huge = [large()[:-9], b"\x89PNG\r\n\x1a\n" + b"\0" * INLINE_BYTES_MAX]
    async with server.client() as client:
        assert (await post(client, large())).status_code == 200
        pid = await server.worker_pid(MODEL)
        for content in [*bombs, *broken, *single, *huge, *FOREIGN.values()]:
            answer = await post(client, content)
            assert answer.status_code == 400, content[:40]
            assert not leaks(answer.content, str(server.data_dir))
            assert answer.elapsed.total_seconds() < 5
        assert (await post(client, encoded("PNG"))).status_code == 200
    assert await server.worker_pid(MODEL) == pid
    assert left_over(server) == []
    assert len([entry for entry in server.entries() if entry.cost_nanos]) == 2


def decoders_of(pid: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 2) for line in listing.stdout.splitlines()]
    return [int(own) for own, of, words in lines if int(of) == pid and "engines.decoder" in words]


async def test_a_decoder_that_crashes_takes_no_neighbour_with_it(server: InferdProcess) -> None:
    """As a hole in a library would let a picture do it."""
    async with server.client() as client:
        assert (await post(client, encoded("PNG"))).status_code == 200
        pid = await server.worker_pid(MODEL)
        assert pid is not None
        (decoder,) = decoders_of(pid)
        os.kill(decoder, signal.SIGSTOP)
        first, second = (asyncio.ensure_future(post(client, large())) for _ in range(2))
        done, crashing = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        assert [one.result().status_code for one in done] == [200]
        os.kill(decoder, signal.SIGSEGV)
        os.kill(decoder, signal.SIGCONT)
        answer = await crashing.pop()
        assert answer.status_code == 400
        assert "cannot be decoded within the limits" in answer.text
        assert not leaks(answer.content, str(server.data_dir))
        assert (await post(client, large())).status_code == 200
    assert await server.worker_pid(MODEL) == pid
    assert decoder not in decoders_of(pid)
    assert left_over(server) == []


async def test_a_form_in_chunks_is_read(server: InferdProcess) -> None:
    content = large()
    head = b'--cut\r\nContent-Disposition: form-data; name="image"\r\n\r\n'

    async def chunks() -> AsyncIterator[bytes]:
        yield head
        for at in range(0, len(content), 100_000):
            yield content[at : at + 100_000]
        yield b"\r\n--cut--\r\n"

    kind = {"content-type": "multipart/form-data; boundary=cut"}
    async with server.client() as client:
        answer = await client.post(PATH, content=chunks(), headers=kind)
    assert answer.status_code == 200
    assert "content-length" not in answer.request.headers


async def test_the_server_itself_is_not_reached_by_a_url(server: InferdProcess) -> None:
    async with web() as site, server.client() as client:
        site.pages["/a"] = page(encoded("PNG"))
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"):
            answer = await client.post(PATH, json={"image": site.url("/a", host)})
            assert answer.status_code == 400
            assert "public address" in answer.json()["detail"]["error"]
        assert site.heads == []
        own = await client.post(PATH, json={"image": f"{server.url}/health"})
        assert own.status_code == 400


async def test_a_network_of_the_setting_is_reached(tmp_path: Path) -> None:
    opened = serving(tmp_path, local_card(MODEL), private_media="127.0.0.0/8")
    async with opened as own, web() as site, own.client() as client:
        site.pages["/a"] = page(encoded("PNG"))
        answer = await client.post(PATH, json={"image": site.url("/a")})
        assert answer.status_code == 200, answer.text


async def test_what_a_killed_server_left_is_gone_at_the_next_start(tmp_path: Path) -> None:
    async with serving(tmp_path, local_card(MODEL)) as own:
        await own.kill()
        (own.data_dir / "media" / "left").write_bytes(b"somebody's voice")
        await own.start()
        assert left_over(own) == []
        assert (own.data_dir / "media").stat().st_mode & 0o777 == 0o700
