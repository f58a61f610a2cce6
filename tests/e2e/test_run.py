"""`inferd run` as people type it, for each kind of model."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from inferd.tasks.base import TaskName
from tests.e2e.steps import card
from tests.pictures import picture_path
from tests.process import InferdProcess, serving
from tests.recordings import RATE, wav
from tests.weights import local_card

SPOKEN = "one two three four"
MADE: dict[TaskName, tuple[tuple[str, ...], str]] = {
    "text-generation": (("@prompt.txt", "--seed", "1"), "read from a file\n"),
    "embeddings": (("@prompt.txt",), "(8 numbers)"),
    "reranker": (("panda", "a small car", "@panda.txt"), "@panda.txt"),
    "automatic-speech-recognition": (("@say.wav", "--language", "en"), " segment 0\n"),
    "text-to-speech": ((SPOKEN,), "speech.wav ("),
    "text-to-image": (("an apple", "--size", "64x32", "--steps", "2"), "image.png ("),
    "text-to-video": (("a cat", "--seconds", "1", "-o", "cat.mp4"), "cat.mp4 ("),
    "image-classification": (("@cat.png",), "image/png"),
    "zero-shot-image-classification": (("@cat.png", "dog", "cat"), "0.5000  dog"),
    "object-detection": (("@cat.png",), "image/png (0, 0) to (1, 1)"),
    "document-to-text": (("@cat.png",), "image/png"),
    "fill-mask": (("good [MASK] all",), "good good all"),
    "text-classification": (("@prompt.txt",), "read"),
    "token-classification": (("Anna is here",), "Anna MISC"),
    "question-answering": (("Who?", "@prompt.txt"), "read (1.000)"),
}
PROGRESS = {"text-to-image": "2/2", "text-to-video": "2/2", "text-to-speech": " bytes, "}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def every(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    """A server with an echo model of each task, and a speaker that breaks."""
    cards = [card(f"t/{task}", task=task) for task in get_args(TaskName)]
    breaks = card("t/breaks", "fail_after=2", task="text-to-speech")
    async with serving(tmp_path_factory.mktemp("every"), *cards, breaks) as server:
        yield server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with files to read."""
    (tmp_path / "prompt.txt").write_text("read from a file")
    (tmp_path / "panda.txt").write_text("panda")
    (tmp_path / "say.wav").write_bytes(wav(np.zeros(RATE, np.int16)))
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    return tmp_path


@pytest.mark.parametrize("task", get_args(TaskName))
async def test_each_task_reads_its_files_and_shows_its_answer(
    every: InferdProcess, here: Path, task: TaskName
) -> None:
    words, shown = MADE[task]
    code, said = await every.cli("run", f"t/{task}", *words, cwd=here)
    assert (code, shown in said) == (0, True), said
    assert PROGRESS.get(task, "") in said


async def test_what_is_made_lies_in_the_file_that_is_named(
    every: InferdProcess, here: Path
) -> None:
    await every.cli("run", "t/text-to-speech", SPOKEN, cwd=here)
    with wave.open(str(here / "speech.wav")) as sound:
        # The header knows the length although the sound was written as it came.
        assert sound.getnframes() == sound.getframerate() * 4 // 10
    beginnings = {
        ("t/text-to-speech", "say.ogg"): b"OggS",
        ("t/text-to-image", "apple.png"): b"\x89PNG",
        ("t/text-to-image", "apple.jpg"): b"\xff\xd8\xff",
        ("t/text-to-image", "apple.webp"): b"RIFF",
    }
    for (model, name), beginning in beginnings.items():
        code, said = await every.cli("run", model, "x", "-o", name, cwd=here)
        assert code == 0, said
        content = (here / name).read_bytes()
        assert content.startswith(beginning)
        assert f"{name} ({len(content)} bytes)" in said
    with Image.open(io.BytesIO((here / "apple.jpg").read_bytes())) as picture:
        assert picture.format == "JPEG"


async def test_what_cannot_be_written_or_has_no_effect_costs_nothing(
    every: InferdProcess, here: Path
) -> None:
    before = len(every.entries())
    for words, sentence in (
        (("t/text-to-speech", "x", "-o", "missing/x.wav"), "The folder missing does not exist."),
        (("t/text-to-image", "x", "-o", "x.gif"), "this model writes .png"),
        (("t/text-to-speech", "x", "--language", "de"), "--language is not for this model"),
        (("t/text-generation", "x", "-o", "x.txt"), "-o is not for this model"),
        (("t/text-to-image", "x", "--steps", "0"), "inferd: num_inference_steps: "),
    ):
        code, said = await every.cli("run", *words, cwd=here)
        assert (code, sentence in said, "Traceback" in said) == (1, True, False), said
        assert "[{" not in said
    assert len(every.entries()) == before


async def test_a_speaker_that_breaks_is_a_sentence(every: InferdProcess, here: Path) -> None:
    code, said = await every.cli("run", "t/breaks", SPOKEN, cwd=here)
    assert (code, "inferd: " in said, "Traceback" in said) == (1, True, False), said


async def test_without_a_server_speech_is_written_too(tmp_path: Path, here: Path) -> None:
    server = InferdProcess(tmp_path / "data")
    server.add_card(card("t/speaks", task="text-to-speech"))
    code, said = await server.cli("run", "t/speaks", SPOKEN, "-o", "x.wav", cwd=here)
    assert (code, " bytes, " in said) == (0, True), said
    with wave.open(str(here / "x.wav")) as sound:
        assert sound.getnframes() == sound.getframerate() * 4 // 10


@pytest.mark.engine
async def test_a_chat_sees_the_files_beside_its_prompt(tmp_path: Path) -> None:
    server = InferdProcess(tmp_path)
    card = msgspec.structs.replace(local_card("inferd/smolcaption"), name="t/sees", slots=1)
    server.add_card(card)
    cat = f"@{picture_path('chelsea.png')}"
    options = ("--temperature", "0", "--max-tokens", "24")
    code, said = await server.cli("run", "t/sees", "What is in this picture?", cat, *options)
    assert (code, "cat" in said.lower()) == (0, True), said
    code, said = await server.cli("run", "t/sees", cat, *options)
    assert (code, "cat" in said.lower()) == (0, True), said
    assert [entry.status for entry in server.entries()] == ["succeeded"] * 2
