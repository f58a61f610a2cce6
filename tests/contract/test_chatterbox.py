"""Chatterbox's engine on tiny graphs of the real ones' shape, against numpy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.catalog.card import ModelCard
from inferd.engines import chatterbox
from inferd.engines.base import Resources
from inferd.engines.chatterbox import ChatterboxEngine
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import MICRO, Chunk, Counted, Stopped
from inferd.tasks.every import Event
from inferd.tasks.media import Media
from inferd.tasks.text_to_speech import SpeechRequest, Spoken
from tests.chatterbox_graphs import Tiny, recording, spoken, tiny, write, write_wav
from tests.gateway import echo_card

TEXT = "hello there."
CARD = echo_card("test/chatterbox", task="text-to-speech", options={"voices": ["default"]})


def loaded(folder: Path, card: ModelCard = CARD) -> ChatterboxEngine:
    engine = ChatterboxEngine()
    resources = Resources({"model": str(folder)}, threads=1, runtime_dir=str(folder))
    features = engine.load(card, resources)
    assert features.tasks == ("text-to-speech",)
    return engine


@pytest.fixture(params=[False, True], ids=["first", "turbo"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Tiny:
    found = tiny(turbo=request.param)
    write(tmp_path / "model", found)
    return found


@pytest.fixture
def engine(made: Tiny, tmp_path: Path) -> ChatterboxEngine:
    return loaded(tmp_path / "model")


def asked(text: str = TEXT, **fields: Any) -> SpeechRequest:
    return SpeechRequest("test/chatterbox", text, audio_format="pcm", **fields)


async def told(engine: ChatterboxEngine, request: SpeechRequest) -> list[Event]:
    return [event async for event in engine.run(request, asyncio.Event())]


def sound(events: list[Event]) -> Any:
    data = b"".join(event.data for event in events if isinstance(event, Chunk))
    return np.frombuffer(data, np.int16)


def wav(folder: Path, seed: int, seconds: float = 2) -> Media:
    path = folder / f"{seed}.wav"
    write_wav(path, recording(seed, seconds))
    return Media("audio", "audio/wav", path.stat().st_size, path=str(path))


def same(heard: Any, expected: Any) -> None:
    assert len(heard) == len(expected) > 40
    np.testing.assert_allclose(heard / 32768, expected, atol=1e-4)


async def test_it_says_what_numpy_says(engine: ChatterboxEngine, made: Tiny) -> None:
    events = await told(engine, asked())
    same(sound(events), spoken(made, TEXT, recording(1)))
    assert isinstance(events[0], Counted)
    ending = events[-1]
    assert isinstance(ending, Spoken)
    assert ending.usage.quantity == len(TEXT) * MICRO


async def test_it_speaks_in_the_voice_of_a_recording(
    engine: ChatterboxEngine, made: Tiny, tmp_path: Path
) -> None:
    mine = wav(tmp_path, 4)
    for _ in range(2):
        events = await told(engine, asked(recordings=(mine,)))
        same(sound(events), spoken(made, TEXT, recording(4)))
    same(sound(await told(engine, asked(voices=("default",)))), spoken(made, TEXT, recording(1)))


async def test_of_a_long_recording_the_beginning_is_heard(
    engine: ChatterboxEngine, made: Tiny, tmp_path: Path
) -> None:
    events = await told(engine, asked(recordings=(wav(tmp_path, 2, seconds=15),)))
    same(sound(events), spoken(made, TEXT, recording(2, 15)[: 10 * 24_000]))


async def test_several_recordings_are_one_voice(
    engine: ChatterboxEngine, made: Tiny, tmp_path: Path
) -> None:
    parts = tuple(wav(tmp_path, seed, seed + 2) for seed in (2, 3, 4))
    together = np.concatenate([recording(seed, seed + 2) for seed in (2, 3, 4)])
    events = await told(engine, asked(recordings=parts))
    same(sound(events), spoken(made, TEXT, together[: 10 * 24_000]))


async def test_a_voice_is_heard_once_and_few_are_kept(
    engine: ChatterboxEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatterbox, "VOICES_KEPT", 2)
    heard: list[int] = []
    decode = chatterbox.samples_of

    def counted(media: tuple[Media, ...]) -> Any:
        heard.append(media[0].size_bytes)
        return decode(media)

    monkeypatch.setattr(chatterbox, "samples_of", counted)
    first, second, third = (wav(tmp_path, seed, seed) for seed in (2, 3, 4))
    for media in (first, first, second, first, third, first, second):
        await told(engine, asked(recordings=(media,)))
    # The second was not used for longest when the third came.
    assert heard == [media.size_bytes for media in (first, second, third, second)]


async def test_sentences_are_sent_one_by_one(engine: ChatterboxEngine, made: Tiny) -> None:
    texts = ["hello there.", "how are you?"]
    events = await told(engine, asked(" ".join(texts)))
    chunks = [event for event in events if isinstance(event, Chunk)]
    assert [chunk.usage.quantity // MICRO for chunk in chunks[:2]] == [12, 24]
    pieces = [spoken(made, text, recording(1)) for text in texts]
    same(sound(events), np.concatenate(pieces))


async def test_how_lively_it_speaks_is_an_option(tmp_path: Path) -> None:
    first = tiny(turbo=False)
    write(tmp_path / "model", first)
    lively = echo_card("test/lively", task="text-to-speech", options={"exaggeration": 2.0})
    events = await told(loaded(tmp_path / "model", lively), asked())
    expected = spoken(first, TEXT, recording(1), 2.0)
    same(sound(events), expected)
    plain = spoken(first, TEXT, recording(1))
    assert len(plain) != len(expected) or not np.allclose(plain, expected)


async def test_who_leaves_stops_it_within_a_token(
    engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel, steps = asyncio.Event(), [0]
    inner: Any = engine._loaded  # pyright: ignore[reportPrivateUsage]
    step = inner._model._writes.step

    def counted(heard: Any, embeds: Any) -> Any:
        steps[0] += 1
        if steps[0] == 5:
            cancel.set()
        return step(heard, embeds)

    monkeypatch.setattr(inner._model._writes, "step", counted)
    events = [event async for event in engine.run(asked(), cancel)]
    assert steps[0] == 5
    assert isinstance(events[-1], Stopped)
    assert events[-1].usage.quantity == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"speed": 1.5}, "speed"),
        ({"word_times": True}, "return_timestamps"),
        ({"voices": ("nobody",)}, "voice"),
        ({"language": "de"}, "language"),
        ({"text": "Доброе утро"}, "input"),
        ({"text": " \n"}, "input"),
        ({"recordings": (Media("audio", "audio/wav", 9, data=b"RIFFxxxxW"),)}, "voice"),
    ],
)
async def test_what_it_cannot_do_is_refused(
    engine: ChatterboxEngine, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequest) as refusal:
        await told(engine, asked(**{"text": TEXT, **fields}))
    assert refusal.value.param == param
    assert sound(await told(engine, asked())).size


async def test_a_word_is_no_recording_of_a_voice(engine: ChatterboxEngine, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="shorter than a second"):
        await told(engine, asked(recordings=(wav(tmp_path, 5, seconds=0.5),)))


async def test_without_a_voice_of_its_own_one_must_be_brought(made: Tiny, tmp_path: Path) -> None:
    (tmp_path / "model" / "default_voice.wav").unlink()
    engine = loaded(tmp_path / "model")
    with pytest.raises(BadRequest, match="no voice of its own"):
        await told(engine, asked())
    assert sound(await told(engine, asked(recordings=(wav(tmp_path, 2),)))).size


@pytest.mark.parametrize("name", ["speech_encoder", "language_model", "embed_tokens"])
def test_a_folder_without_a_graph_is_refused(made: Tiny, tmp_path: Path, name: str) -> None:
    (tmp_path / "model" / "onnx" / f"{name}.onnx").unlink()
    with pytest.raises(EngineFailed, match=f"cannot load {name}"):
        loaded(tmp_path / "model")


def test_graphs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    for turbo in (False, True):
        write(tmp_path / str(turbo), tiny(turbo=turbo))
    graph = Path("onnx", "language_model.onnx")
    (tmp_path / "True" / graph).replace(tmp_path / "False" / graph)
    with pytest.raises(EngineFailed, match="neither export"):
        loaded(tmp_path / "False")
