"""What the zero-shot engines share, with towers that count."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from inferd.catalog.card import ModelCard
from inferd.engines.base import Resources
from inferd.engines.onnx import Array
from inferd.engines.zero_shot import Towers, ZeroShotEngine
from inferd.errors import BadRequest
from inferd.tasks.base import Stopped
from inferd.tasks.classification import Labelled, ZeroShotImageRequest
from inferd.tasks.every import Event
from inferd.tasks.media import Media

CARD = ModelCard(
    name="t/zero",
    task="zero-shot-image-classification",
    engine="none",
    licence="none",
    summary="Likes long labels.",
    free=True,
)


class CountingTowers:
    """A label's vector is its length; a picture likes long ones."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def prepared(self, media: Media) -> Array:
        return np.zeros(1)

    def pictures(self, prepared: list[Array]) -> list[Array]:
        return [np.ones(1) for _ in prepared]

    def labels(self, labels: list[str]) -> list[Array]:
        self.asked.append(sorted(labels))
        if "bad" in labels:
            raise BadRequest("bad label", param="candidate_labels")
        return [np.array([float(len(label))]) for label in labels]

    def scores(self, picture: Array, labels: list[Array]) -> list[float]:
        return [float(one @ picture) for one in labels]


class CountingEngine(ZeroShotEngine):
    def __init__(self) -> None:
        super().__init__()
        self.towers = CountingTowers()

    def open(self, card: ModelCard, resources: Resources) -> Towers:
        return self.towers


@pytest.fixture
def engine() -> CountingEngine:
    made = CountingEngine()
    made.load(CARD, Resources({}, 1, "/nowhere"))
    return made


async def ask(engine: ZeroShotEngine, *labels: str, cancelled: bool = False) -> Event:
    cancel = asyncio.Event()
    if cancelled:
        cancel.set()
    request: Any = ZeroShotImageRequest("t/zero", Media("image", "", 0, data=b""), labels)
    seen = [event async for event in engine.run(request, cancel)]
    return seen[-1]


async def test_labels_come_best_first_and_are_computed_once(engine: CountingEngine) -> None:
    first = await ask(engine, "a", "ccc", "bb", "a")
    assert isinstance(first, Labelled)
    assert [one.label for one in first.labels] == ["ccc", "bb", "a", "a"]
    assert first.usage.quantity > 0
    await ask(engine, "bb", "dddd")
    assert engine.towers.asked == [["a", "bb", "ccc"], ["dddd"]]


async def test_a_label_that_fails_takes_no_other_request_with_it(engine: CountingEngine) -> None:
    good, bad = await asyncio.gather(
        ask(engine, "abc", "abd"), ask(engine, "bad", "abe"), return_exceptions=True
    )
    assert isinstance(good, Labelled)
    assert isinstance(bad, BadRequest)


async def test_a_cancelled_request_says_stopped(engine: CountingEngine) -> None:
    last = await ask(engine, "a", cancelled=True)
    assert isinstance(last, Stopped)
    assert last.usage.quantity > 0
    assert engine.towers.asked == []
