"""GET /v1/voices and /v1/voices/{id} (deepinfra-api 6): the voices of the models that speak."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import unquote

import msgspec

from inferd.api.exchange import Exchange
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import NotFound, UnsupportedField

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
    wanted = unquote(exchange.rest)
    for voice in _voices(services):
        if voice.voice_id == wanted:
            await exchange.respond(200, msgspec.json.encode(voice))
            return
    raise NotFound("There is no such voice.")


async def no_cloning(exchange: Exchange, services: Services) -> None:
    """Voices cannot be added, changed or removed."""
    raise UnsupportedField(
        "No model here clones voices: those of GET /v1/voices cannot be added to or changed."
    )


def _voices(services: Services) -> Iterator[Voice]:
    for card in services.catalog.cards():
        if card.task == "text-to-speech":
            names = card.options.get("voices")
            for name in names if isinstance(names, list) else []:
                yield _voice(card, name)


def _voice(card: ModelCard, name: str) -> Voice:
    made = datetime.fromtimestamp(card.created_unix, UTC).isoformat()
    tongue = _LANGUAGES.get(name[:1], "")
    kind = {"f": "female", "m": "male"}.get(name[1:2], "")
    description = ", ".join(part for part in (card.name, tongue, kind) if part)
    shown = name.partition("_")[2].replace("_", " ").title() or name
    return Voice("inferd", name, shown, description, made, made)
