"""Pictures in chats may be larger than prompts: 20 MB each, whatever the cap on text."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, Response, echo_card, gateway

SEES = echo_card("test/sees", modalities=("image", "audio"))
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/anthropic/v1/messages"
COUNT = "/anthropic/v1/messages/count_tokens"
MB = 1_000_000


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, SEES, echo_card()) as running:
        yield running
        folder = running.services.media_dir
        assert folder is not None
        assert [path for path in folder.iterdir() if len(path.name) == 32] == []
        assert running.services.bodies.total == 0


def picture(megabytes: int) -> str:
    """Base64 of what begins like a picture; the echo model looks no further."""
    return b64encode(b"\x89PNG\r\n\x1a\n" + bytes(megabytes * MB)).decode()


def asked(path: str, image: str, text: str = "hello", model: str = SEES.name) -> dict[str, Any]:
    url = f"data:image/png;base64,{image}"
    if path == RESPONSES:
        parts = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": text}]
        return {"model": model, "input": [{"role": "user", "content": parts}]}
    said = {"type": "text", "text": text}
    if path == CHAT:
        parts = [{"type": "image_url", "image_url": {"url": url}}, said]
    else:
        source = {"type": "base64", "media_type": "image/png", "data": image}
        parts = [{"type": "image", "source": source}, said]
    messages = [{"role": "user", "content": parts}]
    return {"model": model, "messages": messages, "max_tokens": 9}


def refused(answer: Response, gate: Gateway) -> str:
    assert answer.status == 413
    assert gate.flights == []
    return answer.body.decode()


class Test200:
    @pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES, COUNT])
    async def test_a_picture_over_the_cap_on_text(self, gate: Gateway, path: str) -> None:
        answer = await gate.client.post(path, asked(path, picture(12)))
        assert answer.status == 200, answer.body

    async def test_two_pictures_of_one_message(self, gate: Gateway) -> None:
        body = asked(CHAT, picture(9))
        content = body["messages"][0]["content"]
        body["messages"][0]["content"] = [content[0], *content]
        assert (await gate.client.post(CHAT, body)).status == 200


class Test400:
    async def test_a_model_without_pictures(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, asked(CHAT, picture(12), model="test/echo"))
        assert answer.status == 400
        assert answer.json()["error"]["param"] == "messages.0.content.0.type"

    async def test_a_mark_is_no_picture(self, gate: Gateway) -> None:
        for mark in ("\0text:0", "\0file:0"):
            body = asked(CHAT, "")
            body["messages"][0]["content"][0]["image_url"]["url"] = mark
            assert (await gate.client.post(CHAT, body)).status == 400


class Test413:
    @pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
    @pytest.mark.parametrize("text", ["a" * 11 * MB, "a b " * 3 * MB])
    async def test_the_cap_on_text_stays(self, gate: Gateway, path: str, text: str) -> None:
        answer = await gate.client.post(path, asked(path, picture(1), text))
        assert "10000000" in refused(answer, gate)

    async def test_a_prompt_like_base64_is_text(self, gate: Gateway) -> None:
        body = {"model": "test/echo", "messages": [{"role": "user", "content": picture(30)}]}
        refused(await gate.client.post(CHAT, body), gate)

    async def test_a_picture_over_20_mb(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, asked(CHAT, picture(22)))
        assert "messages.0.content.0.image_url.url" in refused(answer, gate)

    async def test_more_than_any_body_may_have(self, gate: Gateway) -> None:
        refused(await gate.client.post(CHAT, asked(CHAT, picture(40))), gate)
