"""How well speech is recognised: word error rates on a human reader's recordings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inferd.engines.base import Resources
from inferd.engines.faster_whisper import FasterWhisperEngine
from inferd.tasks.speech_recognition import Segment, Transcribed, TranscriptionRequest
from tests.recordings import Clip, clips, media, two_cities, word_errors
from tests.weights import local_card

pytestmark = pytest.mark.engine


BASE, TINY = "openai/whisper-base", "openai/whisper-tiny.en"


class Ear:
    """One loaded model."""

    def __init__(self, model: str, folder: Path) -> None:
        card = local_card(model)
        files = {file.role: str(getattr(file.source, "path", "")) for file in card.files}
        self._model = model
        self._engine = FasterWhisperEngine()
        self._engine.load(card, Resources(files, 2, str(folder)))

    async def errors(self, clip: Clip) -> tuple[int, int]:
        """(wrong words, words meant) of one clip whose language nobody told."""
        request = TranscriptionRequest(self._model, media(clip.content), seconds_max=600)
        said = ""
        async for event in self._engine.run(request, asyncio.Event()):
            said += event.text if isinstance(event, Segment) else ""
            if isinstance(event, Transcribed):
                assert event.language == "en"
        return word_errors(said, clip.text)

    async def rate(self, *recordings: Clip) -> float:
        """Of all words meant."""
        counts = [await self.errors(clip) for clip in recordings]
        return sum(wrong for wrong, _ in counts) / sum(words for _, words in counts)


def test_the_measure_counts_each_kind_of_error() -> None:
    assert word_errors("He was a young man!", "he was not an ill disposed young man") == (4, 8)
    assert word_errors("one two and three", "one two three") == (1, 3)
    assert word_errors("Mr. Dashwood", "mister dashwood") == (0, 2)


async def test_base_has_at_most_one_word_in_twenty_wrong(tmp_path: Path) -> None:
    ear = await asyncio.to_thread(Ear, BASE, tmp_path)
    assert await ear.rate(*clips()) <= 0.05
    assert await ear.rate(two_cities()) <= 0.05


async def test_tiny_has_at_most_one_word_in_eight_wrong(tmp_path: Path) -> None:
    ear = await asyncio.to_thread(Ear, TINY, tmp_path)
    assert await ear.rate(*clips()) <= 0.12
