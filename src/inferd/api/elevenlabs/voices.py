"""GET /v1/voices and /v1/voices/{id} (deepinfra-api 6): the voices of the models that speak."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import unquote

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.services import Services
from inferd.api.spoken import VoiceNotFound
from inferd.catalog.card import ModelCard
from inferd.errors import Forbidden, UnsupportedField

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


class Voices(msgspec.Struct, frozen=True):
    """All of them."""

    voices: list[Voice]


async def list_voices(exchange: Exchange, services: Services) -> None:
    """All voices."""
    found = list(_voices(services))
    await exchange.respond(200, msgspec.json.encode(Voices(found)))


async def show_voice(exchange: Exchange, services: Services) -> None:
    """One voice."""
    await exchange.respond(200, msgspec.json.encode(_find(services, exchange.rest)))


async def change_voices(exchange: Exchange, services: Services) -> None:
    """Voices cannot be added or changed; of one that is not there, 404 says so."""
    if exchange.rest != "add":
        _find(services, exchange.rest.removesuffix("/edit"))
    raise UnsupportedField(
        "No model here clones voices: those of GET /v1/voices cannot be added to or changed."
    )


async def remove_voice(exchange: Exchange, services: Services) -> None:
    """None can be removed; of one that is not there, 404 says so."""
    voice = _find(services, exchange.rest)
    raise Forbidden(f"The voice {voice.voice_id} comes with its model and cannot be deleted.")


def _find(services: Services, named: str) -> Voice:
    wanted = unquote(named)
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
    made = datetime.fromtimestamp(card.created_unix, UTC).isoformat()
    tongue = _LANGUAGES.get(name[:1], "")
    kind = {"f": "female", "m": "male"}.get(name[1:2], "")
    description = ", ".join(part for part in (card.name, tongue, kind) if part)
    shown = name.partition("_")[2].replace("_", " ").title() or name
    return Voice("inferd", name, shown, description, made, made)
