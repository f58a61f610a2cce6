"""Whisper's engine: what is counted, who waits for whom, and when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio

from inferd.engines import whisper_model
from inferd.engines.base import Resources
from inferd.engines.faster_whisper import FasterWhisperEngine
from inferd.engines.shared_decoder import SharedDecoder
from inferd.errors import BadRequest
from inferd.tasks.base import Counted, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.speech_recognition import (
    Segment,
    SpeechFilter,
    Transcribed,
    TranscriptionRequest,
)
from tests.recordings import FORMATS, RATE, clips, encoded, joined, media, samples, wav, word_errors
from tests.weights import local_card

MODEL = "openai/whisper-tiny.en"
ERRORS_MAX = 0.15

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FasterWhisperEngine]:
    card = local_card(MODEL)
    files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
    running = FasterWhisperEngine()
    resources = Resources(files, 2, str(tmp_path_factory.mktemp("whisper")))
    await asyncio.to_thread(running.load, card, resources)
    yield running
    await running.close()


def request(content: bytes, **changes: object) -> TranscriptionRequest:
    plain = TranscriptionRequest(MODEL, media(content), seconds_max=600)
    return msgspec.structs.replace(plain, **changes)


async def hear(engine: FasterWhisperEngine, content: bytes, **changes: object) -> list[Event]:
    return [e async for e in engine.run(request(content, **changes), asyncio.Event())]


def segments(events: list[Event]) -> list[Segment]:
    return [event for event in events if isinstance(event, Segment)]


def text(events: list[Event]) -> str:
    return "".join(one.text for one in segments(events))


def error_rate(said: str, meant: str) -> float:
    wrong, words = word_errors(said, meant)
    return wrong / words


async def test_every_sample_is_counted_before_the_first_step(engine: FasterWhisperEngine) -> None:
    content = clips()[0].content
    counted, *_, last = await hear(engine, content)
    exact = Usage(quantity=len(samples(content)) * 1_000_000 // RATE)
    assert counted == Counted(exact)
    assert isinstance(last, Transcribed)
    assert (last.usage, last.duration_ms, last.language) == (exact, 7100, "en")


@pytest.mark.parametrize("ending", FORMATS)
async def test_every_format_is_heard(engine: FasterWhisperEngine, ending: str) -> None:
    clip = clips()[3]
    events = await hear(engine, encoded(clip.content, ending))
    assert error_rate(text(events), clip.text) <= ERRORS_MAX
    assert isinstance(events[-1], Transcribed)
    assert events[-1].duration_ms == pytest.approx(6050, abs=60)


async def test_words_have_times_that_grow(engine: FasterWhisperEngine) -> None:
    events = await hear(engine, clips()[0].content, word_times=True)
    words = [word for one in segments(events) for word in one.words]
    assert "".join(word.text for word in words) == text(events)
    assert len(words) == 22
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < 0.5
    assert 6 < times[-1] <= 7.1
    assert all(0 < word.confidence <= 1 for word in words)


async def test_a_recording_longer_than_a_window_keeps_its_words_and_times(
    engine: FasterWhisperEngine,
) -> None:
    content, meant = joined(8)
    events = await hear(engine, content)
    assert error_rate(text(events), meant) <= ERRORS_MAX
    starts = [one.start for one in segments(events)]
    assert starts == sorted(starts)
    assert starts[-1] > 30
    usage = [one.usage.quantity for one in segments(events)]
    assert usage == sorted(usage)


async def test_blocks_are_cut_between_words(
    engine: FasterWhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block ends in the half second of silence between two clips."""
    monkeypatch.setattr(whisper_model, "BLOCK_SECONDS", 14)
    monkeypatch.setattr(whisper_model, "CUT_SECONDS", 6)
    content, meant = joined(6)
    events = await hear(engine, content, word_times=True)
    assert error_rate(text(events), meant) <= ERRORS_MAX
    found = segments(events)
    assert [one.id for one in found] == list(range(len(found)))
    assert len({one.seek for one in found}) >= 3
    assert all(one.start <= word.start <= one.end + 0.5 for one in found for word in one.words)


async def test_short_steps_hear_the_same(engine: FasterWhisperEngine) -> None:
    """chunk_seconds of one request is nothing to the others that run beside it."""
    content, meant = joined(3)
    short, plain = await asyncio.gather(
        hear(engine, content, chunk_seconds=8), hear(engine, content)
    )
    assert {one.seek for one in segments(plain)} == {0}
    assert len({one.seek for one in segments(short)}) > 1
    assert error_rate(text(plain), meant) <= ERRORS_MAX
    assert error_rate(text(short), meant) <= 3 * ERRORS_MAX


