"""The border to torch and transformers, which have no types that are of use: load and compute.

Imported in workers only. Weights are read from safetensors and nothing else; no code of a model's
folder is ever run, and nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from inferd.catalog.card import ModelCard
from inferd.engines.onnx import Array
from inferd.errors import EngineFailed
from inferd.tasks.base import TaskName

_CLASSES: dict[TaskName, str] = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "zero-shot-image-classification": "AutoModel",
}
_CONFIG_BYTES_MAX = 16 << 20


class Library:
    """One loaded model of transformers."""

    def __init__(self, card: ModelCard, folder: Path, threads: int) -> None:
        _check(folder)
        self._torch: Any = import_module("torch")
        self._transformers: Any = import_module("transformers")
        self._torch.set_num_threads(threads)
        self._transformers.utils.logging.set_verbosity_error()
        self._transformers.utils.logging.disable_progress_bar()
        self._folder = folder
        self.model: Any
        self.device = "cuda" if self._torch.cuda.is_available() else "cpu"
        chosen: Any = getattr(self._transformers, _CLASSES[card.task])
        dtype: Any = getattr(self._torch, str(card.options.get("dtype", "float32")))
        loaded: Any = self._loaded(
            chosen, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        self.model, told = loaded
        if told["missing_keys"]:
            # The library would fill them with random numbers and answer all the same.
            raise EngineFailed(
                f"The model's weights are not those of a model for {card.task}.",
                detail=f"missing: {sorted(told['missing_keys'])}"[:500],
            )
        self.model.to(self.device).eval()
        self.config: Any = self.model.config

    def tokenizer(self) -> Any:
        """A fast tokenizer, which knows where its tokens stand in the text."""
        found: Any = self._loaded(self._transformers.AutoTokenizer, use_fast=True)
        if not found.is_fast:
            raise EngineFailed("The model's tokenizer is not one that tells where its tokens are.")
        return found

    def image_processor(self) -> Any:
        """What makes a picture fit the model."""
        return self._loaded(self._transformers.AutoImageProcessor)

    def labels(self) -> list[str]:
        """Names of the outputs, in order."""
        names: dict[int, str] = {int(at): str(one) for at, one in self.config.id2label.items()}
        return [names.get(at, f"LABEL_{at}") for at in range(max(names) + 1)]

    def run(self, feeds: Mapping[str, Array]) -> Any:
        """The model's outputs, as the library has them."""
        with self._torch.inference_mode():
            return self.model(**self.tensors(feeds))

    def call(self, method: str, feeds: Mapping[str, Array]) -> Array:
        """One method of the model, as floats; of an output with a pooled part, that part."""
        with self._torch.inference_mode():
            told: Any = getattr(self.model, method)(**self.tensors(feeds))
        return floats(getattr(told, "pooler_output", told))

    def tensors(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Arrays on the model's device; floats in its type."""
        made: dict[str, Any] = {}
        for name, array in feeds.items():
            tensor: Any = self._torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
            made[name] = tensor.to(self.model.dtype) if tensor.is_floating_point() else tensor
        return made

    def _loaded(self, factory: Any, **options: Any) -> Any:
        try:
            return factory.from_pretrained(
                str(self._folder), local_files_only=True, trust_remote_code=False, **options
            )
        except Exception as error:
            # The library's errors have no common class but Exception.
            raise EngineFailed(
                "transformers cannot load this model's files.", detail=repr(error)[:500]
            ) from error


def floats(tensor: Any) -> Array:
    """A tensor as float32."""
    return cast("Array", tensor.float().cpu().numpy())


def _check(folder: Path) -> None:
    """Refuse what would run code: custom classes, and weights that are pickles."""
    try:
        text = (folder / "config.json").read_bytes()[:_CONFIG_BYTES_MAX]
        config: Any = json.loads(text)
    except (OSError, ValueError) as error:
        raise EngineFailed("The model's folder has no sound config.json.") from error
    if not isinstance(config, dict) or "auto_map" in config:
        raise EngineFailed("The model brings code of its own, which is never run here.")
    if not any(folder.glob("*.safetensors")):
        raise EngineFailed("The model's folder has no safetensors; no other weights are read.")
