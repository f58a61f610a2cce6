"""Tasks on pictures against the library's own pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from inferd.errors import BadRequest
from inferd.tasks.base import Stopped
from inferd.tasks.classification import (
    Detected,
    ImageClassificationRequest,
    Labelled,
    ObjectDetectionRequest,
    ZeroShotImageRequest,
)
from inferd.tasks.media import Media
from tests.pictures import picture, picture_path
from tests.transformers.loaded import ending, events, loaded, pipeline
from tests.writing import media

pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]

Folder = Callable[[str], Path]
NAMES = ["chelsea.png", "coffee.png", "rocket.jpg", "china.jpg"]
LABELS = ("cat", "a cup of coffee", "Rocket!", "temple")


def opened(name: str) -> Image.Image:
    return Image.open(picture_path(name)).convert("RGB")


class TestImageClassification:
    async def test_labels_are_those_of_the_library(self, folder: Folder) -> None:
        known = pipeline("image-classification", folder("vit"))
        async with loaded("image-classification", folder("vit")) as engine:
            for name in NAMES:
                told = await ending(engine, ImageClassificationRequest("t/m", picture(name), 3))
                assert isinstance(told, Labelled)
                wanted = known(opened(name), top_k=3)
                assert [one.label for one in told.labels] == [one["label"] for one in wanted]
                scores = [one["score"] for one in wanted]
                assert [one.score for one in told.labels] == pytest.approx(scores, abs=1e-4)
                assert told.usage.quantity > 0

    async def test_pictures_together_are_as_pictures_alone(self, folder: Folder) -> None:
        asked = [ImageClassificationRequest("t/m", picture(name)) for name in NAMES]
        async with loaded("image-classification", folder("vit")) as engine:
            together = await asyncio.gather(*(ending(engine, one) for one in asked))
            for one, told in zip(asked, together, strict=True):
                alone = await ending(engine, one)
                assert [x.label for x in told.labels] == [x.label for x in alone.labels]


class TestObjectDetection:
    @pytest.mark.parametrize("name", ["detr", "rt_detr", "yolos"])
    @pytest.mark.parametrize("threshold", [0.0, 0.2])
    async def test_objects_are_those_of_the_library(
        self, folder: Folder, name: str, threshold: float
    ) -> None:
        known = pipeline("object-detection", folder(name))
        async with loaded("object-detection", folder(name)) as engine:
            for shown in NAMES:
                asked = ObjectDetectionRequest("t/m", picture(shown), threshold)
                told = await ending(engine, asked)
                assert isinstance(told, Detected)
                wanted = sorted(known(opened(shown), threshold=threshold), key=_sureness)
                assert [one.label for one in told.objects] == [one["label"] for one in wanted]
                scores = [one["score"] for one in wanted]
                assert [one.score for one in told.objects] == pytest.approx(scores, abs=1e-4)
                wide, high = opened(shown).size
                for one, other in zip(told.objects, wanted, strict=True):
                    box = other["box"]
                    assert abs(one.xmin - min(max(box["xmin"], 0), wide)) <= 1
                    assert abs(one.ymax - min(max(box["ymax"], 0), high)) <= 1
                    assert 0 <= one.xmin <= one.xmax <= wide
                    assert 0 <= one.ymin <= one.ymax <= high

    async def test_pictures_of_unlike_sizes_together_are_as_alone(self, folder: Folder) -> None:
        asked = [ObjectDetectionRequest("t/m", picture(name), 0.0) for name in NAMES]
        async with loaded("object-detection", folder("detr")) as engine:
            together = await asyncio.gather(*(ending(engine, one) for one in asked))
            for one, told in zip(asked, together, strict=True):
                alone = await ending(engine, one)
                assert len(told.objects) == len(alone.objects) == 9
                scores = [found.score for found in alone.objects]
                assert [found.score for found in told.objects] == pytest.approx(scores, abs=1e-3)


class TestZeroShot:
    async def test_clips_scores_are_those_of_the_library(self, folder: Folder) -> None:
        known = pipeline("zero-shot-image-classification", folder("clip"))
        async with loaded("zero-shot-image-classification", folder("clip")) as engine:
            for name in NAMES:
                asked = ZeroShotImageRequest("t/m", picture(name), LABELS)
                told = await ending(engine, asked)
                wanted = known(
                    opened(name), candidate_labels=list(LABELS), hypothesis_template="a photo of {}"
                )
                assert [one.label for one in told.labels] == [one["label"] for one in wanted]
                scores = [one["score"] for one in wanted]
                assert [one.score for one in told.labels] == pytest.approx(scores, abs=1e-4)
                assert sum(scores) == pytest.approx(1)

    async def test_siglips_scores_are_those_of_the_library(self, folder: Folder) -> None:
        known = pipeline("zero-shot-image-classification", folder("siglip2"))
        async with loaded("zero-shot-image-classification", folder("siglip2")) as engine:
            for name in NAMES:
                asked = ZeroShotImageRequest("t/m", picture(name), LABELS)
                told = await ending(engine, asked)
                template = "this is a photo of {}."
                small = [label.lower() for label in LABELS]
                wanted = known(opened(name), candidate_labels=small, hypothesis_template=template)
                assert [one.label.lower() for one in told.labels] == [
                    one["label"] for one in wanted
                ]
                scores = [one["score"] for one in wanted]
                assert [one.score for one in told.labels] == pytest.approx(scores, abs=1e-4)
                assert len(set(scores)) == len(LABELS)

    @pytest.mark.parametrize(("name", "length"), [("clip", 40), ("siglip2", 64)])
    async def test_a_label_that_is_too_long(self, folder: Folder, name: str, length: int) -> None:
        async with loaded("zero-shot-image-classification", folder(name)) as engine:
            asked = ZeroShotImageRequest("t/m", picture("coffee.png"), ("cat", "a" * 80))
            with pytest.raises(BadRequest, match=f"more than the {length} tokens"):
                await ending(engine, asked)


class TestFaults:
    @pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"GIF89a", b""])
    async def test_what_is_no_picture_fails_alone(self, folder: Folder, content: bytes) -> None:
        broken = Media("image", "image/png", len(content), data=content)
        async with loaded("object-detection", folder("detr")) as engine:
            asked = [ObjectDetectionRequest("t/m", one) for one in (picture("coffee.png"), broken)]
            good, bad = await asyncio.gather(
                *(ending(engine, one) for one in asked), return_exceptions=True
            )
            assert isinstance(good, Detected)
            assert isinstance(bad, BadRequest)

    @pytest.mark.parametrize("size", [(2, 2), (3, 500), (500, 3)])
    @pytest.mark.parametrize(
        ("task", "name"), [("image-classification", "vit"), ("object-detection", "detr")]
    )
    async def test_odd_sizes(
        self, folder: Folder, task: str, name: str, size: tuple[int, int]
    ) -> None:
        image = media(Image.new("RGB", size, "white"))
        asked = {
            "vit": ImageClassificationRequest("t/m", image),
            "detr": ObjectDetectionRequest("t/m", image),
        }[name]
        async with loaded(task, folder(name)) as engine:  # type: ignore[arg-type]
            assert isinstance(await ending(engine, asked), Labelled | Detected)

    async def test_a_cancelled_request_stops(self, folder: Folder) -> None:
        cancel = asyncio.Event()
        cancel.set()
        async with loaded("image-classification", folder("vit")) as engine:
            asked = ImageClassificationRequest("t/m", picture("coffee.png"))
            (last,) = await events(engine, asked, cancel)
            assert isinstance(last, Stopped)
            assert last.usage.quantity > 0


def _sureness(found: dict[str, float]) -> float:
    return -found["score"]
