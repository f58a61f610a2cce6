"""Voices that accounts add: from recordings to speech, for their account alone."""

from __future__ import annotations

import asyncio
import base64
import io
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from inferd.access import voices as added_voices
from inferd.tasks.base import MICRO
from tests.accounts import another_account
from tests.chatterbox_graphs import RATE, Tiny, chatterbox_card, recording, spoken, tiny, write
from tests.gateway import Client, Gateway, Response, echo_card, gateway
from tests.jwts import offline_jwt
from tests.ledger import entries

MODEL = "test/chatterbox"
TEXT = "hello there."
URL_ENCODED = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def made(tmp_path: Path) -> Tiny:
    found = tiny(turbo=False)
    write(tmp_path / "model", found)
    return found


@pytest.fixture
async def gate(made: Tiny, tmp_path: Path) -> AsyncIterator[Gateway]:
    plain = echo_card("test/plain", task="text-to-speech", options={"voices": ["af_sky"]})
    async with gateway(tmp_path, chatterbox_card(tmp_path / "model", MODEL), plain) as running:
        yield running


def wav(seed: int, seconds: float = 2) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(recording(seed, seconds).tobytes())
    return written.getvalue()


async def add(client: Client, *files: bytes, name: str = "Ada", **fields: str) -> Response:
    """As ElevenLabs' and DeepInfra's clients send it."""
    parts = [("name", None, name.encode())]
    parts += [(key, None, value.encode()) for key, value in fields.items()]
    parts += [("files", f"{at}.wav", content) for at, content in enumerate(files)]
    body = b""
    for key, file_name, content in parts:
        named = f'; filename="{file_name}"' if file_name else ""
        head = f'--cut\r\ncontent-disposition: form-data; name="{key}"{named}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    return await client.post("/v1/voices/add", body + b"--cut--\r\n", headers=kind)


async def added(gate: Gateway, *files: bytes) -> str:
    answer = await add(gate.client, *files)
    assert answer.status == 200, answer.body
    return answer.json()["voice_id"]


def samples(answer: Response) -> Any:
    assert answer.status == 200, answer.body
    return np.frombuffer(answer.body, np.int16) / 32768


async def openai(client: Client, voice: Any, model: str = MODEL) -> Response:
    body = {"model": model, "input": TEXT, "voice": voice, "response_format": "pcm"}
    return await client.post("/v1/openai/audio/speech", body)


async def test_each_dialect_speaks_in_an_added_voice(gate: Gateway, made: Tiny) -> None:
    voice = await added(gate, wav(3))
    expected = spoken(made, TEXT, recording(3))
    for named in (voice, {"id": voice}):
        np.testing.assert_allclose(samples(await openai(gate.client, named)), expected, atol=1e-4)
    body = {"text": TEXT, "model_id": MODEL, "output_format": "pcm"}
    for more in ("", "/stream"):
        told = await gate.client.post(f"/v1/text-to-speech/{voice}{more}", body)
        np.testing.assert_allclose(samples(told), expected, atol=1e-4)
    for native in ({"voice_id": voice}, {"preset_voice": voice}, {"preset_voice": [voice]}):
        native |= {"text": TEXT, "output_format": "pcm"}
        told = await gate.client.post(f"/v1/inference/{MODEL}", native)
        content = base64.b64decode(told.json()["audio"].partition(",")[2])
        heard = np.frombuffer(content, np.int16) / 32768
        np.testing.assert_allclose(heard, expected, atol=1e-4)
    billed = await entries(gate)
    assert [entry.quantity for entry in billed] == [len(TEXT) * MICRO] * 7
    assert len({entry.cost_nanos for entry in billed}) == 1


async def test_without_a_voice_and_with_openais_names_it_has_its_own(
    gate: Gateway, made: Tiny
) -> None:
    expected = spoken(made, TEXT, recording(1))
    for voice in (None, "", "default", "alloy", "echo"):
        np.testing.assert_allclose(samples(await openai(gate.client, voice)), expected, atol=1e-4)
    assert (await openai(gate.client, "nobody")).status == 404


async def test_recordings_that_do_not_fit_a_frame(gate: Gateway, made: Tiny) -> None:
    parts = [recording(3, 8), recording(4, 30)]
    voice = await added(gate, wav(3, 8), wav(4, 30))
    expected = spoken(made, TEXT, np.concatenate(parts)[: 10 * RATE])
    np.testing.assert_allclose(samples(await openai(gate.client, voice)), expected, atol=1e-4)


async def test_json_with_a_data_url(gate: Gateway, made: Tiny) -> None:
    url = "data:audio/wav;base64," + base64.b64encode(wav(3)).decode()
    answer = await gate.client.post("/v1/voices/add", {"name": "Ada", "files": url})
    voice = answer.json()["voice_id"]
    expected = spoken(made, TEXT, recording(3))
    np.testing.assert_allclose(samples(await openai(gate.client, voice)), expected, atol=1e-4)


