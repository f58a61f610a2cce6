"""A tiny cross-encoder in ONNX, written byte by byte, and the same computed by numpy.

One BERT layer with one head over random weights, and a head with one logit on the first token:
the class of the real ones, at a size that a test builds. Field numbers are those of onnx.proto.
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


def _tensor(name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    kind = FLOAT if values.dtype == np.float32 else INT64
    dims = b"".join(_field(1, size) for size in values.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, values.tobytes())


def _node(kind: str, inputs: str, output: str, **attributes: int | list[int]) -> bytes:
    node = b"".join(_field(1, name) for name in inputs.split()) + _field(2, output)
    node += _field(4, kind)
    for name, value in attributes.items():
        told = _field(1, name)
        if isinstance(value, int):
            told += _field(3, value) + _field(20, 2)
        else:
            told += b"".join(_field(8, one) for one in value) + _field(20, 7)
        node += _field(5, told)
    return node


def _value(name: str, kind: int, dims: list[str | int]) -> bytes:
    shape = b"".join(
        _field(1, _field(2, one) if isinstance(one, str) else _field(1, one)) for one in dims
    )
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))


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
        _node("Gather", "words input_ids", "a"),
        _node("Gather", "segments token_type_ids", "b"),
        _node("Add", "a b", "x"),
        _node("MatMul", "x q", "xq"),
        _node("MatMul", "x k", "xk"),
        _node("MatMul", "x v", "xv"),
        _node("Transpose", "xk", "xt", perm=[0, 2, 1]),
        _node("MatMul", "xq xt", "s"),
        _node("Cast", "attention_mask", "m", to=FLOAT),
        _node("Sub", "one m", "hidden"),
        _node("Mul", "hidden far", "wall"),
        _node("Unsqueeze", "wall at_1", "walls"),
        _node("Add", "s walls", "masked"),
        _node("Softmax", "masked", "shares", axis=2),
        _node("MatMul", "shares xv", "seen"),
        _node("MatMul", "seen o", "told"),
        _node("Add", "x told", "sum"),
        _node("LayerNormalization", "sum scale", "y"),
        _node("Gather", "y at_0", "first", axis=1),
        _node("MatMul", "first head", "logits"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, _tensor(name, value)) for name, value in values.items())
    graph += _field(5, _tensor("at_1", np.array([1], np.int64)))
    graph += _field(5, _tensor("at_0", np.array(0, np.int64)))
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        graph += _field(11, _value(name, INT64, ["batch", "sequence"]))
    graph += _field(12, _value("logits", FLOAT, ["batch", 1]))
    opset = _field(1, "") + _field(2, 17)
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, opset))


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
