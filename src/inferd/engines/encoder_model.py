"""An encoder and its tokenizer: token ids in, one vector each out. Imported in workers only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from inferd.engines.onnx import Array, Device, open_session, padded

Pooling = Literal["mean", "cls", "last"]
Vector = NDArray[np.float32]


class EncoderModel:
    """A BERT-like encoder in ONNX. Thread-safe."""

    def __init__(
        self,
        model: Path,
        tokenizer: Path,
        pooling: Pooling,
        threads: int,
        device: Device = "cpu",
    ) -> None:
        self._session = open_session(model, threads, device=device)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pooling = pooling
        self.vocabulary_size = self._tokenizer.get_vocab_size()
        self._named = "sentence_embedding" if "sentence_embedding" in self._session.outputs else ""
        self.dimensions = int(self.embed([self.ids(["warm up"])[0]])[0].shape[0])

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special ones included."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def embed(self, rows: list[list[int]]) -> list[Vector]:
        """One pooled vector of each row, not normalised."""
        ids, mask = padded(rows)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        told = self._session.run({name: feeds[name] for name in self._session.inputs})
        if self._named:
            return list(told[self._session.outputs.index(self._named)].astype(np.float32))
        return list(self._pooled(told[0], mask))

    def _pooled(self, hidden: Array, mask: Array) -> Array:
        if self._pooling == "cls":
            return hidden[:, 0]
        if self._pooling == "last":
            return hidden[np.arange(len(mask)), mask.sum(1) - 1]
        weights = mask[..., None].astype(np.float32)
        return (hidden * weights).sum(1) / weights.sum(1)


def shaped(vectors: list[Vector], dimensions: int | None, *, normalize: bool) -> Vector:
    """The vectors as one float32 matrix, cut or padded with zeros to `dimensions`."""
    matrix = np.stack(vectors).astype(np.float32)
    if dimensions is not None and dimensions < matrix.shape[1]:
        matrix = matrix[:, :dimensions]
    if normalize:
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        matrix = matrix / np.maximum(lengths, 1e-12)
    if dimensions is not None and dimensions > matrix.shape[1]:
        matrix = np.pad(matrix, ((0, 0), (0, dimensions - matrix.shape[1])))
    return np.ascontiguousarray(matrix, dtype="<f4")
