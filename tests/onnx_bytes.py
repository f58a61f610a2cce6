"""Tiny models in ONNX, written byte by byte; field numbers are those of onnx.proto.

Here is a cross-encoder, and the same computed by numpy: one BERT layer with one head over random
weights, and a head with one logit on the first token: the class of the real ones, at a size that
a test builds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
WIDTH = 16
FLOAT, INT64 = 1, 7


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def tensor(name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    """A TensorProto."""
    kind = FLOAT if values.dtype == np.float32 else INT64
    dims = b"".join(_field(1, size) for size in values.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, values.tobytes())


def node(kind: str, inputs: str, output: str, **attributes: int | list[int]) -> bytes:
    """A NodeProto; names of inputs are divided by spaces."""
    told = b"".join(_field(1, name) for name in inputs.split()) + _field(2, output)
    told += _field(4, kind)
    for name, given in attributes.items():
        attribute = _field(1, name)
        if isinstance(given, int):
            attribute += _field(3, given) + _field(20, 2)
        else:
            attribute += b"".join(_field(8, one) for one in given) + _field(20, 7)
        told += _field(5, attribute)
    return told


def value(name: str, kind: int, dims: list[str | int]) -> bytes:
    """A ValueInfoProto."""
    shape = b"".join(
        _field(1, _field(2, one) if isinstance(one, str) else _field(1, one)) for one in dims
    )
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))


def model(
    nodes: list[bytes],
    constants: dict[str, NDArray[np.float32] | NDArray[np.int64]],
    inputs: list[bytes],
    outputs: list[bytes],
) -> bytes:
    """A ModelProto of operator set 17."""
    graph = b"".join(_field(1, one) for one in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, tensor(name, values)) for name, values in constants.items())
    graph += b"".join(_field(11, one) for one in inputs)
    graph += b"".join(_field(12, one) for one in outputs)
    opset = _field(1, "") + _field(2, 17)
    return _field(1, 8) + _field(7, graph) + _field(8, opset)


def weights(vocabulary_size: int, seed: int = 1) -> dict[str, Floats]:
    """Random ones, large enough that scores differ."""
    dice = np.random.default_rng(seed)
    shapes = {
        "words": (vocabulary_size, WIDTH),
        "segments": (2, WIDTH),
        **dict.fromkeys(("q", "k", "v", "o"), (WIDTH, WIDTH)),
        "head": (WIDTH, 1),
    }
    found = {name: dice.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}
    found["far"] = np.array([-1e4], np.float32)
    found["one"] = np.array([1], np.float32)
    found["scale"] = np.ones(WIDTH, np.float32)
    return found


def write_cross_encoder(path: Path, values: dict[str, Floats]) -> None:
    """The graph with these weights."""
    nodes = [
        node("Gather", "words input_ids", "a"),
        node("Gather", "segments token_type_ids", "b"),
        node("Add", "a b", "x"),
        node("MatMul", "x q", "xq"),
        node("MatMul", "x k", "xk"),
        node("MatMul", "x v", "xv"),
        node("Transpose", "xk", "xt", perm=[0, 2, 1]),
        node("MatMul", "xq xt", "s"),
        node("Cast", "attention_mask", "m", to=FLOAT),
        node("Sub", "one m", "hidden"),
        node("Mul", "hidden far", "wall"),
        node("Unsqueeze", "wall at_1", "walls"),
        node("Add", "s walls", "masked"),
        node("Softmax", "masked", "shares", axis=2),
        node("MatMul", "shares xv", "seen"),
        node("MatMul", "seen o", "told"),
        node("Add", "x told", "sum"),
        node("LayerNormalization", "sum scale", "y"),
        node("Gather", "y at_0", "first", axis=1),
        node("MatMul", "first head", "logits"),
    ]
    constants = {**values, "at_1": np.array([1], np.int64), "at_0": np.array(0, np.int64)}
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [value(name, INT64, ["batch", "sequence"]) for name in names]
    path.write_bytes(model(nodes, constants, inputs, [value("logits", FLOAT, ["batch", 1])]))


def score(values: dict[str, Floats], ids: list[int], segments: list[int]) -> float:
    """What the graph says of one pair."""
    x = values["words"][ids] + values["segments"][segments]
    s = (x @ values["q"]) @ (x @ values["k"]).T
    shares = np.exp(s - s.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    y = x + shares @ (x @ values["v"]) @ values["o"]
    y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
    logit = float((y[0] @ values["head"])[0])
    return 1 / (1 + float(np.exp(-logit)))
