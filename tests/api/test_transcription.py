"""Speech recognition over the wire: OpenAI's forms and streams, the native dialect, money."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from inferd.api.services import ApiOptions
from inferd.money import usd
from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway, until
from tests.ledger import entries
from tests.recordings import clips, joined, two_cities
from tests.weights import local_card

MODEL = "openai/whisper-tiny.en"
TEXT = "He might even have been made amiable himself."
SECONDS = 3.29

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    options = RouterOptions(memory_bytes=1 << 33)
    folder = tmp_path_factory.mktemp("transcription")
    api = ApiOptions(audio_seconds_max=120)
    async with gateway(folder, local_card(MODEL), options=api, router_options=options) as running:
        yield running


def multipart(file_field: str, content: bytes, fields: dict[str, str], name: str = "") -> bytes:
    """A form; a file without a name is how DeepInfra's Node client sends it."""
    shown = f'; filename="{name}"' if name else ""
    parts = [
        f'Content-Disposition: form-data; name="{file_field}"{shown}\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
    ]
    for field, value in fields.items():
        # A form may repeat a name: a{n} of a list.
        plain = field.split("#")[0]
        parts.append(f'Content-Disposition: form-data; name="{plain}"\r\n\r\n{value}'.encode())
    return b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + b"--cut--\r\n"


async def form(
    gate: Gateway, path: str, content: bytes | None = None, *, native: bool = False, **fields: str
) -> Response:
    sound = clips()[4].content if content is None else content
    if native:
        body = multipart("audio", sound, fields)
    else:
        body = multipart("file", sound, {"model": MODEL, **fields}, "clip.wav")
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    return await gate.client.post(path, body, headers=kind)


async def transcribe(gate: Gateway, content: bytes | None = None, **fields: str) -> Response:
    return await form(gate, "/v1/openai/audio/transcriptions", content, native=False, **fields)


async def native(gate: Gateway, **body: Any) -> Response:
    audio = b64encode(clips()[4].content).decode()
    return await gate.client.post(f"/v1/inference/{MODEL}", {"audio": audio, **body})


