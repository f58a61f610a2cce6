"""Pictures as OpenAI's events: what comes, in which order, and what it costs."""

from __future__ import annotations

import asyncio
import io
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from inferd.serving.router import RouterOptions
from tests.api.test_images import form, png
from tests.gateway import Gateway, Response, echo_card, gateway
from tests.ledger import entries
from tests.weights import local_card

MODEL = "inferd/emoji-flow"
GENERATIONS = "/v1/openai/images/generations"
EDITS = "/v1/openai/images/edits"
BODY = {"model": MODEL, "prompt": "red apple", "size": "128x96", "seed": 5, "stream": True}
FIELDS = {"type", "b64_json", "background", "created_at", "output_format", "quality", "size"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Told(NamedTuple):
    """One event."""

    name: str
    fields: dict[str, Any]

    @property
    def file(self) -> bytes:
        return b64decode(self.fields["b64_json"])

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.file))

    @property
    def pixels(self) -> Any:
        return np.asarray(self.picture.convert("RGB"), np.float32)


def told(answer: Response) -> list[Told]:
    """The events; each is its name and one line of data. Pings while a model loads apart."""
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.body
    events: list[Told] = []
    for block in answer.body.removesuffix(b"\n\n").split(b"\n\n"):
        if block.startswith(b": ping"):
            continue
        head, data = block.split(b"\n")
        fields = msgspec.json.decode(data.removeprefix(b"data: "))
        events.append(Told(head.removeprefix(b"event: ").decode(), fields))
    return events


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    options = RouterOptions(memory_bytes=1 << 33)
    card = local_card(MODEL)
    async with gateway(tmp_path_factory.mktemp("g"), card, router_options=options) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def painter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    card = echo_card("test/painter", task="text-to-image", options={"steps": 3})
    async with gateway(tmp_path_factory.mktemp("p"), card) as running:
        yield running


@pytest.mark.engine
class TestGenerations:
    @pytest.mark.parametrize("wanted", [1, 2, 3])
    async def test_previews_come_nearer_and_the_picture_is_that_of_the_plain_call(
        self, gate: Gateway, wanted: int
    ) -> None:
        events = told(await gate.client.post(GENERATIONS, {**BODY, "partial_images": wanted}))
        *previews, last = events
        assert [one.name for one in previews] == ["image_generation.partial_image"] * wanted
        assert last.name == "image_generation.completed"
        for one in events:
            assert one.fields["type"] == one.name
            assert one.picture.size == (128, 96)
            assert (one.fields["size"], one.fields["quality"]) == ("128x96", "auto")
            assert (one.fields["output_format"], one.fields["background"]) == ("png", "opaque")
            assert one.fields["created_at"] > 1_700_000_000
        assert [set(one.fields) - FIELDS for one in previews] == [{"partial_image_index"}] * wanted
        assert set(last.fields) - FIELDS == {"usage", "model"}
        assert [one.fields["partial_image_index"] for one in previews] == list(range(wanted))
        off = [float(np.abs(one.pixels - last.pixels).mean()) for one in previews]
        assert off == sorted(off, reverse=True)
        assert off[-1] > 0
        plain = await gate.client.post(GENERATIONS, {**BODY, "stream": False})
        assert b64decode(plain.json()["data"][0]["b64_json"]) == last.file

    async def test_previews_cost_nothing(self, gate: Gateway) -> None:
        plain = await gate.client.post(GENERATIONS, {**BODY, "stream": False})
        last = told(await gate.client.post(GENERATIONS, {**BODY, "partial_images": 3}))[-1]
        before, after = (await entries(gate))[-2:]
        assert (after.streamed, after.status, after.dialect) == (True, "succeeded", "openai")
        assert (after.unit, after.quantity) == (before.unit, before.quantity)
        assert after.cost_nanos == before.cost_nanos > 0
        assert last.fields["usage"] == {
            **plain.json()["usage"],
            "input_tokens": 0,
            "output_tokens": 0,
            "total_tokens": 0,
            "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
        }
        assert last.fields["model"] == plain.json()["model"]

    async def test_each_of_n_pictures_ends_with_its_own_share_of_the_bill(
        self, gate: Gateway
    ) -> None:
        events = told(await gate.client.post(GENERATIONS, {**BODY, "partial_images": 1, "n": 3}))
        names = [one.name.removeprefix("image_generation.") for one in events]
        assert names == ["partial_image", "completed"] * 3
        assert {one.fields["partial_image_index"] for one in events[::2]} == {0}
        plain = await gate.client.post(GENERATIONS, {**BODY, "n": 3, "stream": False})
        files = [b64decode(one["b64_json"]) for one in plain.json()["data"]]
        assert [one.file for one in events[1::2]] == files
        entry = (await entries(gate))[-2]
        usages = [one.fields["usage"] for one in events[1::2]]
        assert sum(round(one["image_units"] * 1e6) for one in usages) == entry.quantity
        assert sum(round(one["estimated_cost"] * 1e9) for one in usages) == entry.cost_nanos

    @pytest.mark.parametrize("fields", [{}, {"partial_images": 0}, {"partial_images": None}])
    async def test_without_previews_the_picture_is_the_only_event(
        self, gate: Gateway, fields: dict[str, Any]
    ) -> None:
        (last,) = told(await gate.client.post(GENERATIONS, {**BODY, **fields}))
        assert last.name == "image_generation.completed"

    @pytest.mark.parametrize("name", ["jpeg", "webp"])
    async def test_files_are_of_the_format_and_never_urls(self, gate: Gateway, name: str) -> None:
        wishes = {"output_format": name, "response_format": "url", "partial_images": 1}
        for one in told(await gate.client.post(GENERATIONS, {**BODY, **wishes})):
            assert one.picture.format == name.upper()
            assert one.fields["output_format"] == name
            assert "url" not in one.fields

    @pytest.mark.parametrize(
        ("asked", "shown"), [("low", "low"), ("standard", "medium"), ("hd", "high")]
    )
    async def test_quality_is_told_in_todays_words(
        self, gate: Gateway, asked: str, shown: str
    ) -> None:
        (last,) = told(await gate.client.post(GENERATIONS, {**BODY, "quality": asked}))
        assert last.fields["quality"] == shown

    async def test_a_large_picture_comes_whole(self, gate: Gateway) -> None:
        body = {**BODY, "size": "1024x1024", "partial_images": 1}
        events = told(await gate.client.post(GENERATIONS, body))
        assert [one.picture.size for one in events] == [(1024, 1024)] * 2
        assert all(len(one.file) > 256 * 1024 for one in events)

    async def test_a_stream_is_repeated_for_its_key_and_billed_once(self, gate: Gateway) -> None:
        key = {"idempotency-key": "a picture"}
        body = {**BODY, "partial_images": 2}
        first = await gate.client.post(GENERATIONS, body, headers=key)
        count = len(await entries(gate))
        again = await gate.client.post(GENERATIONS, body, headers=key)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.body == first.body
        assert len(await entries(gate)) == count

    async def test_a_client_that_leaves_pays_for_the_steps_so_far(self, gate: Gateway) -> None:
        gone, sent = asyncio.Event(), asyncio.Event()
        body = {**BODY, "size": "512x512", "quality": "hd", "n": 4, "partial_images": 3}
        call = asyncio.ensure_future(gate.client.post(GENERATIONS, body, gone=gone, sent=sent))
        await sent.wait()
        gone.set()
        await call
        entry = (await entries(gate))[-1]
        # All of it: a quarter of a unit at twice the steps, four times.
        assert (entry.status, 0 < entry.quantity < 2_000_000) == ("cancelled", True)
        assert 0 < entry.cost_nanos < 200_000


