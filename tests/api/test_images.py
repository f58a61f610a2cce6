"""Pictures and films over the wire, with emoji-flow: seeds, sizes, money, faults, jobs."""

from __future__ import annotations

import asyncio
import io
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import av
import pytest
import pytest_asyncio
from PIL import Image

from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries
from tests.weights import local_card

FLOW, MOTION = "inferd/emoji-flow", "inferd/emoji-motion"
NATIVE = f"/v1/inference/{FLOW}"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    cards = [local_card(FLOW), local_card(MOTION)]
    options = RouterOptions(memory_bytes=1 << 33)
    folder = tmp_path_factory.mktemp("images")
    async with gateway(folder, *cards, router_options=options) as running:
        yield running


async def draw(gate: Gateway, prompt: str = "a red heart", **fields: Any) -> Any:
    told = await gate.client.post(NATIVE, {"prompt": prompt, "seed": 7, **fields})
    assert told.status == 200, told.body
    return told.json()


def picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(url.partition(",")[2]))).convert("RGB")


def png(colour: str, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size, colour).save(sink, "PNG")
    return sink.getvalue()


def colour(image: Image.Image) -> tuple[int, int, int]:
    """Of the middle."""
    small = image.resize((9, 9), Image.Resampling.BOX).getpixel((4, 4))
    assert isinstance(small, tuple)
    return int(small[0]), int(small[1]), int(small[2])


async def test_a_seed_gives_the_same_picture_alone_and_beside_others(gate: Gateway) -> None:
    alone = await draw(gate)
    others = [draw(gate, f"a snowman {index}", seed=index) for index in range(4)]
    beside, *_ = await asyncio.gather(draw(gate), *others)
    assert alone["images"] == beside["images"]
    assert (await draw(gate, seed=8))["images"] != alone["images"]
    assert alone["seed"] == 7


async def test_the_prompt_says_what_is_drawn(gate: Gateway) -> None:
    red, green, blue = colour(picture((await draw(gate, "red heart"))["images"][0]))
    assert red > 150
    assert red > 2 * blue
    red, green, blue = colour(picture((await draw(gate, "green heart"))["images"][0]))
    assert green > red
    assert green > blue


async def test_pictures_have_the_size_that_was_asked_for(gate: Gateway) -> None:
    # As the AI SDK sends it: numbers as text.
    told = await draw(gate, width="320", height="256", num_images=2)
    assert [picture(one).size for one in told["images"]] == [(320, 256)] * 2
    wide = await draw(gate, aspect_ratio="16:9")
    width, height = picture(wide["images"][0]).size
    assert abs(width / height - 16 / 9) < 0.05


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({"width": 1024, "height": 1024}, 1_000_000),
        ({"width": 512, "height": 512}, 250_000),
        ({"width": 512, "height": 512, "num_inference_steps": 10}, 125_000),
        ({"width": 512, "height": 512, "num_images": 3}, 750_000),
    ],
)
async def test_it_costs_pixels_times_steps(
    gate: Gateway, fields: dict[str, Any], units: int
) -> None:
    told = await draw(gate, **fields)
    entry = (await entries(gate))[-1]
    assert (entry.unit, entry.quantity) == ("image_units", units)
    assert entry.cost_nanos == units // 10  # $0.0001 an image unit
    assert told["inference_status"]["cost"] == entry.cost_nanos / 1e9


async def test_a_stream_shows_each_step_and_ends_like_the_plain_answer(gate: Gateway) -> None:
    plain = await draw(gate, num_inference_steps=5)
    told = await gate.client.post(
        NATIVE, {"prompt": "a red heart", "seed": 7, "num_inference_steps": 5, "stream": True}
    )
    *steps, last = told.events()
    assert [event["progress"]["step"] for event in steps] == [1, 2, 3, 4, 5]
    assert last["images"] == plain["images"]


async def test_who_leaves_pays_for_the_steps_that_were_made(gate: Gateway) -> None:
    before = len(await entries(gate))
    gone, sent = asyncio.Event(), asyncio.Event()
    body = {"prompt": "a cat", "num_inference_steps": 200, "num_images": 4, "stream": True}
    call = asyncio.ensure_future(gate.client.post(NATIVE, body, gone=gone, sent=sent))
    await sent.wait()
    gone.set()
    await call
    entry = (await entries(gate))[before]
    assert entry.status == "cancelled"
    assert 0 < entry.quantity < 250_000 * 10 * 4


async def test_a_picture_is_the_beginning_of_another(gate: Gateway) -> None:
    start = (await draw(gate, "red heart"))["images"][0]
    near = await draw(gate, "red heart", image=start, strength=0.3)
    far = await draw(gate, "blue heart", image=start, strength=1.0)
    r, _, b = colour(picture(near["images"][0]))
    assert r > b
    r, _, b = colour(picture(far["images"][0]))
    assert b > r


async def test_a_mask_keeps_the_rest(gate: Gateway) -> None:
    original = b64encode(png("#3060c0", (256, 256))).decode()
    mask = Image.new("L", (256, 256), 0)
    mask.paste(255, (0, 0, 128, 256))
    sink = io.BytesIO()
    mask.save(sink, "PNG")
    told = await draw(
        gate, "red heart", image=original, mask=b64encode(sink.getvalue()).decode(),
        width=256, height=256,
    )  # fmt: skip
    made = picture(told["images"][0])
    assert made.getpixel((200, 128)) == (0x30, 0x60, 0xC0)


