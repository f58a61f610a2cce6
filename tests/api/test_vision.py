"""Chats with pictures, in three dialects, by the two-stage captioner on real photographs."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from tests.awake import Stopwatch
from tests.gateway import Gateway, echo_card, gateway
from tests.pictures import picture_path
from tests.weights import local_card

MODEL = "inferd/smolcaption"
QUESTION = "What is in this picture?"


@pytest.fixture
async def seeing(tmp_path: Path) -> AsyncGenerator[Gateway]:
    card = msgspec.structs.replace(local_card(MODEL), slots=1, context_length=1024, memory_bytes=1)
    async with gateway(tmp_path, card, echo_card()) as built:
        yield built


@pytest.fixture
async def blind(tmp_path: Path) -> AsyncGenerator[Gateway]:
    """A text model, and one that would take images and audio if it were asked."""
    hears = echo_card("test/hears", modalities=("image", "audio"))
    async with gateway(tmp_path, echo_card(), hears) as built:
        yield built


def base64_of(name: str) -> str:
    return base64.b64encode(picture_path(name).read_bytes()).decode()


def data_url(name: str) -> str:
    return f"data:image/png;base64,{base64_of(name)}"


def chat(*parts: Any, model: str = MODEL, **fields: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": QUESTION}]
    message = {"role": "user", "content": content}
    return {"model": model, "messages": [message], "max_tokens": 24, "temperature": 0} | fields


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def file(given: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": given, "filename": "x"}}


async def by_anthropic(seeing: Gateway) -> tuple[str, int]:
    """What Anthropic's dialect says of the coffee, and counts."""
    source = {"type": "base64", "media_type": "image/png", "data": base64_of("coffee.png")}
    content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    asked = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    counted = await seeing.client.post("/anthropic/v1/messages/count_tokens", asked)
    fields = {"max_tokens": 24, "temperature": 0}
    answer = (await seeing.client.post("/anthropic/v1/messages", asked | fields)).json()
    usage = answer["usage"]
    # Anthropic's input tokens leave out the cached ones.
    tokens = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert counted.json()["input_tokens"] == tokens
    return answer["content"][0]["text"], tokens


async def by_responses(seeing: Gateway) -> tuple[str, int]:
    """What the Responses API says of it."""
    part = {"type": "input_image", "image_url": data_url("coffee.png")}
    item = {"role": "user", "content": [part, {"type": "input_text", "text": QUESTION}]}
    asked = {"model": MODEL, "input": [item], "max_output_tokens": 24, "temperature": 0}
    answer = (await seeing.client.post("/v1/responses", asked)).json()
    return answer["output"][0]["content"][0]["text"], answer["usage"]["input_tokens"]


class TestAnswers:
    async def test_the_answer_is_about_the_picture_in_every_dialect(self, seeing: Gateway) -> None:
        """And a stream says what the plain body says, with the same usage."""
        client = seeing.client
        body = chat(image(data_url("coffee.png")))
        plain = (await client.post("/v1/chat/completions", body)).json()
        said: str = plain["choices"][0]["message"]["content"]
        assert any(word in said.lower() for word in ("coffee", "cup", "espresso"))
        stream = await client.post("/v1/chat/completions", body | {"stream": True})
        events = stream.events()
        pieces = [c["delta"].get("content") or "" for e in events for c in e["choices"]]
        assert "".join(pieces) == said
        usage = plain["usage"]
        assert events[-1]["usage"]["prompt_tokens"] == usage["prompt_tokens"]
        assert await by_anthropic(seeing) == (said, usage["prompt_tokens"])
        assert await by_responses(seeing) == (said, usage["prompt_tokens"])
        for given in (data_url("coffee.png"), base64_of("coffee.png")):
            filed = (await client.post("/v1/chat/completions", chat(file(given)))).json()
            assert "choices" in filed, filed
            assert filed["choices"][0]["message"]["content"] == said
        cat = (
            await client.post("/v1/chat/completions", chat(image(data_url("chelsea.png"))))
        ).json()
        assert "cat" in cat["choices"][0]["message"]["content"].lower()
        # What a picture costs is the words that stand for it, under what the card says at most.
        blind = (await client.post("/v1/chat/completions", chat())).json()
        card = seeing.services.catalog.get(MODEL)
        extra = usage["prompt_tokens"] - blind["usage"]["prompt_tokens"]
        assert 0 < extra <= card.media_tokens_max()

    async def test_who_names_no_temperature_is_answered_about_the_picture(
        self, seeing: Gateway
    ) -> None:
        """At 1, where others begin, so small a model says anything."""
        for seed in range(4):
            body = chat(image(data_url("chelsea.png")), temperature=None, seed=seed)
            answer = (await seeing.client.post("/v1/chat/completions", body)).json()
            assert "cat" in answer["choices"][0]["message"]["content"].lower()

    async def test_a_huge_picture_is_refused_by_its_header(self, seeing: Gateway) -> None:
        await seeing.client.post("/v1/chat/completions", chat())  # loaded
        written = io.BytesIO()
        Image.new("L", (8, 8)).save(written, "PNG")
        png = written.getvalue()
        huge = png[:16] + (50_000).to_bytes(4, "big") * 2 + png[24:]
        for content in (huge, png[:40], png[:8] + b"x" * 100):
            url = "data:image/png;base64," + base64.b64encode(content).decode()
            clock = Stopwatch()
            answer = await seeing.client.post("/v1/chat/completions", chat(image(url)))
            assert answer.status == 400, answer.body
            assert clock.seconds() < 1


_PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
_SVG = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()


class TestRefused:
    @pytest.mark.parametrize(
        ("part", "param"),
        [
            (image(""), "messages.0.content.0.image_url.url"),
            ({"type": "image_url"}, "messages.0.content.0.image_url.url"),
            ({"type": "image_url", "image_url": {}}, "messages.0.content.0.image_url.url"),
            ({"type": "image_url", "image_url": 7}, "messages.0.content.0.image_url"),
            (image("data:image/png;base64,@@@"), "messages.0.content.0.image_url.url"),
            (image("data:image/png,abc"), "messages.0.content.0.image_url.url"),
            (image("data:image/svg+xml;base64," + _SVG), "messages.0.content.0.image_url.url"),
            (image("data:text/html;base64,PGI+"), "messages.0.content.0.image_url.url"),
            (image("file:///etc/passwd"), "messages.0.content.0.image_url.url"),
            (image("/etc/passwd"), "messages.0.content.0.image_url.url"),
            (image("ftp://example.com/a.png"), "messages.0.content.0.image_url.url"),
            (image("http://127.0.0.1/a.png"), None),
            (image("http://169.254.169.254/latest/meta-data"), None),
            (image("http://[::1]/a.png"), None),
            (image("http://localhost:22/"), None),
            (image("http://0x7f000001/"), None),
            ({"type": "input_audio"}, "messages.0.content.0.input_audio.data"),
            ({"type": "input_audio", "input_audio": {}}, "messages.0.content.0.input_audio.data"),
            (
                {"type": "input_audio", "input_audio": {"data": _PIXEL, "format": "wav"}},
                "messages.0.content.0.input_audio.data",
            ),
            ({"type": "video_url", "video_url": {"url": "x"}}, "messages.0.content.0.type"),
            ({"type": "file", "file": {"file_id": "f"}}, "messages.0.content.0.type"),
            ({"type": "file"}, "messages.0.content.0.type"),
            (file("data:application/pdf;base64,JVBERi0x"), "messages.0.content.0.file.file_data"),
            (file("http://127.0.0.1/a.png"), "messages.0.content.0.file.file_data"),
            (file("@@@"), "messages.0.content.0.file.file_data"),
        ],
    )
    async def test_at_once(self, blind: Gateway, part: Any, param: str | None) -> None:
        clock = Stopwatch()
        answer = await blind.client.post("/v1/chat/completions", chat(part, model="test/hears"))
        assert 400 <= answer.status < 500, answer.body
        assert clock.seconds() < 1
        if param is not None:
            assert answer.json()["error"]["param"] == param
        assert not blind.flights

    async def test_too_many(self, blind: Gateway) -> None:
        parts = [image("data:image/png;base64," + _PIXEL)] * 17
        answer = await blind.client.post("/v1/chat/completions", chat(*parts, model="test/hears"))
        assert (answer.status, "at most 16" in answer.json()["error"]["message"]) == (400, True)

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (
                "/v1/chat/completions",
                chat(image("data:image/png;base64," + _PIXEL), model="test/echo"),
            ),
            (
                "/v1/responses",
                {
                    "model": "test/echo",
                    "input": [
                        {
                            "role": "user",
                            "content": [{"type": "input_image", "image_url": "http://a.b/c"}],
                        }
                    ],
                },
            ),
            (
                "/anthropic/v1/messages",
                {
                    "model": "test/echo",
                    "max_tokens": 5,
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "image", "source": {"type": "url", "url": "http://a.b/c"}}
                            ],
                        }
                    ],
                },
            ),
        ],
    )
    async def test_a_model_of_text_says_that_it_takes_no_images(
        self, blind: Gateway, path: str, body: Any
    ) -> None:
        answer = await blind.client.post(path, body)
        assert answer.status == 400
        assert "The model test/echo takes no images." in answer.json()["error"]["message"]

    async def test_a_model_of_text_takes_no_files(self, blind: Gateway) -> None:
        body = chat(file("data:image/png;base64," + _PIXEL), model="test/echo")
        answer = await blind.client.post("/v1/chat/completions", body)
        assert answer.status == 400
        assert "The model test/echo takes no files." in answer.json()["error"]["message"]

    async def test_an_assistant_says_no_pictures(self, blind: Gateway) -> None:
        body = chat(model="test/hears")
        body["messages"].insert(0, {"role": "assistant", "content": [image("http://a.b/c")]})
        answer = await blind.client.post("/v1/chat/completions", body)
        assert (answer.status, answer.json()["error"]["param"]) == (
            400,
            "messages.0.content.0.type",
        )
