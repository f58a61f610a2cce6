"""Speech recognition through clients, against the packaged Whisper base."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients import fixed_host
from tests.clients.support import openai_base, package
from tests.clients.test_node import installed
from tests.process import TOKEN, InferdProcess, serving
from tests.recordings import FORMATS, clips, encoded, two_cities
from tests.weights import local_card

MODEL = "openai/whisper-base"
SCRIPTS = Path(__file__).parent / "scripts"
TEXT = "He might even have been made amiable himself."

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
    folder = tmp_path_factory.mktemp("transcription")
    async with serving(folder, local_card(MODEL)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def audio(server: InferdProcess) -> AsyncIterator[Any]:
    """OpenAI's `client.audio`."""
    openai = package("openai")
    client = openai.AsyncOpenAI(api_key=TOKEN, base_url=openai_base(server), max_retries=0)
    async with client:
        yield client.audio


def clip() -> Path:
    return clips()[4].path


async def test_openai_in_each_format_of_its_answer(audio: Any) -> None:
    create = audio.transcriptions.create
    plain = await create(model=MODEL, file=clip())
    assert plain.text == TEXT
    assert plain.usage.seconds == 3.29
    verbose = await create(
        model=MODEL,
        file=clip(),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert (verbose.text, verbose.language, verbose.duration) == (TEXT, "english", 3.29)
    assert " ".join(word.word for word in verbose.words) == TEXT
    assert [segment.text.strip() for segment in verbose.segments] == [TEXT]
    assert (await create(model=MODEL, file=clip(), response_format="text")).strip() == TEXT
    subrip = await create(model=MODEL, file=clip(), response_format="srt")
    assert subrip.startswith("1\n00:00:00,")
    assert subrip.strip().endswith(TEXT)
    webvtt = await create(model=MODEL, file=clip(), response_format="vtt")
    assert webvtt.startswith("WEBVTT\n\n00:00:00.")


@pytest.mark.parametrize("ending", FORMATS)
async def test_openai_sends_each_format_of_sound(audio: Any, ending: str) -> None:
    content = encoded(clips()[4].content, ending)
    file = (f"clip.{ending}", content)
    told = await audio.transcriptions.create(model=MODEL, file=file, language="en")
    assert told.text == TEXT


async def test_openai_streams(audio: Any) -> None:
    recording = two_cities().path
    stream = await audio.transcriptions.create(model=MODEL, file=recording, stream=True)
    events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 3
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "".join(deltas)
    assert events[-1].text.startswith("It was the best of times")


async def test_openai_translates(audio: Any) -> None:
    told = await audio.translations.create(model=MODEL, file=clip(), response_format="verbose_json")
    assert "amiable" in told.text
    assert told.duration == 3.29


async def test_openai_raises_what_it_should(audio: Any) -> None:
    openai = package("openai")
    with pytest.raises(openai.BadRequestError) as broken:
        await audio.transcriptions.create(model=MODEL, file=("a.wav", b"no sound at all"))
    assert broken.value.param == "file"
    with pytest.raises(openai.NotFoundError):
        await audio.transcriptions.create(model="no/such", file=clip())


async def test_deepinfra_for_python(server: InferdProcess) -> None:
    def ask(audio: Any, **fields: Any) -> Any:
        url = f"{server.url}/v1/inference/{MODEL}"
        model = package("deepinfra").AutomaticSpeechRecognition(url, TOKEN)
        with closing(model.client):
            return model.generate({"audio": audio, **fields})

    plain = await asyncio.to_thread(ask, str(clip()))
    assert plain.text == TEXT
    assert plain.language == "en"
    assert plain.inference_status["cost"] > 0
    timed = await asyncio.to_thread(ask, clips()[4].content, language="en", chunk_level="word")
    assert timed.text == TEXT
    assert timed.segments[0]["words"]


async def test_litellm(server: InferdProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without it the import asks the network for prices.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = package("litellm")
    with clip().open("rb") as file:
        told = await litellm.atranscription(
            model=f"openai/{MODEL}", file=file, api_key=TOKEN, api_base=openai_base(server)
        )
    assert told.text == TEXT


async def test_huggingface_hub(
    server: InferdProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = package("huggingface_hub.inference._providers.deepinfra")
    if not hasattr(providers, "DeepInfraAutomaticSpeechRecognitionTask"):
        pytest.skip("this version sends no recordings to DeepInfra")
    monkeypatch.setenv("RECORDING", str(clip()))
    script = SCRIPTS / "transcription_of_huggingface_hub.py"
    try:
        told = await fixed_host.ask(tmp_path, server.url, MODEL, script)
    except fixed_host.Unavailable as missing:
        pytest.skip(str(missing))
    assert told["text"] == TEXT
    ((chunk),) = told["chunks"]
    assert chunk["text"].strip() == TEXT
    assert 0 <= chunk["timestamp"][0] < chunk["timestamp"][1] <= 3.29


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
async def test_node(server: InferdProcess, installed: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("node", "transcription.mjs", server.url, TOKEN, MODEL, str(clip())),
        cwd=installed,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, complaint.decode()
    told = json.loads(output)
    assert told["file"] == told["bytes"] == [TEXT, 1, 8, "en", "succeeded"]
    assert told["error"] == 400
    assert told["plain"] == told["done"] == "".join(told["deltas"]) == TEXT
    assert told["timed"] == [8, 1, 3.29]
