"""What the networks of OCR see of a picture, and the order in which lines are read.

Imported in workers only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inferd.engines.ocr_regions import Floats
from inferd.tasks.classification import Line

Bytes = NDArray[np.uint8]
"""Pixels as (height, width, 3): blue, green, red, as PaddleOCR's networks were trained."""

SHORT_SIDE = 736
"""Smaller pictures are enlarged to it, …"""
LONG_SIDE = 2000
"""… none beyond this, and larger ones are shrunk to it. Multiples of STRIDE are next to it."""
STRIDE = 32
STRIP = 8
"""A picture longer than so many times its height gets a margin: the network was shown none."""
HEIGHT = 48
WIDTH_MIN, WIDTH_MAX = 16, 3200
"""Of a line. Longer ones, some 250 letters, are squeezed."""
LONG = 3.0
"""A region so much longer than high is a line; what is shorter may be a letter or two, which say
nothing about the way that they run."""
TALL = 1.5
"""A region so much higher than wide runs down the page if nothing on it says otherwise."""
SAME_ROW = 0.5
"""Lines are in one row when their middles are nearer than so much of the smaller one's height."""


class Written(NamedTuple):
    """A line that was read, and which way it runs."""

    line: Line
    along: tuple[float, float]
    """From its first letter to its last, in pixels of the picture."""
    height: float
    """Of its letters, in the same."""


class Sheet(NamedTuple):
    """A picture as the detector takes it."""

    pixels: Bytes
    left: int
    top: int
    """Where the picture begins inside its margin."""
    scale: tuple[float, float]
    """Pixels of the sheet for each one of the picture, across and down."""

    def in_picture(self, corners: Floats, size: tuple[int, int]) -> Floats:
        """Corners on the sheet as corners in the picture, none outside of it."""
        moved = (corners + 0.5 - (self.left, self.top)) / self.scale
        return np.clip(moved, 0, size).astype(np.float32)


def sheet(picture: Image.Image) -> Sheet:
    """A picture that is RGB, enlarged or shrunk, with a margin where it is a strip."""
    width, height = picture.size
    longest = max(width, height)
    # The strip gets twice the least height, so that its line does not fill it.
    least = 2 * longest / STRIP if min(width, height) * STRIP < longest else 0
    wide, high = max(width, least), max(height, least)
    ratio = min(max(1.0, SHORT_SIDE / min(wide, high)), LONG_SIDE / longest)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    whole = _stride(wide * ratio), _stride(high * ratio)
    if not least:
        # Without a margin the picture fills the sheet.
        size = whole
    small = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (whole[0] - size[0]) // 2, (whole[1] - size[1]) // 2
    if whole != size:
        canvas = Image.new("RGB", whole, _edge_colour(small))
        canvas.paste(small, (left, top))
        small = canvas
    return Sheet(_bytes(small), left, top, (size[0] / width, size[1] / height))


def sideways(boxes: list[Floats]) -> list[bool]:
    """Which regions hold lines that run up or down. Short ones run as most of the page does."""
    sizes = [_size(box) for box in boxes]
    across = sum(wide for wide, high in sizes if wide > TALL * high)
    down = sum(high for wide, high in sizes if high > TALL * wide)
    if down > across:
        return [wide < LONG * high for wide, high in sizes]
    limit = LONG if across else TALL
    return [high > limit * wide for wide, high in sizes]


def line_pixels(picture: Image.Image, corners: Floats, *, lies: bool) -> Bytes:
    """One line, HEIGHT pixels high; one that `lies` sideways is turned to the left."""
    wide, high = _size(corners)
    width, height = max(1, round(wide)), max(1, round(high))
    quad: list[float] = corners[[0, 3, 2, 1]].ravel().tolist()
    cut = picture.transform((width, height), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    if lies:
        cut = cut.transpose(Image.Transpose.ROTATE_90)
        width, height = height, width
    fitting = min(max(round(width * HEIGHT / height), WIDTH_MIN), WIDTH_MAX)
    return _bytes(cut.resize((fitting, HEIGHT), Image.Resampling.BILINEAR))


def written(line: Line, *, lies: bool, turned: bool) -> Written:
    """A line as it was read: it lay sideways, or stood on its head in `line_pixels`."""
    corners = np.array(line.box, np.float32)
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    if lies:
        # Turned to the left it could be read, so it runs down the page.
        along, down = down, -along
    x, y = (-along if turned else along).tolist()
    return Written(line, (x, y), float(np.linalg.norm(down)))


def floats(pictures: list[Bytes], width: int) -> Floats:
    """A batch from -1 to 1, (count, 3, height, width); narrower pictures end in grey."""
    batch = np.zeros((len(pictures), 3, pictures[0].shape[0], width), np.float32)
    for at, pixels in enumerate(pictures):
        batch[at, :, :, : pixels.shape[1]] = pixels.transpose(2, 0, 1) / 127.5 - 1
    return batch


def rows(lines: list[Written]) -> list[list[Line]]:
    """Lines as they are read: rows from the top to the bottom, each from left to right.

    Which way that is, the longer part of the writing says, so a page may lie on its side.
    """
    if not lines:
        return []
    right = _direction(np.array([line.along for line in lines]))
    turned = np.stack([right, [-right[1], right[0]]], axis=1)
    placed = [_Placed(line.line, np.array(line.line.box) @ turned, line) for line in lines]
    found: list[list[_Placed]] = []
    for one in sorted(placed, key=_middle):
        if found and _middle(one) - _middle(found[-1][0]) < SAME_ROW * min(
            one.written.height, found[-1][0].written.height
        ):
            found[-1].append(one)
        else:
            found.append([one])
    return [[one.line for one in sorted(row, key=_left)] for row in found]


def _direction(alongs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Which way the page's lines run, of length 1: the mean of those in the commonest quarter."""
    axes = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    quarters = (alongs @ axes.T).argmax(axis=1)
    lengths = np.bincount(quarters, np.linalg.norm(alongs, axis=1), 4)
    most = alongs[quarters == lengths.argmax()].sum(axis=0)
    return most / max(float(np.linalg.norm(most)), 1e-9)


class _Placed(NamedTuple):
    line: Line
    corners: Floats
    """As they would be if the page stood upright."""
    written: Written


def _middle(placed: _Placed) -> float:
    return float(placed.corners[:, 1].mean())


def _left(placed: _Placed) -> float:
    return float(placed.corners[:, 0].min())


def _size(corners: Floats) -> tuple[float, float]:
    """Width and height of a region: the longer ones of opposite sides."""
    sides = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    return float(max(sides[0], sides[2])), float(max(sides[1], sides[3]))


def _stride(length: float) -> int:
    return max(1, round(length / STRIDE)) * STRIDE


def _edge_colour(picture: Image.Image) -> tuple[int, int, int]:
    """The middle colour of the picture's edge."""
    pixels = np.asarray(picture)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0).astype(int).tolist()
    return red, green, blue


def _bytes(picture: Image.Image) -> Bytes:
    return np.asarray(picture, np.uint8)[:, :, ::-1]
