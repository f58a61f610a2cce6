"""The two towers of ConSE. Imported in workers only."""

from __future__ import annotations

import numpy as np

from inferd.catalog.card import ModelCard
from inferd.engines.base import Resources
from inferd.engines.classifier_model import ClassifierModel, softmax
from inferd.engines.encoder_model import EncoderModel
from inferd.engines.onnx import Array, device_of
from inferd.engines.two_towers import unit
from inferd.errors import BadRequest
from inferd.tasks.media import Media

LABEL_TOKENS_MAX = 128
_STEP = 64


class ConseTowers:
    """A classifier whose classes lie among words."""

    def __init__(self, card: ModelCard, resources: Resources) -> None:
        path, threads = resources.path, resources.threads
        self._classifier = ClassifierModel(card, path("classifier"), path("classes"), threads)
        self._encoder = EncoderModel(
            path("encoder"), path("tokenizer"), "mean", threads, device_of(card)
        )
        self._mixed = int(str(card.options.get("classes_mixed", 10)))
        self._sharpness = float(str(card.options.get("sharpness", 20)))
        self._template = str(card.options.get("label_template", "a photo of a {}"))
        words = [name.partition(",")[0] for name in self._classifier.classes]
        placed = self._embed(words)
        self._middle = placed.mean(axis=0)
        """Where everything is a photo of something: no difference is to be seen in it."""
        self._places = placed - self._middle

    def prepared(self, media: Media) -> Array:
        """Pixels of the classifier."""
        return self._classifier.input.prepared(media)

    def pictures(self, prepared: list[Array]) -> list[Array]:
        """Where the classes that it may be lie, in the mean."""
        found = np.stack(self._classifier.probabilities(prepared))
        best = np.argsort(-found, axis=1, kind="stable")[:, : self._mixed]
        weights = np.take_along_axis(found, best, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        return list(unit((weights[..., None] * self._places[best]).sum(axis=1)))

    def labels(self, labels: list[str]) -> list[Array]:
        """Where the words lie."""
        return list(unit(self._embed(labels) - self._middle))

    def scores(self, picture: Array, labels: list[Array]) -> list[float]:
        """A softmax over all labels: they sum to 1."""
        told: list[float] = softmax(self._sharpness * (np.stack(labels) @ picture)).tolist()
        return told

    def _embed(self, words: list[str]) -> Array:
        rows = self._encoder.ids([self._template.replace("{}", word) for word in words])
        for word, row in zip(words, rows, strict=True):
            if len(row) > LABEL_TOKENS_MAX:
                raise BadRequest(
                    f"The label {word[:40]!r}… has {len(row)} tokens of {LABEL_TOKENS_MAX}.",
                    param="candidate_labels",
                )
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        found: dict[int, Array] = {}
        for start in range(0, len(order), _STEP):
            step = order[start : start + _STEP]
            found |= dict(zip(step, self._encoder.embed([rows[at] for at in step]), strict=True))
        return unit(np.stack([found[at] for at in range(len(rows))]))
