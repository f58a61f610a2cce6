"""Reads what is written in a picture: PaddleOCR's networks on ONNX Runtime.

Files: `detector` (where lines are), `turner` (which way up a line is) and `reader` (what it says;
its letters stand in the file's metadata), all ONNX, as RapidOCR packages them. What is between
the networks is ocr_regions.py and ocr_lines.py; neither OpenCV nor RapidOCR is needed.

A page's lines are read in batches that requests share, so a short text does not wait for the end
of a long page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources, unsupported
from inferd.engines.batching import Batches, Shape
from inferd.engines.compute_time import computed, measured, shared
from inferd.errors import BadRequest
from inferd.tasks.base import Stopped
from inferd.tasks.classification import Line, ReadDocument, ReadDocumentRequest
from inferd.tasks.every import Event

if TYPE_CHECKING:
    from PIL.Image import Image

    from inferd.engines.ocr_model import Found, OcrModel, Reading, Strip

STEP_LINES_MAX = 16
STEP_WIDTH_MAX = 3200
"""Pixels of all lines of a step, which takes some tenths of a second."""
PAGE_WIDTH_MAX = 600_000
"""Pixels of all lines of a page as the reader sees them, some 40,000 letters: a minute of one
core, which is what money is set aside for."""
MEMORY_BYTES = 900 << 20
"""A decoded picture of 50 million pixels and the activations of a page."""


Item = TypeVar("Item")
Result = TypeVar("Result")


class _Loaded(NamedTuple):
    model: OcrModel
    pages: Batches[Image, tuple[list[Found], float]]
    lines: Batches[Strip, tuple[Reading, float]]


class _Spent:
    """Seconds of computing so far."""

    seconds = 0.0


class OcrEngine:
    """One set of networks."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Open the networks and warm up."""
        from inferd.engines.ocr_model import OcrModel
        from inferd.engines.onnx import device_of

        model = OcrModel(resources, device_of(card))

        def find(pictures: list[Image]) -> list[list[Found]]:
            return [model.find(picture) for picture in pictures]

        self._loaded = _Loaded(
            model,
            Batches(shared(find), Shape(1, 1), "pages"),
            Batches(shared(model.read), Shape(STEP_LINES_MAX, STEP_WIDTH_MAX), "lines"),
        )
        return Features(("document-to-text",), card.slots, 0)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Decode, find the lines, read them."""
        if not isinstance(request, ReadDocumentRequest):
            raise unsupported("ocr", request)
        assert self._loaded is not None, "nothing runs before it is loaded"
        from inferd.engines.decode_image import decode_image

        spent = _Spent()
        picture, spent.seconds = await asyncio.to_thread(measured(decode_image), request.image)
        page = await self._page(self._loaded, picture, cancel, spent)
        if page is None:
            yield Stopped(computed(spent.seconds))
            return
        yield ReadDocument(tuple(line for row in page for line in row), computed(spent.seconds))

    async def _page(
        self, loaded: _Loaded, picture: Image, cancel: asyncio.Event, spent: _Spent
    ) -> list[list[Line]] | None:
        """What is written, in rows; None when cancelled."""
        pages = await _all(loaded.pages, {0: picture}, {0: 1}, cancel, spent)
        if not pages:
            return None
        found = pages[0]
        strips = {at: one.strip for at, one in enumerate(found)}
        if sum(strip.pixels.shape[1] for strip in strips.values()) > PAGE_WIDTH_MAX:
            raise BadRequest(
                f"image holds too much writing ({len(found)} lines); send it in parts.",
                param="image",
            )
        read = await _lines(loaded, strips, cancel, spent)
        if len(read) < len(found):
            return None
        readings = [read[at] for at in range(len(found))]
        doubts = loaded.model.doubts(found, readings)
        again = await _lines(loaded, doubts, cancel, spent)
        if len(again) < len(doubts):
            return None
        for at, said in again.items():
            readings[at] = loaded.model.surer(readings[at], said)
        return loaded.model.page(found, readings)

    async def close(self) -> None:
        """Let the running steps end."""
        if self._loaded is not None:
            await self._loaded.pages.close()
            await self._loaded.lines.close()

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """The weights twice, a picture, a page."""
        size = sum(path.stat().st_size for path in files.values() if path.exists())
        declared = sum(file.size_bytes for file in card.files)
        return 2 * max(size, declared) + MEMORY_BYTES


async def _lines(
    loaded: _Loaded, strips: dict[int, Strip], cancel: asyncio.Event, spent: _Spent
) -> dict[int, Reading]:
    """Lines by their number; fewer when cancelled."""
    sizes = {at: strip.pixels.shape[1] for at, strip in strips.items()}
    return await _all(loaded.lines, strips, sizes, cancel, spent)


async def _all(
    batches: Batches[Item, tuple[Result, float]],
    items: dict[int, Item],
    sizes: dict[int, int],
    cancel: asyncio.Event,
    spent: _Spent,
) -> dict[int, Result]:
    """Results by the same numbers; fewer when cancelled."""
    names = list(items)
    results: dict[int, Result] = {}
    async for index, (result, share) in batches.run(
        list(items.values()), list(sizes.values()), cancel
    ):
        results[names[index]] = result
        spent.seconds += share
    return results
