"""What `inferd run` says to a chat model: a prompt, and files that the model sees or hears."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from inferd.api.sniff import HEAD_BYTES, Sniffed, sniff
from inferd.catalog.card import ModelCard
from inferd.cli.run_inputs import as_text, data_url, file_of, text_of
from inferd.errors import BadRequest
from inferd.tasks.media import MediaKind

_WORDS: dict[MediaKind, str] = {"image": "pictures", "audio": "recordings", "video": "films"}

Part = dict[str, Any]


def chat_content(card: ModelCard, inputs: list[str]) -> str | list[Part]:
    """The content of the one message: plain text, or the parts in their order.

    Raises BadRequest for a second prompt, and for a file that the model does not take.
    """
    if sum(not given.startswith("@") for given in inputs) > 1:
        raise BadRequest("A chat takes one prompt and any number of @files; put it in quotes.")
    parts = [_part(card, given) for given in inputs]
    if any(part["type"] != "text" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(card: ModelCard, given: str) -> Part:
    if not given.startswith("@"):
        return {"type": "text", "text": text_of(given)}
    content = file_of(given)
    found = sniff(content[:HEAD_BYTES])
    if found is None or _reads_as_text(content):
        return {"type": "text", "text": as_text(content, given)}
    return _media_part(_kind(card, found, given), content, found.mime)


def _reads_as_text(content: bytes) -> bool:
    """A text may begin like a picture: BM, ID3."""
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _media_part(kind: MediaKind, content: bytes, mime: str) -> Part:
    if kind == "audio":
        sound = {"data": b64encode(content).decode(), "format": mime.partition("/")[2]}
        return {"type": "input_audio", "input_audio": sound}
    name = f"{kind}_url"
    return {"type": name, name: {"url": data_url(content, mime)}}


def _kind(card: ModelCard, found: Sniffed, given: str) -> MediaKind:
    """As what the model takes a file: of a film without pictures the name says audio."""
    named = found.mime.partition("/")[0]
    for kind in sorted(found.kinds, key=lambda kind: kind != named):
        if kind in card.modalities:
            return kind
    kinds = " and ".join(_WORDS[kind] for kind in card.modalities) or "nothing but text"
    raise BadRequest(f"{given[1:]} is {found.mime}; {card.name} takes {kinds}.")
