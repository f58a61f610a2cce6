"""Pictures, recordings and films in chat messages, for every dialect.

A dialect lists the parts of its body; here it is checked that the model takes them, before a byte
is decoded or fetched, and then the media door takes them one by one. A chat of text costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.media import MediaDoor
from inferd.api.services import Services
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, PayloadTooLarge, UnsupportedField
from inferd.tasks.media import Media, MediaKind
from inferd.tasks.text_generation import Placed

PARTS_MAX = 16
"""Of one request."""
PART_BYTES_MAX = 20 * 1024 * 1024
"""Of one part, encoded as it came (deepinfra-api 14)."""
_WORDS: dict[MediaKind, str] = {"image": "images", "video": "video", "audio": "audio"}


class MediaPart(NamedTuple):
    """One part of a body."""

    at: str
    """Path of the part, such as `messages.0.content.1`."""
    kind: MediaKind | None
    """None: what its bytes say, of what the model takes."""
    given: str | None
    """URL, data URL or base64; None: missing."""
    field: str
    """Where `given` stands below `at`."""


Taken = Mapping[str, Media]
"""Path of a part → what it holds."""
NOTHING_TAKEN: Taken = {}


async def take_parts(
    exchange: Exchange, services: Services, models: Sequence[str], parts: Iterable[MediaPart]
) -> Taken:
    """All parts, by path. Raises BadRequest that names the part or the model."""
    wanted = list(parts)
    if not wanted:
        return NOTHING_TAKEN
    cards = [inference.find_model(services, name, "text-generation") for name in models]
    for card in cards:
        _check_model(card, wanted)
    if len(wanted) > PARTS_MAX:
        raise BadRequest(
            f"A request holds at most {PARTS_MAX} images and recordings.",
            param=wanted[PARTS_MAX].at,
        )
    for part in wanted:
        if not part.given:
            raise BadRequest(f"{part.field} is missing.", param=f"{part.at}.{part.field}")
    kinds: tuple[MediaKind, ...] = tuple(
        kind for kind in _WORDS if all(kind in card.modalities for card in cards)
    )
    return await _take_all(exchange, services, wanted, kinds)


async def _take_all(
    exchange: Exchange,
    services: Services,
    wanted: Sequence[MediaPart],
    kinds: tuple[MediaKind, ...],
) -> dict[str, Media]:
    door = MediaDoor(exchange, services)
    taken: dict[str, Media] = {}
    left = services.options.media_body_bytes_max
    for part in wanted:
        param = f"{part.at}.{part.field}"
        media = await door.take(part.given or "", part.kind or kinds, param)
        left -= media.size_bytes
        if media.size_bytes > PART_BYTES_MAX or left < 0:
            raise PayloadTooLarge(
                f"{param}: a picture or recording of a chat has at most "
                f"{PART_BYTES_MAX // 1024 // 1024} MB, all of them together at most "
                f"{services.options.media_body_bytes_max} bytes.",
                param=param,
            )
        taken[part.at] = media
    return taken


def _check_model(card: ModelCard, wanted: Sequence[MediaPart]) -> None:
    for part in wanted:
        if part.kind is None and not card.modalities:
            raise UnsupportedField(
                f"The model {card.name} takes no files.", param=f"{part.at}.type"
            )
        if part.kind is not None and part.kind not in card.modalities:
            raise UnsupportedField(
                f"The model {card.name} takes no {_WORDS[part.kind]}.", param=f"{part.at}.type"
            )


class Content:
    """The content of a message as it is put together: text, and media at their places."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._length = 0
        self._media: list[Placed] = []

    def say(self, text: str, between: str = "") -> None:
        """Add text; `between` stands before it unless it is the first."""
        if not text:
            return
        if self._length:
            text = between + text
        self._texts.append(text)
        self._length += len(text)

    def show(self, media: Media) -> None:
        """Add a picture, recording or film."""
        self._media.append(Placed(self._length, media))

    @property
    def text(self) -> str:
        """All text."""
        return "".join(self._texts)

    @property
    def media(self) -> tuple[Placed, ...]:
        """All media."""
        return tuple(self._media)


def moved(media: Iterable[Placed], by: int) -> tuple[Placed, ...]:
    """The same media when their text stands behind `by` other characters."""
    return tuple(Placed(one.at + by, one.media) for one in media)
