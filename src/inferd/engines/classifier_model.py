"""A picture classifier in ONNX: pixels in, one probability for each class out. In workers only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inferd.catalog.card import ModelCard
from inferd.engines.onnx import Array, device_of, open_session
from inferd.engines.picture_input import PictureInput, Pixels
from inferd.errors import EngineFailed
from inferd.tasks.classification import Label


class ClassifierModel:
    """The network and the names of its classes. Thread-safe."""

    def __init__(self, card: ModelCard, model: Path, classes: Path, threads: int) -> None:
        self._session = open_session(model, threads, device=device_of(card))
        self.input = PictureInput(card)
        self.classes = tuple(classes.read_text("utf-8").splitlines())
        side = self.input.side
        seen = self.probabilities([np.zeros((3, side, side), np.float32)])[0]
        if seen.shape != (len(self.classes),):
            raise EngineFailed(
                f"{model.name} has outputs of shape {seen.shape} and {len(self.classes)} names."
            )

    def probabilities(self, pictures: list[Pixels]) -> list[Array]:
        """Of each picture, over all classes."""
        logits = self._session.run({self._session.inputs[0]: np.stack(pictures)})[0]
        return list(softmax(logits.astype(np.float32)))

    def likeliest(self, probabilities: Array, top: int) -> tuple[Label, ...]:
        """The best classes with their probabilities."""
        order = np.argsort(-probabilities, kind="stable")[:top]
        places: list[int] = order.tolist()
        return tuple(Label(self.classes[at], float(probabilities[at])) for at in places)


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
