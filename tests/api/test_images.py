"""Drawing over the wire: OpenAI's images and the native dialect, with the packaged model."""

from __future__ import annotations

import asyncio
import io
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from PIL import Image

from inferd.jobs.blobs import KEPT_SECONDS
from inferd.money import usd
from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries
from tests.weights import local_card

MODEL = "inferd/emoji-flow"
NATIVE = f"/v1/inference/{MODEL}"
GENERATIONS = "/v1/openai/images/generations"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    options = RouterOptions(memory_bytes=1 << 33)
    card = local_card(MODEL)
    async with gateway(tmp_path_factory.mktemp("g"), card, router_options=options) as running:
        yield running


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def from_url(url: str) -> bytes:
    head, _, text = url.partition(",")
    assert head == "data:image/png;base64"
    return b64decode(text)


def average(content: bytes) -> tuple[int, int, int]:
    pixel = opened(content).convert("RGB").resize((1, 1)).tobytes()
    return pixel[0], pixel[1], pixel[2]


def png(colour: str = "red", side: int = 64) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(sink, "PNG")
    return sink.getvalue()


async def form(gate: Gateway, path: str, *parts: tuple[str, str | bytes]) -> Response:
    """Bytes are sent as files, text as text."""
    body = b""
    for name, value in parts:
        file = '; filename="a.png"' if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else value.encode()
        head = f'--cut\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    return await gate.client.post(path, body + b"--cut--\r\n", headers=kind)


class TestGenerations:
    async def test_a_picture_in_base64_with_its_cost(self, gate: Gateway) -> None:
        body = {"model": MODEL, "prompt": "red apple", "size": "256x256", "n": 2}
        told = (await gate.client.post(GENERATIONS, body)).json()
        assert len(told["data"]) == 2
        for one in told["data"]:
            assert opened(b64decode(one["b64_json"])).size == (256, 256)
            assert one["url"] is None
            assert one["revised_prompt"] is None
        assert told["model"] == MODEL
        entry = (await entries(gate))[-1]
        assert (entry.unit, entry.quantity) == ("image_units", 125_000)
        assert told["usage"] == {"image_units": 0.125, "estimated_cost": usd(entry.cost_nanos)}
        # 0.0001 dollars a unit.
        assert entry.cost_nanos == 12_500

    async def test_who_names_no_model_gets_the_default(self, gate: Gateway) -> None:
        told = (await gate.client.post("/v1/images/generations", {"prompt": "rocket"})).json()
        assert told["model"] == MODEL
        assert opened(b64decode(told["data"][0]["b64_json"])).size == (512, 512)

    async def test_a_url_is_open_to_who_knows_it_for_a_day(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = {"prompt": "rocket", "size": "64x64", "response_format": "url"}
        # The header is believed from proxies of ours, of which there are none.
        headers = {"host": "images.test", "x-forwarded-proto": "https"}
        told = (await gate.client.post(GENERATIONS, body, headers=headers)).json()
        url: str = told["data"][0]["url"]
        assert url.startswith("http://images.test/v1/images/")
        path = url.removeprefix("http://images.test")
        answer = await gate.client.get(path, headers={"authorization": ""})
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        assert opened(answer.body).size == (64, 64)
        now_ns = gate.services.clock.unix_ns()
        later_ns = now_ns + (KEPT_SECONDS + 5) * 1_000_000_000

        def later(_: object) -> int:
            return later_ns

        monkeypatch.setattr(type(gate.services.clock), "unix_ns", later)
        assert (await gate.client.get(path)).status == 404

    @pytest.mark.parametrize(
        "name", ["0" * 32, "..%2f..%2finferd.db", "../inferd.db", "x", "a" * 99]
    )
    async def test_nothing_else_is_served(self, gate: Gateway, name: str) -> None:
        assert (await gate.client.get(f"/v1/images/{name}")).status == 404

    async def test_quality_sets_the_steps_and_the_price(self, gate: Gateway) -> None:
        for quality, units in (("low", 31_250), ("hd", 125_000)):
            body = {"prompt": "rocket", "size": "256x256", "quality": quality}
            assert (await gate.client.post(GENERATIONS, body)).status == 200
            assert (await entries(gate))[-1].quantity == units

    async def test_output_formats(self, gate: Gateway) -> None:
        for name in ("jpeg", "webp"):
            body = {"prompt": "rocket", "size": "64x64", "output_format": name}
            told = (await gate.client.post(GENERATIONS, body)).json()
            assert opened(b64decode(told["data"][0]["b64_json"])).format == name.upper()

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"prompt": ""}, 400),
            ({"n": 5}, 400),
            ({"n": 0}, 400),
            ({"size": "huge"}, 400),
            ({"size": "16x16"}, 400),
            ({"size": "4096x64"}, 400),
            ({"response_format": "gif"}, 400),
            ({"model": "nobody/nothing"}, 404),
            ({"prompt": "cat " * 500}, 400),
        ],
    )
    async def test_refusals_cost_nothing(
        self, gate: Gateway, fields: dict[str, Any], status: int
    ) -> None:
        before = sum(entry.cost_nanos for entry in await entries(gate))
        answer = await gate.client.post(GENERATIONS, {"prompt": "rocket", **fields})
        assert answer.status == status
        assert answer.json()["error"]["message"]
        assert sum(entry.cost_nanos for entry in await entries(gate)) == before