@pytest.mark.engine
class TestEdits:
    async def test_a_form_is_streamed_and_what_may_not_change_never_does(
        self, gate: Gateway
    ) -> None:
        mask = Image.new("L", (64, 64), 0)
        mask.paste(255, (0, 0, 32, 64))
        sink = io.BytesIO()
        mask.save(sink, "PNG")
        parts = [("model", MODEL), ("prompt", "blue heart"), ("size", "64x64"), ("stream", "true")]
        files = [("image", png()), ("mask", sink.getvalue())]
        answer = await form(gate, EDITS, *parts, ("partial_images", "2"), *files)
        events = told(answer)
        names = [one.name.removeprefix("image_edit.") for one in events]
        assert names == ["partial_image", "partial_image", "completed"]
        for one in events:
            assert one.picture.size == (64, 64)
            assert (one.pixels[:, 33:] == (255, 0, 0)).all()
        assert len({one.file for one in events}) == 3

    async def test_variations_come_whole_and_it_says_so(self, gate: Gateway) -> None:
        parts = [("model", MODEL), ("size", "64x64"), ("stream", "true"), ("image", png())]
        answer = await form(gate, "/v1/openai/images/variations", *parts)
        assert (answer.status, answer.json()["error"]["param"]) == (400, "stream")


class TestWithoutWeights:
    @pytest.mark.parametrize("value", [-1, 4, "many", 1.5])
    @pytest.mark.parametrize("path", [GENERATIONS, EDITS])
    async def test_other_numbers_of_previews_are_refused_by_name(
        self, painter: Gateway, path: str, value: object
    ) -> None:
        body = {**BODY, "model": "test/painter", "image": "x", "partial_images": value}
        for streamed in (True, False):
            answer = await painter.client.post(path, {**body, "stream": streamed})
            assert answer.status == 400
            assert answer.json()["error"]["param"] == "partial_images"

    async def test_there_are_no_more_previews_than_steps_before_the_last(
        self, painter: Gateway
    ) -> None:
        body = {**BODY, "model": "test/painter", "partial_images": 3}
        events = told(await painter.client.post(GENERATIONS, body))
        assert len(events) == 3
        assert [one.fields.get("partial_image_index") for one in events] == [0, 1, None]

    async def test_a_plain_answer_has_no_previews(self, painter: Gateway) -> None:
        body = {**BODY, "model": "test/painter", "partial_images": 3, "stream": False}
        told_plain = (await painter.client.post(GENERATIONS, body)).json()
        assert len(told_plain["data"]) == 1

    async def test_a_failure_on_the_way_is_the_last_event(self, painter: Gateway) -> None:
        prompt = "a cat echo:fail_after=4"
        body = {**BODY, "model": "test/painter", "prompt": prompt, "n": 2, "partial_images": 1}
        *before, last = told(await painter.client.post(GENERATIONS, body))
        names = [one.name.removeprefix("image_generation.") for one in before]
        assert names == ["partial_image", "completed", "partial_image"]
        assert last.name == "error"
        assert last.fields["error"]["message"] == "The echo model was told to fail."
        entry = (await entries(painter))[-1]
        assert (entry.status, entry.streamed) == ("failed", True)

    async def test_a_failure_before_it_keeps_its_status(self, painter: Gateway) -> None:
        body = {**BODY, "model": "test/painter", "prompt": "a cat echo:fail_after=0"}
        answer = await painter.client.post(GENERATIONS, body)
        assert (answer.status, answer.headers["content-type"]) == (500, "application/json")
