"""Vectors from a llama.cpp server: of each token of an input, or one pooled of all.

They come over its private socket; the package's own call knows pooled ones only. Imported in
workers only.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.engines.llama_tokens import LlamaListener, ask
from inferd.errors import EngineFailed

Hidden = NDArray[np.float32]
"""Shape (tokens, width); (1, width) where they are pooled."""

SECONDS_MAX = 300.0


class _Rows(msgspec.Struct):
    index: int
    embedding: list[list[float]]


_DECODER = msgspec.json.Decoder(list[_Rows])


def hidden_states(listener: LlamaListener, inputs: Sequence[Sequence[int]]) -> list[Hidden]:
    """The last layer's output for each input of token ids, normed but not scaled. Blocks."""
    # -1: not scaled to any length.
    body = {"input": [list(ids) for ids in inputs], "embd_normalize": -1}
    content = ask(listener, "/embeddings", body, SECONDS_MAX)
    try:
        found = _DECODER.decode(content)
    except msgspec.DecodeError as error:
        raise EngineFailed("llama.cpp gave no vectors.", detail=repr(error)) from error
    if len(found) != len(inputs):
        raise EngineFailed("llama.cpp lost count of a batch.")
    found.sort(key=lambda one: one.index)
    return [np.array(one.embedding, np.float32) for one in found]
