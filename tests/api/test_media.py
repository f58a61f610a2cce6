"""Binary input over the wire: every way to bring it, every way to be turned away, nothing left."""

from __future__ import annotations

import asyncio
import io
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from inferd.api.address import read_networks
from inferd.api.services import ApiOptions
from inferd.serving.router import RouterOptions
from inferd.tasks.media import INLINE_BYTES_MAX
from tests.gateway import Gateway, Response, gateway, until
from tests.hostile.attack import leaks
from tests.ledger import entries
from tests.web import page, web
from tests.weights import local_card

MODEL = "inferd/efficientnet-lite0"
PATH = f"/v1/inference/{MODEL}"
BYTES_MAX = 4_000_000

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    options = ApiOptions(
        media_bytes_max=BYTES_MAX,
        media_body_bytes_max=BYTES_MAX + 100_000,
        private_media=read_networks("127.0.0.1/32"),
    )
    async with gateway(
        tmp_path_factory.mktemp("media"),
        local_card(MODEL),
        options=options,
        router_options=RouterOptions(memory_bytes=1 << 33),
    ) as running:
        yield running


@pytest.fixture
def folder(gate: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where large input lies; empty at the end of every test."""
    made = gate.services.media_dir
    assert made is not None
    yield made
    assert private_files(made) == []


def private_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if len(path.name) == 32 and path.is_file()]


def small(name: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, name)
    return out.getvalue()


def large() -> bytes:
    """A BMP of 3 MB."""
    out = io.BytesIO()
    Image.effect_noise((1000, 1000), 50).convert("RGB").save(out, "BMP")
    assert len(out.getvalue()) > INLINE_BYTES_MAX
    return out.getvalue()


def part(head: str, content: bytes) -> bytes:
    return f"Content-Disposition: form-data; {head}\r\n\r\n".encode() + content


async def post_form(gate: Gateway, *parts: bytes, boundary: str = "cut") -> Response:
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + each + b"\r\n" for each in parts) + line + b"--\r\n"
    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    return await gate.client.post(PATH, body, headers=kind)


async def post(gate: Gateway, image: str) -> Response:
    return await gate.client.post(PATH, {"image": image})


def said(answer: Response) -> str:
    """The sentence of a refusal."""
    assert not leaks(answer.body)
    return answer.json()["detail"]["error"]


async def test_every_way_to_bring_a_picture_is_the_same_picture(gate: Gateway) -> None:
    content = small()
    text = b64encode(content).decode()
    lines = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    async with web() as site:
        site.pages["/a.png"] = page(content, "Content-Type: text/html")
        answers = [
            # A browser and curl, requests, DeepInfra's clients, a quoted string, a URL as text.
            await post_form(gate, part('name="image"; filename="a.png"', content)),
            await post_form(gate, part('name="image"; filename="../../etc/passwd"', content)),
            await post_form(gate, part("name=image; filename=a.png", content)),
            await post_form(gate, part("name=\"image\"; filename*=utf-8''%C3%A9.png", content)),
            await post_form(gate, part('name="image"\r\nContent-Type: image/tiff', content)),
            await post_form(gate, part('name="image"', f'"{text}"'.encode())),
            await post_form(gate, part('name="image"', text.encode())),
            await post_form(gate, part('name="image"', site.url("/a.png").encode())),
            await post(gate, site.url("/a.png")),
            await post(gate, f"data:image/png;base64,{text}"),
            await post(gate, f"DATA:application/pdf;x=y;BASE64,{text}"),
            await post(gate, text),
            await post(gate, lines),
            await post(gate, text.rstrip("=")),
            await post(gate, urlsafe_b64encode(content).decode()),
        ]
    assert [answer.status for answer in answers] == [200] * len(answers)
    first, *others = [answer.json()["results"] for answer in answers]
    assert others == [first] * len(others)


@pytest.mark.parametrize(
    "name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "ICO", "PPM"]
)
async def test_formats_that_are_read(gate: Gateway, name: str) -> None:
    assert (await post(gate, b64encode(small(name)).decode())).status == 200


REFUSED = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "svg after a declaration": b'<?xml version="1.0"?><svg/>',
    "jpeg 2000": small("JPEG2000"),
    "ppm in text": b"P3 2 2 255\n" + b"1 2 3\n" * 4,
    "heic": b"\0\0\0\x20ftypheic\0\0\0\0mif1heic",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "pdf": b"%PDF-1.7\n",
    "zip": b"PK\x03\x04",
    "pickle": b"\x80\x04\x95\x1e\0\0\0",
    "numpy": b"\x93NUMPY\x01\0",
    "a recording": b"RIFF\0\0\0\0WAVEfmt ",
    "a film": b"\0\0\0\x18ftypisom\0\0\0\0",
    "a playlist": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "nothing": b"",
    "one byte": b"\xff",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_picture_reaches_no_worker(gate: Gateway, name: str) -> None:
    before, paid = len(gate.flights), len(await entries(gate))
    content = REFUSED[name]
    answers = [
        await post_form(gate, part('name="image"; filename="a.png"', content)),
        await post(gate, f"data:image/png;base64,{b64encode(content).decode()}"),
    ]
    for answer in answers:
        assert answer.status == 400
        assert "image is no image" in said(answer)
    assert len(gate.flights) == before
    assert len(await entries(gate)) == paid


@pytest.mark.parametrize(
    "text",
    [
        *("file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "gopher://a/", "unix:/run/x"),
        *("data:image/png,abc", "data:text/plain;base64", "data:;base64,*", "%2e%2e/a.png"),
        *("\0file:0", "\0file:-1", "\0file:999", "\0file:" + "9" * 400, "\0file:\u0664"),
        *("ftp://a.b/c", "http:\\\\127.0.0.1\\", " http://127.0.0.1/", "//127.0.0.1/", "\u2044etc"),
    ],
)
async def test_a_text_that_is_no_picture_opens_nothing(gate: Gateway, text: str) -> None:
    for answer in (
        await post(gate, text),
        await post_form(gate, part('name="image"', text.encode())),
    ):
        assert answer.status == 400
        assert "etc" not in said(answer)


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::1]/"),
        *("http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://0x7f000001/", "http://0/"),
        *("http://0177.0.0.1/", "http://127.1/", "http://localhost.@169.254.169.254/"),
        *("http://good.com\\@169.254.169.254/", "http://user:pw@8.8.8.8/", "HTTP://127.0.0.2/"),
    ],
)
async def test_a_url_inside_is_refused(gate: Gateway, url: str) -> None:
    began = asyncio.get_running_loop().time()
    answer = await post(gate, url)
    assert answer.status == 400
    assert "169.254" not in said(answer)
    assert asyncio.get_running_loop().time() - began < 2


class TestFiles:
    async def test_a_large_picture_lies_in_a_private_file_while_it_is_used(
        self, gate: Gateway, folder: Path
    ) -> None:
        call = asyncio.ensure_future(post_form(gate, part('name="image"', large())))
        await until(lambda: bool(private_files(folder)) or call.done())
        modes = [path.stat().st_mode & 0o777 for path in private_files(folder)]
        assert (await call).status == 200
        assert modes == [0o600]

    async def test_none_is_left_by_a_picture_that_cannot_be_decoded(
        self, gate: Gateway, folder: Path
    ) -> None:
        answer = await post_form(gate, part('name="image"', large()[: INLINE_BYTES_MAX + 9]))
        assert answer.status == 400
        assert said(answer) == "image is not a sound picture."

    async def test_none_is_left_by_a_client_that_leaves(self, gate: Gateway, folder: Path) -> None:
        body = {"image": b64encode(large()).decode()}
        gone = asyncio.Event()
        call = asyncio.ensure_future(gate.client.post(PATH, body, gone=gone))
        await until(lambda: bool(private_files(folder)) or call.done())
        assert not call.done()
        gone.set()
        await call

    async def test_over_the_cap_is_413_before_it_is_decoded(
        self, gate: Gateway, folder: Path
    ) -> None:
        over = small() + b"\0" * BYTES_MAX
        assert (await post_form(gate, part('name="image"', over))).status == 413
        far = b"\0" * (BYTES_MAX + 200_000)
        assert (await post_form(gate, part('name="image"', far))).status == 413
        async with web() as site:
            site.pages["/a"] = page(over)
            assert (await post(gate, site.url("/a"))).status == 413
        assert gate.services.bodies.total == 0


@pytest.mark.parametrize(
    "kind",
    ["application/x-pickle", "application/octet-stream", "application/x-npy", "image/png"],
)
async def test_a_body_of_another_kind_is_415(gate: Gateway, kind: str) -> None:
    answer = await gate.client.post(PATH, small(), headers={"content-type": kind})
    assert answer.status == 415


async def test_one_of_two_parts_of_a_name_counts(gate: Gateway) -> None:
    answer = await post_form(
        gate,
        part('name="image"; filename="a"', b"no picture"),
        part('name="other"; filename="b"', b"\0" * 1000),
        part('name="image"; filename="c"', small()),
    )
    assert answer.status == 200
