"""A picture as the numbers that a network takes. Imported in workers only.

Options of a card, with their defaults:

    side     224         the network's input is side x side pixels
    resize   256         the shorter side becomes this before the middle is cut out; 0: the whole
                         picture is squeezed into the square
    filter   "bicubic"   or "bilinear"
    mean     "127.5"     subtracted from values 0 to 255: one number, or a list of three
    std      "127.5"     what they are divided by then
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inferd.catalog.card import ModelCard
from inferd.engines.decode_image import decode_image
from inferd.errors import EngineFailed
from inferd.tasks.media import Media

Pixels = NDArray[np.float32]
"""(3, side, side)."""

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class PictureInput:
    """How one model wants its pictures. Thread-safe."""

    def __init__(self, card: ModelCard) -> None:
        options = card.options
        self.side = int(str(options.get("side", 224)))
        self._resize = int(str(options.get("resize", 256)))
        name = str(options.get("filter", "bicubic"))
        if name not in _FILTERS or not 1 <= self.side <= 4096 or self._resize > 4096:
            raise EngineFailed("The card's side, resize or filter is not sound.")
        self._filter = _FILTERS[name]
        self._mean = _numbers(card, "mean")
        self._std = _numbers(card, "std")

    def prepared(self, media: Media) -> Pixels:
        """Decode, cut, scale. BadRequest when it is no sound picture."""
        return self.pixels(decode_image(media))

    def pixels(self, picture: Image.Image) -> Pixels:
        """The same of a decoded RGB picture."""
        square = np.asarray(self._square(picture), np.float32)
        scaled = (square - self._mean) / self._std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)

    def _square(self, picture: Image.Image) -> Image.Image:
        if not self._resize:
            return picture.resize((self.side, self.side), self._filter)
        width, height = picture.size
        # Cut first, in the picture's own pixels: a strip of 1 x 16,384 must not grow by 256.
        edge = min(width, height) * self.side / self._resize
        left, top = (width - edge) / 2, (height - edge) / 2
        box = (left, top, left + edge, top + edge)
        return picture.resize((self.side, self.side), self._filter, box=box)


def _numbers(card: ModelCard, option: str) -> Pixels:
    given = card.options.get(option, "127.5")
    texts = given if isinstance(given, list) else [str(given)]
    try:
        numbers = np.array([float(text) for text in texts], np.float32)
    except ValueError:
        raise EngineFailed(f"The card's {option} is no list of numbers.") from None
    if len(numbers) not in (1, 3):
        raise EngineFailed(f"The card's {option} has one number or three.")
    return numbers
