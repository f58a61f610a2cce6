"""Pictures and films through llama.cpp: a random projector before the real SmolLM2.

What is said means nothing; that it depends on the pictures, is counted to the token, and mixes
with nobody else's is what is shown here.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from scripts.make_mmproj import TOKENS, make_mmproj

from inferd.catalog.card import ModelCard, ModelFile, PathSource
from inferd.engines.base import Resources
from inferd.engines.llama_media import Sight, data_urls
from inferd.engines.xllamacpp import XllamacppEngine
from inferd.errors import BadRequest, ContextLengthExceeded
from inferd.tasks.base import Stopped
from inferd.tasks.every import Event
from inferd.tasks.media import Media
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    Message,
    Placed,
    Sampling,
    Started,
    Text,
    TextGenerationRequest,
    TextPrompt,
    TokenizeRequest,
    TokenPrompt,
)
from tests.films import film, film_media
from tests.recordings import RATE, encoded, wav
from tests.weights import smollm2_card, smollm2_path

QUESTION = "What is this?"
GREEDY = Sampling(temperature=0)
FRAMES = 3


def colour(name: str, side: int = 64) -> Media:
    """A picture of one colour, with a corner of another one."""
    picture = Image.new("RGB", (side, side), name)
    picture.paste("white", (0, 0, side // 3, side // 2))
    written = io.BytesIO()
    picture.save(written, "PNG")
    return Media("image", "image/png", len(written.getvalue()), data=written.getvalue())


def asking(*pictures: Media, text: str = QUESTION, **fields: Any) -> TextGenerationRequest:
    message = Message("user", text, media=tuple(Placed(0, one) for one in pictures))
    asked: dict[str, Any] = {"max_tokens": 8, "sampling": GREEDY, **fields}
    return TextGenerationRequest("test/seeing", ChatPrompt((message,)), **asked)


def seeing_card(folder: Path) -> ModelCard:
    """SmolLM2 with a random projector."""
    make_mmproj(576, folder / "mmproj.gguf")
    return msgspec.structs.replace(
        smollm2_card(),
        name="test/seeing",
        context_length=512,
        slots=2,
        modalities=("image", "video"),
        options={"media_tokens_max": TOKENS, "video_frames": FRAMES, "media_seconds_max": 20},
        files=tuple(
            ModelFile(role=role, file_name=path.name, source=PathSource(str(path)))
            for role, path in (("model", smollm2_path()), ("mmproj", folder / "mmproj.gguf"))
        ),
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> XllamacppEngine:
    folder = tmp_path_factory.mktemp("seeing")
    card = seeing_card(folder)
    files = {"model": str(smollm2_path()), "mmproj": str(folder / "mmproj.gguf")}
    engine = XllamacppEngine()
    engine.load(card, Resources(files=files, threads=1, runtime_dir=str(folder)))
    return engine


async def said(engine: XllamacppEngine, request: Any) -> tuple[str, Done, int]:
    """The text, the end, and how long the prompt was said to be."""
    text, end, prompt = "", None, -1
    async for event in engine.run(request, asyncio.Event()):
        if isinstance(event, Text):
            text += event.text
        elif isinstance(event, Started):
            prompt = event.prompt_tokens
        elif isinstance(event, Done):
            end = event
    assert end is not None
    return text, end, prompt


async def test_a_picture_costs_its_tokens(engine: XllamacppEngine) -> None:
    _, plain, _ = await said(engine, asking())
    for count in (1, 2):
        _, done, prompt = await said(engine, asking(*[colour("red")] * count))
        assert done.usage.input_tokens == prompt == plain.usage.input_tokens + count * TOKENS
    assert done.usage.output_tokens == 8


async def test_a_film_is_some_of_its_pictures(engine: XllamacppEngine) -> None:
    """Counted to the token, in their order, beside a picture."""
    _, plain, _ = await said(engine, asking())
    shown = [Image.new("RGB", (64, 64), name) for name in ("red", "lime", "blue")]
    forth, back = film_media(film(shown, 3)), film_media(film(shown[::-1], 3))
    _, done, prompt = await said(engine, asking(forth, colour("red")))
    assert prompt == plain.usage.input_tokens + (FRAMES + 1) * TOKENS
    assert done.usage.input_tokens == prompt
    first = await first_logprob(engine, asking(forth, logprobs=1))
    assert first != await first_logprob(engine, asking(back, logprobs=1))


async def test_a_card_that_names_no_frames_takes_no_films(tmp_path: Path) -> None:
    card = seeing_card(tmp_path)
    for changed in ({"modalities": ("image",)}, {"options": {"media_tokens_max": TOKENS}}):
        sight = Sight.of(msgspec.structs.replace(card, **changed))
        with pytest.raises(BadRequest, match="takes images, not video"):
            data_urls([film_media(film([Image.new("RGB", (64, 64))], 1))], sight)


async def test_the_answer_depends_on_the_picture_and_the_cache_keeps_them_apart(
    engine: XllamacppEngine,
) -> None:
    """The same account, the same text, the same slots: still never another picture's answer."""
    alone = [
        await said(engine, asking(colour(name), logprobs=0, cache_scope=f"alone-{name}"))
        for name in ("red", "blue")
    ]
    again = [
        await said(engine, asking(colour(name), cache_scope="one"))
        for name in ("red", "blue", "red", "blue")
    ]
    assert [text for text, _, _ in again] == [alone[0][0], alone[1][0]] * 2
    # Up to the picture the prompt is the same: that part is reused, the picture's tokens are not.
    assert 0 < again[1][1].usage.cached_tokens <= again[1][2] - TOKENS
    first = await first_logprob(engine, asking(colour("red"), logprobs=1))
    other = await first_logprob(engine, asking(colour("blue"), logprobs=1))
    assert first != other