async def test_sdxls_cog_speaks_its_own_way(gate: Gateway) -> None:
    body = {"input": {"prompt": "a red heart", "seed": 7, "num_outputs": 2, "width": 64,
                      "height": 64}}  # fmt: skip
    told = (await gate.client.post(NATIVE, body)).json()
    assert told["status"] == "succeeded"
    assert len(told["output"]) == 2
    assert told["complated_at"] == told["completed_at"]
    assert told["metrics"]["predict_time"] > 0


def form(**parts: bytes | list[bytes]) -> tuple[bytes, dict[str, str]]:
    """A form; bytes of a picture become files."""
    body = b""
    for name, content in parts.items():
        for one in content if isinstance(content, list) else [content]:
            file = b'; filename="x.png"' if one.startswith(b"\x89PNG") else b""
            head = b'--cut\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + file
            body += head + b"\r\n\r\n" + one + b"\r\n"
    return body + b"--cut--\r\n", {"content-type": "multipart/form-data; boundary=cut"}


async def post_form(gate: Gateway, path: str, **parts: bytes | list[bytes]) -> Response:
    body, kind = form(**parts)
    return await gate.client.post(path, body, headers=kind)


@pytest.mark.parametrize("prefix", ["/v1", "/v1/openai"])
async def test_openais_three_routes(gate: Gateway, prefix: str) -> None:
    made = await gate.client.post(
        f"{prefix}/images/generations", {"prompt": "a red heart", "size": "128x128", "n": 2}
    )
    assert [len(made.json()["data"]), made.json()["model"]] == [2, FLOW]
    image = png("white")
    edited = await post_form(
        gate, f"{prefix}/images/edits", image=image, prompt=b"a snowman", n=b"1", size=b"128x128"
    )
    varied = await post_form(gate, f"{prefix}/images/variations", image=image, model=FLOW.encode())
    for told in (made, edited, varied):
        assert told.status == 200, told.body
        first = told.json()["data"][0]
        assert first["url"] is None
        Image.open(io.BytesIO(b64decode(first["b64_json"]))).verify()


async def test_a_url_needs_no_token_and_cannot_be_guessed(gate: Gateway) -> None:
    body = {"model": FLOW, "prompt": "a cat", "response_format": "url"}
    told = await gate.client.post("/v1/images/generations", body, headers={"host": "h:1"})
    url = told.json()["data"][0]["url"]
    assert url.startswith("http://h:1/v1/images/")
    path = url.removeprefix("http://h:1")
    seen = await gate.client.get(path, headers={"authorization": ""})
    assert (seen.status, seen.headers["content-type"]) == (200, "image/png")
    for bad in ("0" * 32, "../../inferd.db", "%2e%2e%2finferd.db", "x"):
        assert (await gate.client.get(f"/v1/images/{bad}")).status == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"width": 5},
        {"width": 99_999},
        {"num_images": 5},
        {"num_inference_steps": 100_000},
        {"seed": -1},
        {"image": "not base64 !!"},
        {"image": b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()},
        {"image": b64encode(png("red")[:40]).decode()},
        {"mask": b64encode(png("red")).decode()},
        {"aspect_ratio": "1:0"},
        {"lora_scale": 0.5},
        {"strength": 2},
        {"prompt": "word " * 2000},
        {"guidance_scale": 1e9},
    ],
)
async def test_bad_input_is_told(gate: Gateway, fields: dict[str, Any]) -> None:
    told = await gate.client.post(NATIVE, {"prompt": "a cat", **fields})
    assert told.status in (400, 422), told.body
    assert "0x" not in told.body.decode()


async def test_a_film_is_an_mp4_of_the_length_that_was_asked_for(gate: Gateway) -> None:
    body = {"prompt": "a cat -> a tiger", "seconds": 0.5, "size": "96x64", "seed": 3}
    told = (await gate.client.post(f"/v1/inference/{MOTION}", body)).json()
    assert told["video"] == told["video_url"]
    film = b64decode(told["video"].partition(",")[2])
    container: Any
    with av.open(io.BytesIO(film)) as container:
        frames = list(container.decode(video=0))
    assert [len(frames), frames[0].width, frames[0].height] == [8, 96, 64]
    # The index stands in front: browsers play while they load.
    assert film.index(b"moov") < film.index(b"mdat")
    entry = (await entries(gate))[-1]
    assert (entry.unit, entry.quantity, entry.cost_nanos) == ("output_seconds", 500_000, 250_000)


async def ended(gate: Gateway, job_id: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            told = (await gate.client.get(f"/v1/videos/{job_id}")).json()
            if told["status"] in ("succeeded", "failed"):
                return told
            await asyncio.sleep(0)


async def test_a_video_job_is_polled_and_fetched(gate: Gateway) -> None:
    before = len(await entries(gate))
    body = {"model": MOTION, "prompt": "a rocket", "seconds": 0.25}
    job = (await gate.client.post("/v1/videos", body)).json()
    assert (job["object"], job["status"], job["data"]) == (
        "video.generation.job", "queued", None,
    )  # fmt: skip
    told = await ended(gate, job["id"])
    assert told["status"] == "succeeded"
    film = await gate.client.get(f"/v1/videos/{job['id']}/content?variant=video")
    assert film.headers["content-type"] == "video/mp4"
    assert film.body[4:8] == b"ftyp"
    assert len(await entries(gate)) == before + 1
    assert (await gate.client.get("/v1/videos/videos_none")).status == 404


async def test_a_video_job_that_cannot_work_says_why(gate: Gateway) -> None:
    body = {"model": MOTION, "prompt": "a rocket", "seconds": 30}
    job = (await gate.client.post("/v1/videos", body)).json()
    told = await ended(gate, job["id"])
    assert told["status"] == "failed"
    assert "10 seconds" in told["error"]
    assert (await gate.client.get(f"/v1/videos/{job['id']}/content")).status == 409