class TestEditsAndVariations:
    async def test_an_edit_with_text_numbers_and_a_mask(self, gate: Gateway) -> None:
        mask = Image.new("L", (64, 64), 0)
        mask.paste(255, (0, 0, 32, 64))
        sink = io.BytesIO()
        mask.save(sink, "PNG")
        answer = await form(
            gate,
            "/v1/openai/images/edits",
            *(("model", MODEL), ("prompt", "blue heart"), ("n", "2"), ("size", "64x64")),
            *(("image", png()), ("mask", sink.getvalue())),
        )
        told = answer.json()
        assert len(told["data"]) == 2, told
        kept = opened(b64decode(told["data"][0]["b64_json"])).getpixel((50, 32))
        assert kept == (255, 0, 0)

    async def test_image_in_brackets_is_the_same_field(self, gate: Gateway) -> None:
        parts = [("model", MODEL), ("prompt", "cat"), ("size", "64x64"), ("image[]", png())]
        assert (await form(gate, "/v1/images/edits", *parts)).status == 200

    async def test_two_images_are_refused_by_name(self, gate: Gateway) -> None:
        parts = [("model", MODEL), ("prompt", "cat"), ("image", png()), ("image", png("blue"))]
        answer = await form(gate, "/v1/images/edits", *parts)
        assert answer.status == 400
        assert answer.json()["error"]["param"] == "image"

    async def test_a_variation_looks_like_the_picture(self, gate: Gateway) -> None:
        body = {"prompt": "green heart", "size": "64x64", "seed": 1}
        source = (await gate.client.post(GENERATIONS, body)).json()["data"][0]["b64_json"]
        parts = [("model", MODEL), ("size", "64x64"), ("seed", "1"), ("image", b64decode(source))]
        answer = await form(gate, "/v1/openai/images/variations", *parts)
        content = b64decode(answer.json()["data"][0]["b64_json"])
        red, green, blue = average(content)
        assert green > max(red, blue)

    async def test_what_is_no_picture(self, gate: Gateway) -> None:
        parts = [("model", MODEL), ("prompt", "cat"), ("image", b"not a picture")]
        answer = await form(gate, "/v1/images/edits", *parts)
        assert answer.status == 400
        assert "image" in answer.json()["error"]["message"]


