"""The three networks of PaddleOCR: where writing is, which way up it is, what it says.

Imported in workers only. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from inferd.engines.base import Resources
from inferd.engines.ocr_lines import (
    HEIGHT,
    Bytes,
    floats,
    line_pixels,
    rows,
    sheet,
    sideways,
    written,
)
from inferd.engines.ocr_regions import Floats, regions
from inferd.engines.onnx import Device, OnnxSession, open_session
from inferd.errors import EngineFailed
from inferd.tasks.classification import Line

DETECTOR, TURNER, READER = "detector", "turner", "reader"
"""Roles of the files."""
TURNER_WIDTH = 192
"""Of a line's beginning, which is all that the turner looks at: squeezed lines mislead it."""
TURNED = 0.9
"""How sure it must be before a line is turned."""


READ_SURE = 0.5
"""Lines that are read less surely than this are left out: mostly they are none."""


DOUBT = 0.8
"""How good a reading must be beside one that has the line the other way up than its page."""


FIRST_LINES = 64
TOGETHER = 8
"""Lines of one step of `pages`."""


class Reading(NamedTuple):
    """A line's text, and the mean probability of its letters: 0 to 1."""

    text: str
    score: float
    turned: bool
    """It stood on its head."""


class Strip(NamedTuple):
    """One line as it is to be read."""

    pixels: Bytes
    turned: bool | None = None
    """Whether it stands on its head; None: the turner looks."""


class Found(NamedTuple):
    """One line, not read yet."""

    corners: Floats
    """In pixels of the picture."""
    lies: bool
    """It runs up or down."""
    strip: Strip


class OcrModel:
    """Loaded and warm."""

    def __init__(self, resources: Resources, device: Device = "cpu") -> None:
        threads = resources.threads
        self._detector = open_session(resources.path(DETECTOR), threads, device=device)
        self._turner = open_session(resources.path(TURNER), threads, device=device)
        self._reader = open_session(resources.path(READER), threads, device=device)
        self._letters = _letters(self._reader)
        blank = np.full((HEIGHT, TURNER_WIDTH, 3), 255, np.uint8)
        seen = self._run(self._reader, [blank], TURNER_WIDTH)
        if seen.shape[-1] != len(self._letters):
            raise EngineFailed(f"The reader knows {len(self._letters)} letters, not {seen.shape}.")
        self.find(Image.new("RGB", (64, 64), "white"))

    def find(self, picture: Image.Image) -> list[Found]:
        """The lines of a picture that is RGB. Blocks: a second of one core for a page."""
        seen = sheet(picture)
        likely = self._run(self._detector, [seen.pixels], seen.pixels.shape[1])[0, 0]
        boxes = [seen.in_picture(one.corners, picture.size) for one in regions(likely)]
        boxes = [box for box in boxes if min(np.ptp(box, axis=0).tolist()) >= 1]
        return [
            Found(box, lies, Strip(line_pixels(picture, box, lies=lies)))
            for box, lies in zip(boxes, sideways(boxes), strict=True)
        ]

    def pages(self, picture: Image.Image, stopped: Callable[[], bool]) -> list[list[Line]] | None:
        """All of it for one picture, its first lines alone; None once it is `stopped`. Blocks."""
        found = sorted(self.find(picture), key=_top)[:FIRST_LINES]
        readings: dict[int, Reading] = {}
        by_width = sorted(range(len(found)), key=lambda at: found[at].strip.pixels.shape[1])
        for begin in range(0, len(found), TOGETHER):
            if stopped():
                return None
            step = by_width[begin : begin + TOGETHER]
            readings.update(zip(step, self.read([found[at].strip for at in step]), strict=True))
        said = [readings[at] for at in range(len(found))]
        for at, strip in self.doubts(found, said).items():
            said[at] = self.surer(said[at], self.read([strip])[0])
        return self.page(found, said)

    def read(self, strips: list[Strip]) -> list[Reading]:
        """What each line says; lines of like width are best read together. Blocks."""
        heads = self._heads(strips)
        upright = [
            strip.pixels[::-1, ::-1] if head else strip.pixels
            for strip, head in zip(strips, heads, strict=True)
        ]
        steps = self._run(self._reader, upright, max(line.shape[1] for line in upright))
        return [self._reading(*one) for one in zip(steps, heads, strict=True)]

    def _heads(self, strips: list[Strip]) -> list[bool]:
        """Which of the lines stand on their heads."""
        asked = [strip.pixels[:, :TURNER_WIDTH] for strip in strips if strip.turned is None]
        if not asked:
            return [bool(strip.turned) for strip in strips]
        sure = iter((self._run(self._turner, asked, TURNER_WIDTH)[:, 1] > TURNED).tolist())
        return [next(sure) if strip.turned is None else strip.turned for strip in strips]

    @staticmethod
    def doubts(found: list[Found], readings: list[Reading]) -> dict[int, Strip]:
        """Lines that were read the other way up than most of the page, to be read again."""
        votes = [
            one.strip.pixels.shape[1] * (1 if said.turned else -1)
            for one, said in zip(found, readings, strict=True)
        ]
        page = sum(votes) > 0
        return {
            at: Strip(found[at].strip.pixels, page)
            for at, said in enumerate(readings)
            if said.turned != page
        }

    @staticmethod
    def surer(first: Reading, again: Reading) -> Reading:
        """A doubted line's reading: that of the page's way, unless it is far the worse."""
        return first if again.score < DOUBT * first.score else again

    @staticmethod
    def page(found: list[Found], readings: list[Reading]) -> list[list[Line]]:
        """What was read surely enough, in rows as a reader goes through them."""
        return rows(
            [
                written(_line(one, said), lies=one.lies, turned=said.turned)
                for one, said in zip(found, readings, strict=True)
                if said.text and said.score >= READ_SURE
            ]
        )

    def _reading(self, steps: Floats, turned: bool) -> Reading:  # noqa: FBT001 zip's
        """The likeliest letter of each step; what repeats is one letter, 0 is none."""
        best = steps.argmax(axis=1)
        kept = best != 0
        kept[1:] &= best[1:] != best[:-1]
        if not kept.any():
            return Reading("", 0.0, turned)
        places: list[int] = best[kept].tolist()
        text = "".join(self._letters[at] for at in places).strip()
        return Reading(text, float(steps.max(axis=1)[kept].mean()), turned)

    @staticmethod
    def _run(session: OnnxSession, pictures: list[Bytes], width: int) -> Floats:
        outputs = session.run({session.inputs[0]: floats(pictures, width)})
        return outputs[0].astype(np.float32, copy=False)


def _top(found: Found) -> float:
    return float(found.corners[:, 1].min())


def _line(found: Found, said: Reading) -> Line:
    box = tuple((float(x), float(y)) for x, y in found.corners)
    return Line(said.text, said.score, box)


def _letters(reader: OnnxSession) -> list[str]:
    """Of each output of the reader: none, the letters that stand in the file, a space."""
    told = reader.notes.get("character", "")
    if not told:
        raise EngineFailed("The reader's file does not say which letters it knows.")
    return ["", *told.splitlines(), " "]
