"""What the dialects of text to image share: sizes, defaults, the pictures as they come."""

from __future__ import annotations

import re

from inferd.admission.work import Work
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest
from inferd.tasks.base import Chunk
from inferd.tasks.every import Event
from inferd.tasks.text_to_image import SIDE_MAX, SIDE_MIN

PROMPT_CHARACTERS_MAX = 32_000
_SIZE = re.compile(r"([0-9]{1,5})\s*[xX×*]\s*([0-9]{1,5})")
_RATIO = re.compile(r"([0-9]{1,3})\s*[:/x]\s*([0-9]{1,3})")
_STEP = 8
"""Sides that follow from a ratio are whole multiples of it, as latents need them."""


def default_size(card: ModelCard) -> tuple[int, int]:
    """Width and height where the caller names none."""
    options = card.options
    return int(str(options.get("default_width", 1024))), int(
        str(options.get("default_height", 1024))
    )


def parse_size(given: str | None, card: ModelCard, param: str = "size") -> tuple[int, int]:
    """`512x768`, or `auto`. Raises BadRequest."""
    if given is None or given == "auto":
        return default_size(card)
    found = _SIZE.fullmatch(given.strip())
    if found is None:
        raise BadRequest(f"{param} is of the form 1024x1024.", param=param)
    width, height = int(found[1]), int(found[2])
    check_size(width, height, param)
    return width, height


def check_size(width: int, height: int, param: str) -> None:
    """Raise BadRequest for sides that no model draws."""
    if not (SIDE_MIN <= width <= SIDE_MAX and SIDE_MIN <= height <= SIDE_MAX):
        raise BadRequest(f"Sides are {SIDE_MIN} to {SIDE_MAX} pixels.", param=param)


def parse_ratio(given: str, card: ModelCard) -> tuple[int, int]:
    """`16:9`, with as many pixels as the model's own size. Raises BadRequest."""
    found = _RATIO.fullmatch(given.strip())
    across, down = (int(found[1]), int(found[2])) if found else (0, 0)
    if not across or not down or not 0.1 <= across / down <= 10:
        raise BadRequest("aspect_ratio is of the form 16:9.", param="aspect_ratio")
    width, height = default_size(card)
    area = width * height
    sides = ((area * across / down) ** 0.5, (area * down / across) ** 0.5)
    wide, high = (min(SIDE_MAX, max(_STEP * 4, round(side / _STEP) * _STEP)) for side in sides)
    return wide, high


class Pictures:
    """Puts chunks together."""

    def __init__(self) -> None:
        self.whole: list[bytearray] = []

    def add(self, event: Event, work: Work) -> None:
        """Keep what belongs to a picture."""
        if isinstance(event, Chunk):
            while len(self.whole) <= event.index:
                self.whole.append(bytearray())
            self.whole[event.index] += event.data