async def test_it_is_listed_renamed_and_forgotten(gate: Gateway) -> None:
    answer = await add(gate.client, wav(3), description="calm", labels='{"accent": "none"}')
    voice = answer.json()
    assert voice.pop("requires_verification") is False
    assert set(voice) >= {"user_id", "voice_id", "name", "description", "created_at", "updated_at"}
    assert (voice["name"], voice["description"], voice["category"]) == ("Ada", "calm", "cloned")
    assert voice["user_id"] == gate.account_id
    listed = (await gate.client.get("/v1/voices")).json()["voices"]
    assert [one["voice_id"] for one in listed] == ["default", "af_sky", voice["voice_id"]]
    path = f"/v1/voices/{voice['voice_id']}"
    assert (await gate.client.get(path)).json() == voice
    edit = urlencode({"name": "Ada L.", "description": ""}).encode()
    changed = await gate.client.post(f"{path}/edit", edit, headers=URL_ENCODED)
    assert (changed.json()["name"], changed.json()["description"]) == ("Ada L.", "")
    changed = await gate.client.post(f"{path}/edit", {"description": "loud"})
    assert (changed.json()["name"], changed.json()["description"]) == ("Ada L.", "loud")
    removed = await gate.client.call("DELETE", path, b"")
    assert (removed.status, removed.body) == (200, b"{}")
    for method, where in (("GET", path), ("DELETE", path), ("POST", f"{path}/edit")):
        told = await gate.client.call(method, where, b"{}")
        assert (told.status, told.json()["detail"]["status"]) == (404, "voice_not_found")
    assert (await openai(gate.client, voice["voice_id"])).status == 404


async def test_it_is_its_accounts_alone(gate: Gateway, tmp_path: Path) -> None:
    voice = await added(gate, wav(3))
    _, secret = await another_account(tmp_path, "stranger", gate.services.database.url)
    stranger = Client(gate.client.app, token=secret)
    path = f"/v1/voices/{voice}"
    assert voice.encode() not in (await stranger.get("/v1/voices")).body
    for method, where in (("GET", path), ("DELETE", path), ("POST", f"{path}/edit")):
        assert (await stranger.call(method, where, b'{"name": "mine"}')).status == 404
    assert (await openai(stranger, voice)).status == 404
    assert (await gate.client.get(path)).json()["name"] == "Ada"


async def test_a_scoped_jwt_speaks_in_it_and_changes_nothing(gate: Gateway, made: Tiny) -> None:
    voice = await added(gate, wav(3))
    token = (await gate.client.post("/v1/api-tokens", {"name": "key"})).json()["token"]
    claims = {"exp": int(time.time()) + 600}
    guest = Client(gate.client.app, token=offline_jwt(gate.account_id, "key", token, claims))
    expected = spoken(made, TEXT, recording(3))
    np.testing.assert_allclose(samples(await openai(guest, voice)), expected, atol=1e-4)
    path = f"/v1/voices/{voice}"
    assert (await add(guest, wav(3))).status == 403
    for method, where in (("DELETE", path), ("POST", f"{path}/edit")):
        assert (await guest.call(method, where, b'{"name": "mine"}')).status == 403
    listed = (await guest.get("/v1/voices")).json()["voices"]
    assert [one["voice_id"] for one in listed] == ["default", "af_sky"]
    assert (await gate.client.get(path)).json()["name"] == "Ada"


@pytest.mark.parametrize("name", ["voice_", "voice_x\x00", "voice_" + "x" * 500, "voice_';--"])
async def test_strange_names_are_unknown(gate: Gateway, name: str) -> None:
    assert (await openai(gate.client, name)).status == 404


async def test_a_model_with_voices_of_its_own_takes_no_other(gate: Gateway) -> None:
    voice = await added(gate, wav(3))
    answer = await openai(gate.client, voice, "test/plain")
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "voice"


@pytest.mark.parametrize(
    ("files", "fields"),
    [
        ([], {}),
        ([b"no sound at all"], {}),
        ([b"\x89PNG\r\n\x1a\n" + bytes(60)], {}),
        ([wav(3)], {"name": ""}),
        ([wav(3)], {"name": "x" * 101}),
        ([wav(3)] * 11, {}),
        ([wav(3, 110), wav(3, 110)], {}),
    ],
)
async def test_what_is_no_voice_is_refused(
    gate: Gateway, files: list[bytes], fields: dict[str, str]
) -> None:
    answer = await add(gate.client, *files, **fields)
    assert answer.status in (400, 422), answer.body
    assert set(answer.json()["detail"]) >= {"status", "message"}
    assert len((await gate.client.get("/v1/voices")).json()["voices"]) == 2


async def test_a_recording_that_cannot_be_heard_is_told_when_it_is_used(gate: Gateway) -> None:
    voice = await added(gate, b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40))
    answer = await openai(gate.client, voice)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "voice"
    assert all(not entry.cost_nanos for entry in await entries(gate))


async def test_an_account_has_so_many(gate: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(added_voices, "VOICES_MAX", 2)
    statuses = [(await add(gate.client, wav(3))).status for _ in range(3)]
    assert statuses == [200, 200, 400]
    listed = (await gate.client.get("/v1/voices")).json()["voices"]
    await gate.client.call("DELETE", f"/v1/voices/{listed[-1]['voice_id']}", b"")
    assert (await add(gate.client, wav(3))).status == 200


async def test_many_calls_at_once_speak_in_it(gate: Gateway, made: Tiny) -> None:
    voice = await added(gate, wav(3))
    answers = await asyncio.gather(*(openai(gate.client, voice) for _ in range(20)))
    expected = spoken(made, TEXT, recording(3))
    for answer in answers:
        np.testing.assert_allclose(samples(answer), expected, atol=1e-4)


async def test_a_deleted_account_takes_its_voices_with_it(gate: Gateway) -> None:
    wish = {"display_name": "blue", "email": "blue@example.com"}
    made = (await gate.client.post("/v1/admin/accounts", wish)).json()
    uid = made["account"]["uid"]
    team = Client(gate.client.app, token=made["token"]["token"])
    assert (await add(team, wav(3))).status == 200
    kept = await added(gate, wav(3))
    voices = gate.services.voices
    assert len(await voices.listed(uid)) == 1
    removed = await gate.client.call("DELETE", f"/v1/admin/accounts/{uid}", b"")
    assert removed.status == 200, removed.body
    assert await voices.listed(uid) == []
    assert [row.id for row in await voices.listed(gate.account_id)] == [kept]
