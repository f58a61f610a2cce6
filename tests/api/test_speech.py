"""Text to speech over the wire, with the real Kokoro: sound, formats, times, money, faults."""

from __future__ import annotations

import io
import re
import wave
from base64 import b64decode
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import av
import msgspec
import pytest
import pytest_asyncio

from inferd.money import nanos_from_usd
from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries
from tests.weights import local_card

KOKORO = "hexgrad/Kokoro-82M"
WHISPER = "openai/whisper-base"
SPEECH = "/v1/openai/audio/speech"
SENTENCE = "The quick brown fox jumps over the lazy dog."

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    cards = [local_card(KOKORO), local_card(WHISPER)]
    options = RouterOptions(memory_bytes=1 << 33)
    folder = tmp_path_factory.mktemp("speech")
    async with gateway(folder, *cards, router_options=options) as running:
        yield running


async def speak(gate: Gateway, text: str, **fields: Any) -> Response:
    return await gate.client.post(SPEECH, {"model": KOKORO, "input": text, **fields})


def seconds(audio: bytes) -> tuple[float, int]:
    """(length, rate), decoded to the end."""
    container: Any
    with av.open(io.BytesIO(audio)) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        return samples / stream.rate, stream.rate


async def heard(gate: Gateway, audio: bytes) -> str:
    """What Whisper hears, in plain words."""
    head = b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    model = b'Content-Disposition: form-data; name="model"\r\n\r\n' + WHISPER.encode()
    body = b"--cut\r\n" + head + audio + b"\r\n--cut\r\n" + model + b"\r\n--cut--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    told = await gate.client.post("/v1/audio/transcriptions", body, headers=kind)
    assert told.status == 200, told.body
    return " ".join(re.findall(r"[a-z]+", told.json()["text"].lower()))


@pytest.mark.parametrize("voice", ["af_heart", "bm_george"])
async def test_what_is_spoken_is_heard_word_for_word(gate: Gateway, voice: str) -> None:
    told = await speak(gate, SENTENCE, voice=voice)
    assert (told.status, told.headers["content-type"]) == (200, "audio/wav")
    assert await heard(gate, told.body) == "the quick brown fox jumps over the lazy dog"


@pytest.mark.parametrize(
    ("wanted", "mime", "rate"),
    [
        ("wav", "audio/wav", 24_000),
        ("mp3", "audio/mpeg", 24_000),
        ("opus", "audio/ogg", 48_000),
        ("flac", "audio/flac", 24_000),
    ],
)
async def test_every_format_decodes_to_the_same_length(
    gate: Gateway, wanted: str, mime: str, rate: int
) -> None:
    plain = await speak(gate, SENTENCE, response_format="pcm")
    told = await speak(gate, SENTENCE, response_format=wanted)
    assert told.headers["content-type"] == mime
    length, found = seconds(told.body)
    assert found == rate
    assert abs(length - len(plain.body) / 2 / 24_000) < 0.1


async def test_a_short_wav_says_how_long_it_is(gate: Gateway) -> None:
    told = await speak(gate, SENTENCE)
    with wave.open(io.BytesIO(told.body)) as file:
        assert file.getnframes() * 2 == len(told.body) - 44


async def test_speed_shortens(gate: Gateway) -> None:
    slow, fast = [await speak(gate, SENTENCE, speed=speed) for speed in (1.0, 2.0)]
    assert seconds(fast.body)[0] < 0.75 * seconds(slow.body)[0]


async def test_a_stream_begins_before_the_text_is_spoken(gate: Gateway) -> None:
    """By events: each sentence has its pieces, and the end comes after all of them."""
    told = await speak(
        gate, f"{SENTENCE} {SENTENCE} {SENTENCE}", stream_format="sse", response_format="pcm"
    )
    *deltas, done = told.events()
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert len(deltas) >= 3
    assert done["type"] == "speech.audio.done"
    assert done["usage"]["input_characters"] == 3 * len(SENTENCE) + 2
    assert sum(len(b64decode(event["audio"])) for event in deltas) > 3 * 24_000 * 2


async def test_the_native_answer_has_words_with_times(gate: Gateway) -> None:
    before = len(await entries(gate))
    told = await gate.client.post(
        f"/v1/inference/{KOKORO}",
        {"text": SENTENCE, "return_timestamps": True, "preset_voice": ["af_bella", "af_sky"]},
    )
    answer = told.json()
    audio = b64decode(answer["audio"].removeprefix("data:audio/wav;base64,"))
    words = answer["words"]
    assert [word["text"] for word in words] == SENTENCE.rstrip(".").split()
    assert all(a["start"] < a["end"] <= b["start"] + 0.2 for a, b in pairwise(words))
    assert words[-1]["end"] <= seconds(audio)[0]
    entry = (await entries(gate))[before]
    assert (entry.unit, entry.quantity) == ("input_characters", len(SENTENCE) * 1_000_000)
    assert entry.cost_nanos == round(len(SENTENCE) * nanos_from_usd("0.62") / 1_000_000)
    assert answer["input_character_length"] == len(SENTENCE)


async def test_elevenlabs_names_its_format_in_the_query(gate: Gateway) -> None:
    path = "/v1/text-to-speech/af_heart/stream?output_format=mp3_44100_128"
    told = await gate.client.post(path, {"text": "Hello there."})
    assert told.headers["content-type"] == "audio/mpeg"
    assert seconds(told.body)[1] == 44_100


async def test_the_voices_are_listed(gate: Gateway) -> None:
    voices = (await gate.client.get("/v1/voices")).json()["voices"]
    assert len(voices) == 54
    one = (await gate.client.get("/v1/voices/bf_emma")).json()
    assert one["name"] == "Emma"
    assert "British" in one["description"]
    assert (await gate.client.get("/v1/voices/nobody")).status == 404
    assert (await gate.client.post("/v1/voices/add", {})).status == 400


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"input": ""}, "input"),
        ({"input": " \n "}, "input"),
        ({"input": "你好"}, "input"),
        ({"input": "x" * 50_001}, "input"),
        ({"speed": 9}, "speed"),
        ({"response_format": "midi"}, "response_format"),
        ({"voice": "+".join(["af_heart"] * 9)}, "voice"),
        ({"language": "fr"}, "language"),
    ],
)
async def test_bad_input_is_told(gate: Gateway, fields: dict[str, Any], names: str) -> None:
    body = {"model": KOKORO, "input": SENTENCE, **fields}
    told = await gate.client.post(SPEECH, msgspec.json.encode(body))
    assert told.status == 400, told.body
    assert names in told.json()["error"]["message"] + str(told.json()["error"]["param"])


async def test_a_wav_of_several_sentences_says_how_long_it_is(gate: Gateway) -> None:
    body = {"text": f"{SENTENCE} " * 8, "model_id": KOKORO}
    told = await gate.client.post("/v1/text-to-speech/af_heart", body)
    assert int.from_bytes(told.body[4:8], "little") == len(told.body) - 8
    assert int.from_bytes(told.body[40:44], "little") == len(told.body) - 44
