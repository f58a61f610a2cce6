"""Zero-shot image classification by ConSE, the convex combination of semantic embeddings.

A classifier says which of its classes a picture may show; the picture's place among words is the
mean of those classes' names, weighted by their probabilities, and the label nearest to it fits
best (Norouzi and others, 2013, arXiv:1312.5650). It needs no network trained on pictures with
captions, and knows only what the classifier's classes are made of.

Files: `classifier` and `classes` (as onnx_classifier.py takes them), `encoder` and `tokenizer` (a
sentence encoder). Options: those of picture_input.py, and

    classes_mixed    10        the likeliest classes that count
    sharpness        20        cosines are multiplied by this before the softmax
    label_template   "a photo of a {}"
"""

from __future__ import annotations

from inferd.catalog.card import ModelCard
from inferd.engines.base import Resources
from inferd.engines.zero_shot import Towers, ZeroShotEngine


class ConseEngine(ZeroShotEngine):
    """One classifier and one sentence encoder."""

    def open(self, card: ModelCard, resources: Resources) -> Towers:
        """Load both, and place the classes among words."""
        from inferd.engines.conse_towers import ConseTowers

        return ConseTowers(card, resources)
