"""CLIP and SigLIP through transformers, as two towers. Imported in workers only."""

from __future__ import annotations

from typing import Any

import numpy as np

from inferd.catalog.card import ModelCard
from inferd.engines.base import Resources
from inferd.engines.decode_image import decode_image
from inferd.engines.onnx import Array
from inferd.engines.transformers_model import Library
from inferd.engines.two_towers import Likeness, unit
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.media import Media

_LENGTH = 64
"""SigLIP's texts, padded to the full; CLIP's own length is in its config."""


class TransformersTowers:
    """One model with two towers."""

    def __init__(self, card: ModelCard, resources: Resources) -> None:
        self._library = Library(card, resources.path("model"), resources.threads)
        model: Any = self._library.model
        if not hasattr(model, "get_text_features") or not hasattr(model, "logit_scale"):
            raise EngineFailed("The model does not compare pictures with texts.")
        if self._library.config.model_type == "siglip2":
            raise EngineFailed("SigLIP 2 with pictures of any shape (naflex) is not supported.")
        self._tokenizer: Any = self._library.tokenizer()
        self._processor: Any = self._library.image_processor()
        text: Any = self._library.config.text_config
        self._length = int(getattr(text, "max_position_embeddings", _LENGTH))
        bias: Any = getattr(model, "logit_bias", None)
        self._likeness = Likeness(
            scale=float(model.logit_scale.exp().item()),
            bias=None if bias is None else float(bias.item()),
        )
        template = "a photo of {}" if bias is None else "this is a photo of {}."
        self._template = str(card.options.get("label_template", template))

    def prepared(self, media: Media) -> Array:
        """Pixels of one picture."""
        made: Any = self._processor(images=[decode_image(media)], return_tensors="np")
        pixels: Array = made["pixel_values"][0]
        return pixels

    def pictures(self, prepared: list[Array]) -> list[Array]:
        """One vector each."""
        found = self._library.call("get_image_features", {"pixel_values": np.stack(prepared)})
        return list(unit(found))

    def labels(self, labels: list[str]) -> list[Array]:
        """One vector each; BadRequest when one is too long."""
        texts = [self._template.replace("{}", label) for label in labels]
        if self._likeness.bias is not None:
            # SigLIP learnt from small letters, and not each of its tokenizers makes them.
            texts = [text.lower() for text in texts]
        coded: Any = self._tokenizer(
            texts, padding="max_length", max_length=self._length, return_tensors="np", verbose=False
        )
        ids: Array = coded["input_ids"]
        if ids.shape[1] > self._length:
            raise BadRequest(
                f"A label has more than the {self._length} tokens of the model.",
                param="candidate_labels",
            )
        feeds = {"input_ids": ids}
        if "attention_mask" in coded:
            feeds["attention_mask"] = coded["attention_mask"]
        return list(unit(self._library.call("get_text_features", feeds)))

    def scores(self, picture: Array, labels: list[Array]) -> list[float]:
        """CLIP: one of them; SigLIP: each by itself."""
        return self._likeness.scores(picture, labels)
