"""/v1/voices (deepinfra-api 6): the voices of the models, and those that an account has added."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta

from inferd.access.voices import RECORDINGS_BYTES_MAX, RECORDINGS_MAX, Recording, VoiceNotFound
from inferd.api import inference
from inferd.api.body import decode
from inferd.api.exchange import Exchange
from inferd.api.media import read_with_media
from inferd.api.services import Services
from inferd.api.spoken import ADDED
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, Forbidden, NotFound, UnsupportedField
from inferd.storage.voices import VoiceRow

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Description = Annotated[str, Meta(max_length=1000)]
_encode = msgspec.json.Encoder().encode

_LANGUAGES = {
    "a": "American English",
    "b": "British English",
    "e": "Spanish",
    "f": "French",
    "h": "Hindi",
    "i": "Italian",
    "j": "Japanese",
    "p": "Brazilian Portuguese",
    "z": "Mandarin Chinese",
}
"""First letter of Kokoro's voices (its VOICES.md)."""


class Voice(msgspec.Struct, frozen=True):
    """One voice."""

    user_id: str
    voice_id: str
    name: str
    description: str
    created_at: str
    updated_at: str
    category: str = "premade"


class NewVoice(Voice, frozen=True):
    """One that was just added; ElevenLabs' clients ask whether somebody must verify it."""

    requires_verification: bool = False


class Voices(msgspec.Struct, frozen=True):
    """All of them."""

    voices: list[Voice]


class VoiceIn(msgspec.Struct, frozen=True, kw_only=True):
    """A voice to add: a form, or JSON with data URLs, base64 or URLs in `files`."""

    name: Name
    description: Description | None = None
    files: str | Annotated[list[str], Meta(max_length=RECORDINGS_MAX)]
    labels: str | None = None
    """Ignored, as the next one: what ElevenLabs' clients send beside."""
    remove_background_noise: bool | None = None


class VoiceChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to call a voice from now on."""

    name: Name | None = None
    description: Description | None = None


_VOICE_IN = msgspec.json.Decoder(VoiceIn)
_URL_ENCODED = b"application/x-www-form-urlencoded"
_CHANGE = msgspec.json.Decoder(VoiceChange)


async def list_voices(exchange: Exchange, services: Services) -> None:
    """All voices: those of the models, and those that the account has added.

    Whoever holds a scoped JWT may speak in a voice whose id he was given, and learns of no other.
    """
    caller = exchange.caller
    found = list(_voices(services))
    if caller.jwt_id is None:
        found += [_added(row) for row in await services.voices.listed(caller.account_id)]
    await exchange.respond(200, _encode(Voices(found)))


async def show_voice(exchange: Exchange, services: Services) -> None:
    """One voice."""
    voice_id = unquote(exchange.rest)
    if voice_id.startswith(ADDED):
        found = _added(await services.voices.get(exchange.caller.account_id, voice_id))
    else:
        found = _find(services, voice_id)
    await exchange.respond(200, _encode(found))


async def change_voices(exchange: Exchange, services: Services) -> None:
    """…/add adds a voice, …/{id}/edit gives one of the account's another name."""
    if exchange.rest == "add":
        await _add(exchange, services)
        return
    voice_id, slash, more = unquote(exchange.rest).partition("/")
    if not slash or more != "edit":
        raise NotFound("Not Found")
    if not voice_id.startswith(ADDED):
        voice = _find(services, voice_id)
        raise UnsupportedField(
            f"The voice {voice.voice_id} comes with its model and keeps its name."
        )
    change = await _change(exchange, services)
    row = await services.voices.rename(exchange.caller, voice_id, change.name, change.description)
    await exchange.respond(200, _encode(_added(row)))


async def remove_voice(exchange: Exchange, services: Services) -> None:
    """Forget a voice of the account; those of the models stay."""
    voice_id = unquote(exchange.rest)
    if not voice_id.startswith(ADDED):
        voice = _find(services, voice_id)
        raise Forbidden(f"The voice {voice.voice_id} comes with its model and cannot be deleted.")
    await services.voices.remove(exchange.caller, voice_id)
    await exchange.respond(200, b"{}")


async def _add(exchange: Exchange, services: Services) -> None:
    if not any(card.options.get("clones") for card in services.catalog.cards()):
        raise UnsupportedField("No model here speaks in the voice of a recording.")
    body, door = await read_with_media(exchange, services, _VOICE_IN, VoiceIn)
    given = [body.files] if isinstance(body.files, str) else body.files
    recordings: list[Recording] = []
    room = RECORDINGS_BYTES_MAX
    for one in given:
        media = await door.take(one, "audio", "files")
        # Before it is read: ten URLs may lead to half a gigabyte.
        room -= media.size_bytes
        if room < 0:
            raise BadRequest(
                f"The recordings have over {RECORDINGS_BYTES_MAX} bytes: some seconds are enough.",
                param="files",
            )
        recordings.append(Recording(media.mime, await asyncio.to_thread(media.read)))
    row = await services.voices.add(exchange.caller, body.name, body.description or "", recordings)
    told = NewVoice(**msgspec.structs.asdict(_added(row)))
    await exchange.respond(200, _encode(told))


async def _change(exchange: Exchange, services: Services) -> VoiceChange:
    kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != _URL_ENCODED:
        return await inference.read_form_or_json(exchange, services, _CHANGE, VoiceChange)
    return await inference.read_bytes(
        exchange, services, lambda raw: decode(_as_json(bytes(raw)), _CHANGE)
    )


def _as_json(body: bytes) -> bytes:
    """A form in the shape of a query; JSON as it is, which curl sends under the same type."""
    if body.lstrip()[:1] in (b"{", b""):
        return body
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise BadRequest("The body is not a sound form.") from None
    return msgspec.json.encode(dict(pairs))


def _added(row: VoiceRow) -> Voice:
    return Voice(
        row.account_id,
        row.id,
        row.name,
        row.description,
        _moment(row.created_unix_ns // 1_000_000_000),
        _moment(row.updated_unix_ns // 1_000_000_000),
        "cloned",
    )


def _moment(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat()


def _find(services: Services, wanted: str) -> Voice:
    for voice in _voices(services):
        if voice.voice_id == wanted:
            return voice
    raise VoiceNotFound("There is no such voice.", param="voice_id")


def _voices(services: Services) -> Iterator[Voice]:
    """Each once: models that are the same, for a CPU and for a GPU, have the same voices."""
    told = set[str]()
    for card in services.catalog.cards():
        if card.task == "text-to-speech":
            names = card.options.get("voices")
            for name in names if isinstance(names, list) else []:
                if name not in told:
                    told.add(name)
                    yield _voice(card, name)


def _voice(card: ModelCard, name: str) -> Voice:
    made = _moment(card.created_unix)
    tongue = _LANGUAGES.get(name[:1], "")
    kind = {"f": "female", "m": "male"}.get(name[1:2], "")
    description = ", ".join(part for part in (card.name, tongue, kind) if part)
    shown = name.partition("_")[2].replace("_", " ").title() or name
    return Voice("inferd", name, shown, description, made, made)
