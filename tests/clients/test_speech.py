"""Text to speech through OpenAI's and ElevenLabs' clients, with Kokoro."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.chatterbox_graphs import chatterbox_card, recording, tiny, write, write_wav
from tests.clients.support import openai_base, package
from tests.clients.test_node import installed
from tests.process import TOKEN, InferdProcess, serving
from tests.weights import local_card

MODEL = "hexgrad/Kokoro-82M"
TEXT = "The quick brown fox jumps over the lazy dog."
SECONDS = (1.5, 6.0)
"""No voice says these nine words faster or slower."""
VOICES = 55
"""Kokoro's, and the default one of Chatterbox."""
CLONES = "test/chatterbox"

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
    folder = tmp_path_factory.mktemp("speech")
    write(folder / "chatterbox", tiny(turbo=False))
    cards = [local_card(MODEL), chatterbox_card(folder / "chatterbox", CLONES)]
    async with serving(folder, *cards) as running:
        yield running


def length(sound: bytes, *, pcm_rate: int | None = None) -> float:
    """Seconds of sound that a decoder finds in the file."""
    if pcm_rate is not None:
        return len(sound) / 2 / pcm_rate
    av = package("av")
    with av.open(io.BytesIO(sound)) as container:
        (stream,) = container.streams.audio
        return sum(frame.samples / frame.sample_rate for frame in container.decode(stream))


def is_speech(sound: bytes, **options: Any) -> bool:
    return SECONDS[0] < length(sound, **options) < SECONDS[1]


@pytest.mark.parametrize("form", ["wav", "mp3", "opus", "flac"])
async def test_openai_in_each_format(server: InferdProcess, form: Any) -> None:
    openai = package("openai")
    async with openai.AsyncOpenAI(base_url=openai_base(server), api_key=TOKEN) as client:
        spoken = await client.audio.speech.create(
            model=MODEL, voice="af_heart", input=TEXT, response_format=form
        )
        assert is_speech(spoken.content)


async def test_openai_streams_to_a_file_and_raises_what_it_should(
    server: InferdProcess, tmp_path: Path
) -> None:
    openai = package("openai")
    file = tmp_path / "said.pcm"
    async with openai.AsyncOpenAI(
        base_url=openai_base(server), api_key=TOKEN, max_retries=0
    ) as client:
        streaming = client.audio.speech.with_streaming_response.create(
            model=MODEL, voice="bm_george", input=TEXT, response_format="pcm", speed=1.2
        )
        async with streaming as answer:
            await answer.stream_to_file(file)
        assert is_speech(file.read_bytes(), pcm_rate=24_000)
        for fields in ({"input": ""}, {"speed": 9}):
            wrong: Any = {"model": MODEL, "voice": "af_heart", "input": TEXT} | fields
            with pytest.raises(openai.BadRequestError):
                await client.audio.speech.create(**wrong)


async def test_elevenlabs_for_python(server: InferdProcess) -> None:
    elevenlabs = package("elevenlabs")
    errors = package("elevenlabs.core.api_error")
    async with package("httpx").AsyncClient(timeout=120) as http:
        client = elevenlabs.AsyncElevenLabs(base_url=server.url, api_key=TOKEN, httpx_client=http)
        speak = client.text_to_speech
        whole = speak.convert("af_heart", text=TEXT, model_id=MODEL, output_format="mp3_44100_128")
        assert is_speech(b"".join([part async for part in whole]))
        pieces = speak.stream("bm_george", text=TEXT, model_id=MODEL, output_format="pcm_16000")
        assert is_speech(b"".join([part async for part in pieces]), pcm_rate=16_000)
        listed = await client.voices.get_all()
        assert len(listed.voices) == VOICES
        assert (await client.voices.get("af_heart")).name == "Heart"
        with pytest.raises(errors.ApiError) as refused:
            _ = [part async for part in speak.convert("nobody", text=TEXT, model_id=MODEL)]
        assert refused.value.status_code == 404


async def test_elevenlabs_clones_a_voice(server: InferdProcess, tmp_path: Path) -> None:
    elevenlabs = package("elevenlabs")
    errors = package("elevenlabs.core.api_error")
    recorded = tmp_path / "ada.wav"
    write_wav(recorded, recording(3))
    async with package("httpx").AsyncClient(timeout=120) as http:
        client = elevenlabs.AsyncElevenLabs(base_url=server.url, api_key=TOKEN, httpx_client=http)
        made = await client.voices.ivc.create(name="Ada", files=[recorded.read_bytes()])
        assert not made.requires_verification
        await client.voices.update(made.voice_id, name="Ada L.")
        assert (await client.voices.get(made.voice_id)).name == "Ada L."
        voices = {voice.voice_id for voice in (await client.voices.get_all()).voices}
        assert made.voice_id in voices

        async def said(voice: str) -> bytes:
            speak = client.text_to_speech.convert(
                voice, text=TEXT, model_id=CLONES, output_format="pcm_24000"
            )
            return b"".join([part async for part in speak])

        assert await said(made.voice_id) != await said("default")
        await client.voices.delete(made.voice_id)
        with pytest.raises(errors.ApiError) as refused:
            await said(made.voice_id)
        assert refused.value.status_code == 404


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
async def test_node(server: InferdProcess, installed: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("node", "speech.mjs", server.url, TOKEN, MODEL, TEXT),
        cwd=installed,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, complaint.decode()
    told = json.loads(output)
    assert told["openai"] == "RIFF"
    assert told["refused"] == ["NotFoundError", 404]
    assert told["bytes"] > 5000
    assert (told["voices"], told["voice"]) == (VOICES, "George")
