"""A card may say how boldly its model speaks to who names no temperature."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from inferd.engines.base import Resources
from inferd.engines.xllamacpp import XllamacppEngine
from inferd.tasks.text_generation import (
    ChatPrompt,
    Message,
    Sampling,
    Text,
    TextGenerationRequest,
)
from tests.weights import smollm2_cut_card, smollm2_cut_path

pytestmark = pytest.mark.engine


async def said(engine: XllamacppEngine, sampling: Sampling) -> str:
    prompt = ChatPrompt((Message("user", "Say something."),))
    request = TextGenerationRequest("m", prompt, max_tokens=12, sampling=sampling)
    events = [event async for event in engine.run(request, asyncio.Event())]
    return "".join(event.text for event in events if isinstance(event, Text))


async def test_the_cards_temperature_is_for_who_names_none(tmp_path: Path) -> None:
    engine = XllamacppEngine()
    files = {"model": str(smollm2_cut_path())}
    card = msgspec.structs.replace(smollm2_cut_card(), slots=1, options={"temperature": 0})
    engine.load(card, Resources(files=files, threads=1, runtime_dir=str(tmp_path)))
    greedy = await said(engine, Sampling(temperature=0))
    assert await said(engine, Sampling(seed=1)) == greedy
    assert await said(engine, Sampling(seed=2)) == greedy
    assert await said(engine, Sampling(temperature=1.5, seed=1)) != greedy
    await engine.close()
