"""How alike a picture and its labels are, for CLIP's kind and SigLIP's. In workers only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inferd.engines.classifier_model import softmax
from inferd.engines.onnx import Array


class Likeness(NamedTuple):
    """What cosines become."""

    scale: float
    bias: float | None
    """SigLIP's: each label has a probability of its own. None: CLIP's softmax over all."""

    def scores(self, picture: Array, labels: list[Array]) -> list[float]:
        """One for each label, from vectors of length 1."""
        logits = self.scale * (np.stack(labels) @ picture)
        if self.bias is None:
            whole: list[float] = softmax(logits).tolist()
            return whole
        single: list[float] = (1 / (1 + np.exp(-(logits + self.bias)))).tolist()
        return single


def unit(vectors: Array) -> Array:
    """Each vector with length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
