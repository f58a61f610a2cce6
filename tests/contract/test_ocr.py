"""Reading pages with the real networks: words, order, places, cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from inferd.catalog.card import PathSource
from inferd.engines.base import Resources
from inferd.engines.ocr import OcrEngine
from inferd.engines.ocr_model import OcrModel, Reading
from inferd.engines.ocr_regions import Floats
from inferd.errors import BadRequest
from inferd.tasks.base import Stopped
from inferd.tasks.classification import (
    ImageClassificationRequest,
    ReadDocument,
    ReadDocumentRequest,
)
from inferd.tasks.every import Event
from inferd.tasks.media import Media
from tests.pictures import picture
from tests.weights import local_card
from tests.writing import INVOICE, INVOICE_LINES, WHITE, media, page

MODEL = "RapidAI/RapidOCR"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OcrEngine]:
    card = local_card(MODEL)
    files = {one.role: one.source.path for one in card.files if isinstance(one.source, PathSource)}
    resources = Resources(files, threads=2, runtime_dir=str(tmp_path_factory.mktemp("ocr")))
    made = OcrEngine()
    await asyncio.to_thread(made.load, card, resources)
    yield made
    await made.close()


async def events(engine: OcrEngine, image: Media, cancel: asyncio.Event | None = None) -> Event:
    """The one event."""
    request = ReadDocumentRequest(MODEL, image)
    (ending,) = [event async for event in engine.run(request, cancel or asyncio.Event())]
    return ending


async def read(engine: OcrEngine, image: Media) -> ReadDocument:
    ending = await events(engine, image)
    assert isinstance(ending, ReadDocument)
    return ending


def texts(ending: ReadDocument) -> list[str]:
    return [line.text for line in ending.lines]


class TestPages:
    async def test_an_invoice_is_read_row_by_row(self, engine: OcrEngine) -> None:
        ending = await read(engine, media(page(INVOICE)))
        assert texts(ending) == INVOICE_LINES
        assert min(line.score for line in ending.lines) > 0.9
        assert 0 < ending.usage.quantity < 60_000_000

    @pytest.mark.parametrize("degrees", [90, 180, 270])
    async def test_a_page_on_its_side_or_its_head(self, engine: OcrEngine, degrees: int) -> None:
        turned = page(INVOICE).rotate(degrees, expand=True)
        assert texts(await read(engine, media(turned))) == INVOICE_LINES

    async def test_a_skewed_page(self, engine: OcrEngine) -> None:
        skewed = page(INVOICE).rotate(6, Image.Resampling.BICUBIC, expand=True, fillcolor=WHITE)
        said = [text.replace(" ", "") for text in texts(await read(engine, media(skewed)))]
        assert said == [text.replace(" ", "") for text in INVOICE_LINES]

    async def test_boxes_lie_round_the_words(self, engine: OcrEngine) -> None:
        drawn = page(INVOICE)
        ink = np.asarray(drawn.convert("L")) < 128
        outside = ink.copy()
        for line in (await read(engine, media(drawn))).lines:
            (left, top), _, (right, bottom), _ = line.box
            inside = ink[round(top) : round(bottom), round(left) : round(right)]
            assert inside.mean() > 0.05
            outside[round(top) : round(bottom), round(left) : round(right)] = False
        assert not outside.any()

    async def test_long_lines_keep_their_heads(self, engine: OcrEngine) -> None:
        words = "the quick brown fox jumps over the lazy dog, again and again and again"
        lines = [[f"{at}: {words}"] for at in range(10, 16)]
        assert texts(await read(engine, media(page(lines, 20)))) == [line[0] for line in lines]

    async def test_letters_alone_follow_the_page(self, engine: OcrEngine) -> None:
        lines = [[f"Line {at}", str(at)] for at in range(10, 20)] + [["Six", "6"], ["Nine", "9"]]
        said = texts(await read(engine, media(page(lines))))
        assert said == [cell for row in lines for cell in row]

    async def test_a_printed_page(self, engine: OcrEngine) -> None:
        said = texts(await read(engine, picture("page.png")))
        assert said[0] == "Region-based segmentation"
        assert "Let us first determine markers of the coins and the" in said
        assert "unambiguously as either object or background. Here," in said

    async def test_a_page_without_writing(self, engine: OcrEngine) -> None:
        ending = await read(engine, media(Image.new("RGB", (300, 200), WHITE)))
        assert ending.lines == ()
        assert ending.usage.quantity > 0

    @pytest.mark.parametrize("size", [(2, 2), (16_384, 2), (2, 16_384)])
    async def test_odd_sizes(self, engine: OcrEngine, size: tuple[int, int]) -> None:
        assert (await read(engine, media(Image.new("RGB", size, WHITE)))).lines == ()

    async def test_pages_together_are_read_as_alone(self, engine: OcrEngine) -> None:
        pages = [media(page([[f"Page {at}", str(1000 + at)]])) for at in range(5)]
        endings = await asyncio.gather(*(read(engine, one) for one in pages))
        assert [texts(one) for one in endings] == [
            [f"Page {at}", str(1000 + at)] for at in range(5)
        ]


class TestFaults:
    async def test_what_is_no_picture(self, engine: OcrEngine) -> None:
        with pytest.raises(BadRequest, match="not a sound picture"):
            await events(engine, Media("image", "image/png", 4, data=b"\x89PNG"))

    async def test_too_many_pixels(self, engine: OcrEngine) -> None:
        with pytest.raises(BadRequest, match="at most"):
            await events(engine, media(Image.new("1", (16_385, 16))))

    async def test_more_writing_than_is_paid_for(
        self, engine: OcrEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inferd.engines.ocr.PAGE_WIDTH_MAX", 1000)
        with pytest.raises(BadRequest, match="too much writing"):
            await events(engine, media(page(INVOICE)))

    async def test_another_task(self, engine: OcrEngine) -> None:
        request = ImageClassificationRequest(MODEL, media(page(INVOICE)))
        with pytest.raises(BadRequest, match="ocr"):
            _ = [event async for event in engine.run(request, asyncio.Event())]


class TestCancel:
    async def test_before_it_starts(self, engine: OcrEngine) -> None:
        cancel = asyncio.Event()
        cancel.set()
        ending = await events(engine, media(page(INVOICE)), cancel)
        assert isinstance(ending, Stopped)
        assert ending.usage.quantity > 0

    async def test_in_the_middle_of_a_page(
        self, engine: OcrEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cancel, loop = asyncio.Event(), asyncio.get_running_loop()
        read: list[str] = []
        whole = OcrModel._reading  # pyright: ignore[reportPrivateUsage]

        def reading(self: OcrModel, steps: Floats, turned: bool) -> Reading:
            told = whole(self, steps, turned)
            read.append(told.text)
            loop.call_soon_threadsafe(cancel.set)
            return told

        monkeypatch.setattr(OcrModel, "_reading", reading)
        lines = [[f"Line {at}", str(at)] for at in range(40)]
        ending = await events(engine, media(page(lines)), cancel)
        assert isinstance(ending, Stopped)
        assert 0 < len(read) < 80
        assert ending.usage.quantity > 0


class TestPagesAtOnce:
    async def test_they_say_the_same_and_stop_between_steps(self) -> None:
        card = local_card(MODEL)
        files = {
            one.role: one.source.path for one in card.files if isinstance(one.source, PathSource)
        }
        model = OcrModel(Resources(files, threads=2, runtime_dir=""))
        rows = model.pages(page(INVOICE), lambda: False)
        assert rows is not None
        assert [[line.text for line in row] for row in rows] == INVOICE
        assert model.pages(page(INVOICE), lambda: True) is None