class TestOpenAI:
    async def test_json_has_text_seconds_and_cost(self, gate: Gateway) -> None:
        told = (await transcribe(gate)).json()
        assert told["text"] == TEXT
        entry = (await entries(gate))[-1]
        assert (entry.unit, entry.quantity) == ("input_seconds", 3_290_000)
        assert told["usage"] == {
            "type": "duration",
            "seconds": SECONDS,
            "estimated_cost": usd(entry.cost_nanos),
        }
        # 3.29 s at 0.0000025 dollars each, in billionths.
        assert entry.cost_nanos == 8225

    async def test_text_is_a_line(self, gate: Gateway) -> None:
        answer = await transcribe(gate, response_format="text")
        assert answer.body.decode() == TEXT + "\n"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"

    async def test_subrip_and_webvtt_have_cues(self, gate: Gateway) -> None:
        content, _ = joined(3)
        subrip = (await transcribe(gate, content, response_format="srt")).body.decode()
        cues = subrip.strip().split("\n\n")
        for number, cue in enumerate(cues, 1):
            index, times, text = cue.split("\n")
            assert int(index) == number
            assert re.fullmatch(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", times)
            assert text
        webvtt = (await transcribe(gate, content, response_format="vtt")).body.decode()
        head, *rest = webvtt.strip().split("\n\n")
        assert head == "WEBVTT"
        assert [cue.split("\n")[1] for cue in rest] == [cue.split("\n")[2] for cue in cues]
        assert all("." in cue.split("\n")[0] for cue in rest)

    @pytest.mark.parametrize("field", ["timestamp_granularities[]", "timestamp_granularities"])
    @pytest.mark.parametrize(
        ("wanted", "keys"),
        [
            (("word",), {"words"}),
            (("segment",), {"segments"}),
            (("segment", "word"), {"segments", "words"}),
        ],
    )
    async def test_verbose_json_has_the_times_asked_for(
        self, gate: Gateway, field: str, wanted: tuple[str, ...], keys: set[str]
    ) -> None:
        fields = {f"{field}#{index}": name for index, name in enumerate(wanted)}
        answer = await transcribe(gate, None, response_format="verbose_json", **fields)
        told = answer.json()
        assert set(told) == {"task", "language", "duration", "text", "usage"} | keys
        assert (told["task"], told["language"]) == ("transcribe", "english")
        assert (told["duration"], told["text"]) == (SECONDS, TEXT)
        if "words" in keys:
            assert " ".join(word["word"] for word in told["words"]) == TEXT
            assert all(set(word) == {"word", "start", "end"} for word in told["words"])
        if "segments" in keys:
            (segment,) = told["segments"]
            assert segment["text"].strip() == TEXT
            assert 0 <= segment["start"] < segment["end"] <= SECONDS
            assert segment["avg_logprob"] < 0 < segment["compression_ratio"]
            assert segment["tokens"]

    async def test_verbose_json_has_segments_unless_asked(self, gate: Gateway) -> None:
        told = (await transcribe(gate, response_format="verbose_json")).json()
        assert "segments" in told
        assert "words" not in told

    async def test_a_stream_tells_segments_as_they_come(self, gate: Gateway) -> None:
        """Deltas join to the text; the first is there before the second window is heard."""
        recording = two_cities().content
        plain = (await transcribe(gate, recording)).json()
        events = (await transcribe(gate, recording, stream="true")).events()
        assert {event["type"] for event in events[:-1]} == {"transcript.text.delta"}
        assert len(events) > 3
        assert "".join(event["delta"] for event in events[:-1]) == plain["text"]
        last = events[-1]
        assert (last["type"], last["text"]) == ("transcript.text.done", plain["text"])
        assert last["usage"] == plain["usage"]

    async def test_a_client_that_leaves_pays_for_what_was_heard(self, gate: Gateway) -> None:
        content, _ = joined(20)
        gone = asyncio.Event()
        body = multipart("file", content, {"model": MODEL, "stream": "true"}, "clip.wav")
        kind = {"content-type": "multipart/form-data; boundary=cut"}
        before, flights = len(await entries(gate)), len(gate.flights)
        path = "/v1/audio/transcriptions"
        call = asyncio.create_task(gate.client.call("POST", path, body, headers=kind, gone=gone))
        await until(lambda: any(one.usage.quantity for one in gate.flights[flights:]))
        gone.set()
        await call
        settled = await entries(gate)
        while len(settled) == before:
            await asyncio.sleep(0)
            settled = await entries(gate)
        entry = settled[-1]
        assert 0 < entry.quantity < 60_000_000
        assert entry.cost_nanos > 0

    async def test_sampling_prompt_and_a_filter_are_taken(self, gate: Gateway) -> None:
        told = await transcribe(
            gate,
            clips()[0].content,
            temperature="0.2",
            prompt="Mister John Dashwood",
            chunking_strategy="auto",
            language="English",
        )
        assert "john dashwood" in told.json()["text"].lower()
        strategy = json.dumps({"type": "server_vad", "threshold": 1, "prefix_padding_ms": 0})
        silent = await transcribe(gate, None, chunking_strategy=strategy)
        assert silent.json()["text"] == ""

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"model": "no/such"}, "model"),
            ({"response_format": "docx"}, "response_format"),
            ({"temperature": "2"}, "temperature"),
            ({"language": "de"}, "language"),
            ({"language": "klingon"}, "language"),
            ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
            ({"stream": "true", "response_format": "srt"}, "response_format"),
            ({"include[]": "logprobs"}, "include"),
            ({"chunking_strategy": "later"}, "chunking_strategy"),
        ],
    )
    async def test_what_is_wrong_is_named(
        self, gate: Gateway, fields: dict[str, str], param: str
    ) -> None:
        answer = await transcribe(gate, None, **fields)
        assert answer.status in (400, 404)
        error = answer.json()["error"]
        assert error["param"] == param
        assert error["message"]

    async def test_an_english_model_does_not_translate(self, gate: Gateway) -> None:
        answer = await form(gate, "/v1/openai/audio/translations")
        assert answer.status == 400
        assert "translate" in answer.json()["error"]["message"]

    async def test_a_recording_that_is_too_long_is_refused_and_free(self, gate: Gateway) -> None:
        content, _ = joined(24)
        answer = await transcribe(gate, content)
        assert answer.status == 400
        assert "longer than" in answer.json()["error"]["message"]
        assert (await entries(gate))[-1].cost_nanos == 0


