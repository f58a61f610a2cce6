"""A causal language model in ONNX, step by step. Imported in workers only.

The export takes `inputs_embeds`, `attention_mask`, `past_key_values.{n}.key` and `.value`, and
`position_ids` where it has positions of its own; it tells `logits` first, and `present.{n}.key`
and `.value`. How many layers and heads there are is read from the file.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inferd.engines.onnx import Array, Device, library_session, on_gpu
from inferd.errors import EngineFailed

_PAST, _PRESENT = "past_key_values.", "present."
_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class _Cached(NamedTuple):
    """One input that holds keys or values."""

    name: str
    heads: int
    width: int
    type: type[np.generic]


class Heard:
    """What the model has read so far: its keys and values, on the model's device."""

    def __init__(self, cache: list[Any]) -> None:
        self.cache = cache
        self.length = 0


class OnnxLanguageModel:
    """One loaded model. Thread-safe; one `Heard` is for one thread at a time."""

    def __init__(self, path: Path, threads: int, device: Device = "cpu") -> None:
        self._session = library_session(path, threads, device)
        self._device = "cuda" if on_gpu(self._session) else "cpu"
        inputs = {str(one.name): one for one in self._session.get_inputs()}
        self.positions = "position_ids" in inputs
        self._cached = [_cached(one) for name, one in inputs.items() if name.startswith(_PAST)]
        outputs = [str(one.name) for one in self._session.get_outputs()]
        present = [_PRESENT + one.name.removeprefix(_PAST) for one in self._cached]
        if "inputs_embeds" not in inputs or not present or not {*present} <= {*outputs}:
            raise EngineFailed(f"{path.name} is no language model that takes embeddings.")
        self._embeds: type[np.generic] = _TYPES.get(inputs["inputs_embeds"].type, np.float32)
        self._outputs = [outputs[0], *present]

    def begin(self) -> Heard:
        """Nothing heard yet."""
        values: Any = import_module("onnxruntime").OrtValue
        empty = [np.zeros((1, one.heads, 0, one.width), one.type) for one in self._cached]
        return Heard([values.ortvalue_from_numpy(each, self._device, 0) for each in empty])

    def step(self, heard: Heard, embeds: Array) -> Array:
        """Hear embeddings of shape (1, n, width) and tell the logits behind the last, float32."""
        count = embeds.shape[1]
        total = heard.length + count
        binding: Any = self._session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(embeds, self._embeds))
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        if self.positions:
            binding.bind_cpu_input("position_ids", np.arange(heard.length, total)[None])
        for one, value in zip(self._cached, heard.cache, strict=True):
            binding.bind_ortvalue_input(one.name, value)
        binding.bind_output(self._outputs[0])
        for name in self._outputs[1:]:
            binding.bind_output(name, self._device, 0)
        self._session.run_with_iobinding(binding)
        logits, *heard.cache = binding.get_outputs()
        heard.length = total
        told: Array = logits.numpy()
        return told.reshape(-1, told.shape[-1])[-1].astype(np.float32)


def _cached(one: Any) -> _Cached:
    """From the graph's own declaration: (batch, heads, heard, width)."""
    _, heads, _, width = one.shape
    if not (isinstance(heads, int) and isinstance(width, int)) or one.type not in _TYPES:
        raise EngineFailed(f"The input {one.name} does not say how large it is.")
    return _Cached(str(one.name), heads, width, _TYPES[one.type])
