"""Chats with pictures through clients, with the packaged captioner."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients.support import openai_base, package
from tests.clients.test_node import installed
from tests.pictures import picture_path
from tests.process import TOKEN, InferdProcess, serving
from tests.weights import local_card

MODEL = "inferd/smolcaption"
QUESTION = "What is in this picture?"

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
    async with serving(tmp_path_factory.mktemp("vision"), local_card(MODEL)) as running:
        yield running


def photo() -> str:
    return base64.b64encode(picture_path("coffee.png").read_bytes()).decode()


def about_coffee(text: str) -> bool:
    return any(word in text.lower() for word in ("coffee", "cup", "espresso"))


def asked() -> list[Any]:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{photo()}"}}
    return [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]


async def test_openai_for_python(server: InferdProcess) -> None:
    openai = package("openai")
    async with openai.AsyncOpenAI(
        base_url=openai_base(server), api_key=TOKEN, max_retries=0
    ) as client:
        fields: dict[str, Any] = {"model": MODEL, "messages": asked(), "temperature": 0}
        plain: Any = await client.chat.completions.create(**fields, max_tokens=24)
        assert about_coffee(plain.choices[0].message.content)
        stream: Any = await client.chat.completions.create(**fields, max_tokens=24, stream=True)
        pieces = [choice.delta.content or "" async for one in stream for choice in one.choices]
        assert "".join(pieces) == plain.choices[0].message.content
        url = f"data:image/png;base64,{photo()}"
        content = [
            {"type": "input_image", "image_url": url, "detail": "auto"},
            {"type": "input_text", "text": QUESTION},
        ]
        response: Any = await client.responses.create(
            model=MODEL,
            input=[{"role": "user", "content": content}],
            max_output_tokens=24,
            temperature=0,
        )
        assert response.output_text == plain.choices[0].message.content


async def test_anthropic_for_python(server: InferdProcess) -> None:
    anthropic = package("anthropic")
    source = {"type": "base64", "media_type": "image/png", "data": photo()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    async with anthropic.AsyncAnthropic(
        base_url=f"{server.url}/anthropic", api_key=TOKEN, max_retries=0
    ) as client:
        message: Any = await client.messages.create(
            model=MODEL,
            max_tokens=24,
            messages=[{"role": "user", "content": content}],
            extra_body={"temperature": 0},
        )
    assert about_coffee(message.content[0].text)


async def test_the_ai_sdk(server: InferdProcess, installed: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("node", "vision.mjs", server.url, TOKEN, MODEL, str(picture_path("coffee.png"))),
        cwd=installed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, complaint = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, complaint.decode()
    told: dict[str, str] = json.loads(output)
    assert about_coffee(told["deepinfra"])
    assert told["deepinfra"] == told["compatible"]


async def test_litellm(server: InferdProcess) -> None:
    litellm = package("litellm")
    answer: Any = await litellm.acompletion(
        model=f"openai/{MODEL}",
        api_base=openai_base(server),
        api_key=TOKEN,
        messages=asked(),
        temperature=0,
        max_tokens=24,
    )
    assert about_coffee(answer.choices[0].message.content)