class TestNative:
    async def test_the_answer_has_data_urls_and_the_seed_repeats_it(self, gate: Gateway) -> None:
        body = {"prompt": "rocket", "width": "128", "height": "96", "num_images": 2}
        first = (await gate.client.post(NATIVE, body)).json()
        assert [opened(from_url(one)).size for one in first["images"]] == [(128, 96)] * 2
        assert first["nsfw_content_detected"] == [False, False]
        assert first["inference_status"]["status"] == "succeeded"
        assert first["inference_status"]["tokens_input"] is None
        entry = (await entries(gate))[-1]
        assert first["inference_status"]["cost"] == usd(entry.cost_nanos) > 0
        again = await gate.client.post(NATIVE, {**body, "seed": first["seed"]})
        assert again.json()["images"] == first["images"]

    @pytest.mark.parametrize(
        ("ratio", "size"), [("16:9", (680, 384)), ("1:1", (512, 512)), ("1:2", (360, 728))]
    )
    async def test_aspect_ratios_keep_the_area(
        self, gate: Gateway, ratio: str, size: tuple[int, int]
    ) -> None:
        told = (await gate.client.post(NATIVE, {"prompt": "cat", "aspect_ratio": ratio})).json()
        assert opened(from_url(told["images"][0])).size == size

    async def test_a_form_as_the_node_client_sends_it(self, gate: Gateway) -> None:
        """Strings in quotes, numbers bare."""
        body = {"prompt": "blue heart", "width": 64, "height": 64, "seed": 4}
        plain = (await gate.client.post(NATIVE, body)).json()
        parts = [(name, msgspec.json.encode(value).decode()) for name, value in body.items()]
        assert (await form(gate, NATIVE, *parts)).json()["images"] == plain["images"]

    async def test_from_a_picture_as_data_url(self, gate: Gateway) -> None:
        image = f"data:image/png;base64,{b64encode(png('blue')).decode()}"
        body = {"prompt": "x", "image": image, "strength": 0, "width": 64, "height": 64}
        told = (await gate.client.post(NATIVE, body)).json()
        red, green, blue = average(from_url(told["images"][0]))
        assert blue > max(red, green) + 50

    async def test_progress_comes_as_events_and_the_body_as_the_last(self, gate: Gateway) -> None:
        body = {"prompt": "rocket", "width": 64, "height": 64, "seed": 4, "stream": True}
        answer = await gate.client.post(NATIVE, {**body, "num_inference_steps": 5})
        *steps, last = answer.events()
        assert steps == [{"progress": {"step": step, "steps": 5}} for step in range(1, 6)]
        whole = await gate.client.post(NATIVE, {**body, "num_inference_steps": 5, "stream": False})
        assert whole.json()["images"] == last["images"]

    async def test_the_shape_of_sdxls_cog(self, gate: Gateway) -> None:
        inner = {"prompt": "rocket", "width": 64, "height": 64, "num_outputs": 2, "seed": 4}
        told = (await gate.client.post(NATIVE, {"input": inner})).json()
        assert told["status"] == "succeeded"
        assert len(told["output"]) == 2
        assert told["complated_at"] == told["completed_at"] > told["started_at"]
        assert told["metrics"]["predict_time"] > 0
        flat = {"prompt": "rocket", "width": 64, "height": 64, "num_images": 2, "seed": 4}
        assert (await gate.client.post(NATIVE, flat)).json()["images"] == told["output"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"width": 16},
            {"width": 5000},
            {"aspect_ratio": "wide"},
            {"use_compel": True},
            {"lora_scale": 0.5},
            {"webhook": "nowhere"},
            {"mask": "AAAA"},
        ],
    )
    async def test_what_is_not_done_is_said(self, gate: Gateway, fields: dict[str, Any]) -> None:
        answer = await gate.client.post(NATIVE, {"prompt": "rocket", **fields})
        assert answer.status == 400, answer.body
        assert answer.json()["detail"]["error"]

    async def test_without_a_prompt_the_field_is_named(self, gate: Gateway) -> None:
        answer = await gate.client.post(NATIVE, {"prompt": None})
        assert answer.status == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "prompt"]

    async def test_a_client_that_leaves_pays_for_the_steps_so_far(self, gate: Gateway) -> None:
        gone, sent = asyncio.Event(), asyncio.Event()
        body = {"prompt": "rocket", "num_inference_steps": 200, "stream": True, "num_images": 4}
        call = asyncio.ensure_future(gate.client.post(NATIVE, body, gone=gone, sent=sent))
        await sent.wait()
        gone.set()
        await call
        entry = (await entries(gate))[-1]
        # All of it: 512 × 512 at ten times the steps, four times.
        assert (entry.status, 0 < entry.quantity < 10_000_000) == ("cancelled", True)