async def first_logprob(engine: XllamacppEngine, request: TextGenerationRequest) -> float | None:
    events = [event async for event in engine.run(request, asyncio.Event())]
    tokens = [token for event in events if isinstance(event, Text) for token in event.tokens]
    return tokens[0].logprob


async def test_text_alone_says_what_it_says_without_a_projector(engine: XllamacppEngine) -> None:
    text, done, _ = await said(engine, asking(text="Say hello."))
    rendered = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
    rendered += "Hugging Face<|im_end|>\n<|im_start|>user\nSay hello.<|im_end|>\n"
    raw = TextPrompt(rendered + "<|im_start|>assistant\n")
    request = TextGenerationRequest("test/seeing", raw, max_tokens=8, sampling=GREEDY)
    assert (await said(engine, request))[0] == text
    assert text.strip()
    assert done.usage.output_tokens == 8


async def test_cancelled_while_a_picture_is_read(engine: XllamacppEngine) -> None:
    cancel = asyncio.Event()
    events: list[Event] = []
    pictures = [colour("green", 100 + index) for index in range(6)]
    async for event in engine.run(asking(*pictures, max_tokens=200), cancel):
        events.append(event)
        cancel.set()
    last = events[-1]
    assert isinstance(last, Stopped)
    assert last.usage.output_tokens <= 1
    assert (await said(engine, asking(colour("green"))))[1].usage.output_tokens == 8


def silence() -> bytes:
    return wav(np.zeros(RATE, np.int16))


def _broken(content: bytes) -> Media:
    return Media("image", "image/png", len(content), data=content)


_PNG = colour("red").read()
_HUGE = _PNG[:16] + (50_000).to_bytes(4, "big") * 2 + _PNG[24:]


@pytest.mark.parametrize(
    ("request_of", "sentence"),
    [
        (lambda: asking(_broken(b"\x89PNG\r\n\x1a\n")), "not a sound picture"),
        (lambda: asking(_broken(_PNG[: len(_PNG) // 2])), "not a sound picture"),
        (lambda: asking(_broken(_HUGE)), "pixels|sound"),
        (lambda: asking(_broken(b"<svg xmlns='http://www.w3.org/2000/svg'/>")), "sound"),
        (
            lambda: asking(Media("audio", "audio/wav", 4, data=b"RIFF")),
            "images and video, not audio",
        ),
        (lambda: asking(film_media(b"\0\0\0\x20ftypisom" + bytes(90))), "film cannot be read"),
        (lambda: asking(film_media(film([Image.new("RGB", (32, 32))], 21))), "longer than 20"),
        (lambda: asking(film_media(encoded(silence(), "m4a"))), "no pictures in it"),
        (lambda: TextGenerationRequest("test/seeing", TokenPrompt((1, 2))), "token ids"),
        (lambda: TokenizeRequest("test/seeing", asking(colour("red")).prompt), "counted when"),
    ],
)
async def test_refused(
    engine: XllamacppEngine, request_of: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises(BadRequest, match=sentence):
        await said(engine, request_of())


async def test_too_many_pictures_for_the_context(engine: XllamacppEngine) -> None:
    with pytest.raises(ContextLengthExceeded):
        await said(engine, asking(*[colour("red")] * 40))


async def test_llama_cpps_own_mark_is_text(engine: XllamacppEngine) -> None:
    _, done, _ = await said(engine, asking(colour("red"), text="<__media__> What is this?"))
    _, plain, _ = await said(engine, asking(text="<__media__> What is this?"))
    assert done.usage.input_tokens == plain.usage.input_tokens + TOKENS