class TestNative:
    async def test_a_form_json_and_a_data_url_say_the_same(self, gate: Gateway) -> None:
        url = "data:audio/wav;base64," + b64encode(clips()[4].content).decode()
        answers = [
            await form(gate, f"/v1/inference/{MODEL}", native=True, task='"transcribe"'),
            await native(gate),
            await native(gate, audio=url, language="en"),
        ]
        for told in (answer.json() for answer in answers):
            assert told["text"] == TEXT
            assert (told["language"], told["input_length_ms"]) == ("en", 3290)
            (segment,) = told["segments"]
            assert {"id", "start", "end", "text", "confidence", "tokens"} <= set(segment)
            assert 0 < segment["confidence"] <= 1
            assert "words" not in segment
            assert told["inference_status"]["status"] == "succeeded"
            assert told["inference_status"]["cost"] == pytest.approx(8.225e-6)

    async def test_words_come_at_the_top_and_in_segments(self, gate: Gateway) -> None:
        told = (await native(gate, chunk_level="word")).json()
        assert " ".join(word["text"] for word in told["words"]) == TEXT
        assert [w for s in told["segments"] for w in s["words"]] == told["words"]
        assert all(0 < word["confidence"] <= 1 for word in told["words"])

    async def test_every_field_is_taken(self, gate: Gateway) -> None:
        told = await native(
            gate,
            task="transcribe",
            initial_prompt="Sense and Sensibility.",
            temperature=0,
            temperature_increment_on_fallback=0.5,
            patience=1.5,
            suppress_tokens="-1",
            condition_on_previous_text=False,
            compression_ratio_threshold=3,
            logprob_threshold=-2,
            no_speech_threshold=0.9,
            chunk_length_s=10,
        )
        assert told.json()["text"] == TEXT

    async def test_thresholds_are_what_sends_it_to_the_next_temperature(
        self, gate: Gateway
    ) -> None:
        told = (
            await native(gate, logprob_threshold=0, temperature_increment_on_fallback=0.4)
        ).json()
        assert {segment["temperature"] for segment in told["segments"]} == {0.8}
        calm = (await native(gate)).json()
        assert {segment["temperature"] for segment in calm["segments"]} == {0.0}

    async def test_a_stream_tells_segments_and_then_the_body(self, gate: Gateway) -> None:
        *segments, last = (await native(gate, stream=True)).events()
        assert [event["segment"] for event in segments] == last["segments"]
        assert last["text"] == TEXT

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            ({"suppress_tokens": "60000"}, "suppress_tokens"),
            ({"suppress_tokens": "one"}, "suppress_tokens"),
            ({"chunk_length_s": 31}, "chunk_length_s"),
            ({"chunk_level": "letter"}, "chunk_level"),
            ({"task": "sing"}, "task"),
            ({"audio": "AAAA"}, "no audio"),
            ({"audio": b64encode(b"RIFF\x10\0\0\0WAVEfmt broken").decode()}, "cannot be read"),
            ({"webhook": "nowhere"}, "webhook"),
        ],
    )
    async def test_what_is_wrong_is_said(
        self, gate: Gateway, body: dict[str, Any], sentence: str
    ) -> None:
        answer = await native(gate, **body)
        assert answer.status in (400, 422)
        assert sentence in json.dumps(answer.json()["detail"])

    async def test_nothing_is_left_of_a_large_recording(self, gate: Gateway) -> None:
        """Over 1 MB it lies in a file while it is heard."""
        folder = gate.services.media_dir
        assert folder is not None
        content, _ = joined(8)
        assert len(content) > 1 << 20
        kept = set(folder.iterdir())
        call = asyncio.create_task(native(gate, audio=b64encode(content).decode()))
        await until(lambda: set(folder.iterdir()) > kept)
        assert (await call).status == 200
        await until(lambda: set(folder.iterdir()) == kept)
