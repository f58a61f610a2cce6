"""Rows of a GGUF tensor as float32. Imported in workers only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferd.catalog.gguf_header import read_header
from inferd.catalog.gguf_types import F16, F32, Q8_0, Tensor, tensor_bytes
from inferd.errors import EngineFailed

Matrix = NDArray[np.float32]

_Q8_0_BLOCK = np.dtype([("scale", "<f2"), ("values", "i1", 32)])


def output_rows(path: Path, ids: Sequence[int] | None = None) -> Matrix:
    """What a hidden state is multiplied with to get logits: one row for each token.

    `ids`: only those rows, in that order. Raises EngineFailed for a type that is not read.
    """
    tensors = {tensor.name: tensor for tensor in read_header(path).tensors}
    # Where there is no output matrix, the embedding matrix is both.
    tensor = tensors.get("output.weight") or tensors.get("token_embd.weight")
    if tensor is None or len(tensor.shape) != 2:
        raise EngineFailed(f"{path.name} has no output matrix.")
    width, count = tensor.shape
    row_bytes = tensor_bytes((width,), tensor.kind)
    raw = np.memmap(path, np.uint8, "r", tensor.offset, (count, row_bytes))
    if ids is None:
        return _floats(raw, tensor)
    return _floats(raw[np.asarray(ids)], tensor)


def _floats(raw: NDArray[np.uint8], tensor: Tensor) -> Matrix:
    """Bytes of rows as numbers, shape (rows, width)."""
    data = np.ascontiguousarray(raw)
    if tensor.kind == F32:
        return data.view("<f4").astype(np.float32)
    if tensor.kind == F16:
        return data.view("<f2").astype(np.float32)
    if tensor.kind == Q8_0:
        blocks = data.view(_Q8_0_BLOCK)
        found: Matrix = blocks["scale"][..., None] * blocks["values"].astype(np.float32)
        return found.reshape(len(data), -1)
    raise EngineFailed(
        f"The tensor {tensor.name} is of a type that the reranker cannot read; F32, F16 and Q8_0 "
        "are read.",
        detail=f"GGUF type {tensor.kind}",
    )
