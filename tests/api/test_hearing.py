"""Chats with recordings and films: what the two-stage captioner hears and sees in them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from inferd.catalog.card import PathSource
from inferd.engines.base import Resources
from inferd.engines.smolcaption_words import Describer
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.media import Media
from tests.films import film, film_media
from tests.gateway import Gateway, gateway
from tests.ledger import entries
from tests.pictures import picture_path
from tests.recordings import RATE, clips, encoded, joined, media, wav, word_errors
from tests.weights import local_card

MODEL = "inferd/smolcaption"
SILENCE = wav(np.zeros(RATE, np.int16))
HEARD = "The attached recording says:\n\n"
SAID = "In the attached film is said:\n\n"

pytestmark = pytest.mark.engine


def photograph(name: str) -> Image.Image:
    return Image.open(picture_path(name)).convert("RGB").resize((320, 240))


@pytest.fixture(scope="module")
def describer(tmp_path_factory: pytest.TempPathFactory) -> Describer:
    return Describer(local_card(MODEL), resources(tmp_path_factory.mktemp("describer")))


def resources(folder: Path) -> Resources:
    sources = {file.role: file.source for file in local_card(MODEL).files}
    files = {role: one.path for role, one in sources.items() if isinstance(one, PathSource)}
    return Resources(files=files, threads=1, runtime_dir=str(folder))


def words(describer: Describer, given: Media) -> str:
    told = describer.words(given, lambda: False)
    assert told is not None
    return told


class TestWords:
    def test_a_recording_is_what_is_said_in_it(self, describer: Describer) -> None:
        clip = clips()[1]
        for ending in ("wav", "mp3"):
            told = words(describer, media(encoded(clip.content, ending)))
            assert told.startswith(HEARD)
            wrong, count = word_errors(told.removeprefix(HEARD), clip.text)
            assert wrong <= count // 4, told

    def test_where_nobody_speaks_nothing_is_made_up(self, describer: Describer) -> None:
        assert words(describer, media(SILENCE)) == "(Attached recording: nobody speaks in it.)\n"

    def test_a_film_is_what_it_shows_in_its_order_and_what_is_said(
        self, describer: Describer
    ) -> None:
        clip = clips()[1]
        shown = [photograph("coffee.png"), photograph("chelsea.png")]
        told = words(describer, film_media(film(shown, 4, clip.content)))
        first, _, said = told.partition(SAID)
        assert "espresso" in first
        assert "cat" in first
        assert first.index("espresso") < first.index("cat")
        wrong, count = word_errors(said, clip.text)
        assert wrong <= count // 4, told
        silent = words(describer, film_media(film(shown, 4)))
        assert silent == first

    def test_a_recording_that_came_as_film_is_heard(self, describer: Describer) -> None:
        told = words(describer, film_media(encoded(clips()[1].content, "m4a")))
        assert told.startswith(HEARD)

    def test_long_speech_costs_no_more_than_the_card_says(self, tmp_path: Path) -> None:
        card = local_card(MODEL)
        short = {**card.options, "media_tokens_max": 128}
        describer = Describer(msgspec.structs.replace(card, options=short), resources(tmp_path))
        speech = joined(3)[0]
        talking = film([photograph("coffee.png")], 9, speech)
        for given in (media(speech), film_media(talking)):
            assert 64 < len(words(describer, given).encode()) <= 128

    def test_who_leaves_stops_it(self, describer: Describer) -> None:
        for given in (media(joined(3)[0]), film_media(film([photograph("coffee.png")], 2))):
            assert describer.words(given, lambda: True) is None

    def test_too_long_is_refused(self, describer: Describer) -> None:
        long = wav(np.zeros(RATE * 121, np.int16))
        for given in (media(long), film_media(film([Image.new("RGB", (32, 32))], 121))):
            with pytest.raises(BadRequest, match="longer than 120 seconds"):
                describer.words(given, lambda: False)

    def test_a_card_that_takes_audio_without_an_ear_does_not_load(self, tmp_path: Path) -> None:
        given = resources(tmp_path)
        files = {role: path for role, path in given.files.items() if not role.startswith("ear/")}
        with pytest.raises(EngineFailed, match="takes audio and has no files"):
            Describer(local_card(MODEL), msgspec.structs.replace(given, files=files))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hearing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    card = msgspec.structs.replace(local_card(MODEL), slots=1, context_length=2048, memory_bytes=1)
    async with gateway(tmp_path_factory.mktemp("hearing"), card) as built:
        yield built


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def recording(content: bytes) -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def moving(content: bytes) -> dict[str, Any]:
    url = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
    return {"type": "video_url", "video_url": {"url": url}}


async def ask(gate: Gateway, *parts: Any, **fields: Any) -> Any:
    message = {"role": "user", "content": list(parts)}
    body = {"model": MODEL, "messages": [message], "max_tokens": 8, "temperature": 0}
    return await gate.client.post("/v1/chat/completions", body | fields)


@pytest.mark.asyncio(loop_scope="module")
class TestChat:
    async def test_recordings_and_films_are_counted_and_billed_as_the_words_they_become(
        self, hearing: Gateway, describer: Describer
    ) -> None:
        clip, shown = clips()[1], film([photograph("coffee.png")], 2, clips()[1].content)
        parts = (
            (recording(clip.content), words(describer, media(clip.content))),
            (moving(shown), words(describer, film_media(shown))),
        )
        for part, meant in parts:
            told = (await ask(hearing, part, text("Why?"))).json()
            spelled = (await ask(hearing, text(f"{meant}Why?"))).json()
            assert told["choices"] == spelled["choices"]
            tokens = told["usage"]["prompt_tokens"]
            assert tokens == spelled["usage"]["prompt_tokens"]
            assert [entry.input_tokens for entry in (await entries(hearing))[-2:]] == [tokens] * 2

    async def test_a_file_is_what_its_bytes_say(self, hearing: Gateway) -> None:
        said = recording(clips()[1].content)
        shown = moving(film([photograph("coffee.png")], 2, clips()[1].content))
        given = ((said, said["input_audio"]["data"]), (shown, shown["video_url"]["url"]))
        for named, data in given:
            filed = {"type": "file", "file": {"file_data": data}}
            told, other = [(await ask(hearing, one, text("Why?"))).json() for one in (named, filed)]
            assert told["choices"] == other["choices"]
            assert told["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]

    async def test_what_is_no_sound_recording_or_film_names_its_field(
        self, hearing: Gateway
    ) -> None:
        clip, picture = clips()[1].content, picture_path("coffee.png").read_bytes()
        other = ((recording(picture), "input_audio.data"), (moving(clip), "video_url.url"))
        for part, field in other:
            answer = await ask(hearing, part, text("Why?"))
            assert answer.status == 400
            assert answer.json()["error"]["param"] == f"messages.0.content.0.{field}"
        for part in (recording(clip[:30]), moving(b"\x00\x00\x00\x20ftypisom" + bytes(90))):
            answer = await ask(hearing, part, text("Why?"))
            assert answer.status == 400, answer.body
            assert "cannot be read" in answer.json()["error"]["message"]