async def test_a_filter_leaves_out_what_is_no_speech(engine: FasterWhisperEngine) -> None:
    """Ten seconds of silence are not heard; times are those of the whole recording."""
    silence = np.zeros(10 * RATE, np.int16)
    content = wav(np.concatenate([silence, samples(clips()[4].content)]))
    events = await hear(engine, content, vad=SpeechFilter(), word_times=True)
    assert error_rate(text(events), clips()[4].text) <= ERRORS_MAX
    assert segments(events)[0].words[0].start > 9.5
    nothing = await hear(engine, wav(silence), vad=SpeechFilter())
    assert text(nothing) == ""
    assert isinstance(nothing[-1], Transcribed)
    assert nothing[-1].usage.quantity == 10_000_000


@pytest.mark.parametrize("count", [1, 100, RATE // 10])
async def test_recordings_of_hardly_any_sound_end_well(
    engine: FasterWhisperEngine, count: int
) -> None:
    events = await hear(engine, wav(np.zeros(count, np.int16)))
    assert isinstance(events[-1], Transcribed)
    assert events[-1].usage.quantity == count * 1_000_000 // RATE


async def test_a_prompt_changes_the_spelling(engine: FasterWhisperEngine) -> None:
    plain = text(await hear(engine, clips()[0].content))
    prompted = text(await hear(engine, clips()[0].content, initial_prompt="Mister John Dashwood"))
    assert "Mr." in plain
    assert "Mr." not in prompted


async def test_suppressed_tokens_are_not_said(engine: FasterWhisperEngine) -> None:
    spoken = segments(await hear(engine, clips()[4].content))
    taboo = next(t for t in spoken[0].tokens if t < 50_000)
    without = segments(await hear(engine, clips()[4].content, suppress_tokens=(-1, taboo)))
    assert all(taboo not in one.tokens for one in without)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"suppress_tokens": (60_000,)}, "suppress_tokens"),
        ({"language": "de"}, "language"),
        ({"task": "translate"}, None),
        ({"seconds_max": 2.0}, "audio"),
        ({"audio": media(b"RIFF\xff\xff\xff\xffWAVEfmt nothing of the kind")}, "audio"),
    ],
)
async def test_what_cannot_be_is_refused(
    engine: FasterWhisperEngine, changes: dict[str, object], param: str | None
) -> None:
    with pytest.raises(BadRequest) as caught:
        await hear(engine, clips()[1].content, **changes)
    assert caught.value.param == param


async def test_a_client_that_leaves_stops_it_at_the_next_window(
    engine: FasterWhisperEngine,
) -> None:
    content, _ = joined(20)
    cancel = asyncio.Event()
    events: list[Event] = []
    async with aclosing(engine.run(request(content), cancel)) as running:
        async for event in running:
            events.append(event)
            if isinstance(event, Segment):
                cancel.set()
    assert isinstance(events[-1], Stopped)
    assert len(segments(events)) == 1
    assert events[-1].usage == segments(events)[0].usage


async def test_silence_is_left_too(engine: FasterWhisperEngine) -> None:
    """Where no segment ever comes, each window still asks."""
    loop = asyncio.get_running_loop()
    content = wav(np.zeros(300 * RATE, np.int16))
    cancel = asyncio.Event()
    events: list[Event] = []
    async for event in engine.run(request(content), cancel):
        events.append(event)
        if isinstance(event, Counted):
            loop.call_later(0.3, cancel.set)
    assert isinstance(events[-1], Stopped)


async def test_short_recordings_of_several_callers_are_decoded_together(
    engine: FasterWhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And say what each says by itself."""
    steps: list[int] = []
    compute: Any = vars(SharedDecoder)["_step"]

    def step(decoder: SharedDecoder, batch: list[Any]) -> Any:
        steps.append(len(batch))
        return compute(decoder, batch)

    monkeypatch.setattr(SharedDecoder, "_step", step)
    short = [clip.content for clip in clips()[2:]]
    alone = [text(await hear(engine, content)) for content in short]
    assert steps == [1] * 3
    both = await asyncio.gather(*(hear(engine, content) for content in short))
    assert [text(events) for events in both] == alone
    assert sum(steps) == 6
    assert max(steps) > 1


async def test_a_long_recording_does_not_block_a_short_one(engine: FasterWhisperEngine) -> None:
    """The short one begins last and ends first."""
    content, _ = joined(30)
    cancel = asyncio.Event()
    begun = asyncio.Event()
    windows = 0

    async def long() -> None:
        nonlocal windows
        async for event in engine.run(request(content), cancel):
            if isinstance(event, Segment):
                windows = event.seek // 3000
                begun.set()

    task = asyncio.create_task(long())
    await begun.wait()
    before = windows
    events = await hear(engine, clips()[1].content)
    assert isinstance(events[-1], Transcribed)
    assert not task.done()
    assert windows - before <= 3
    cancel.set()
    await task
