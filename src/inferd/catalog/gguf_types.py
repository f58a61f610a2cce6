"""What a GGUF file is made of: the number types of metadata and the block types of tensors.

Kept here, and not taken from the gguf package, because the gateway reads headers and the
package imports numpy.
"""

from __future__ import annotations

import struct

import msgspec

MAGIC = b"GGUF"
UINT32, BOOL, STRING, ARRAY, UINT64 = 4, 7, 8, 9, 10

SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    UINT32: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    BOOL: struct.Struct("<?"),
    UINT64: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""Metadata type → how one value lies in the file."""

F32, F16, Q4_0, Q4_1, Q8_0 = 0, 1, 2, 3, 8

BLOCKS: dict[int, tuple[int, int]] = {
    F32: (1, 4),
    F16: (1, 2),
    Q4_0: (32, 18),
    Q4_1: (32, 20),
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    Q8_0: (32, 34),
    9: (32, 40),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
    41: (128, 18),  # Q1_0
}
"""Tensor type → (weights in a block, bytes of a block)."""


def tensor_bytes(shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor. ValueError when its rows do not divide into blocks."""
    block, size = BLOCKS[kind]
    if shape[0] % block:
        raise ValueError(f"a row of {shape[0]} weights does not divide into blocks of {block}")
    count = 1
    for length in shape:
        count *= length
    return count // block * size


class Array(msgspec.Struct, frozen=True):
    """An array of the metadata, by its length."""

    kind: int
    length: int
    at: int
    """Where its first element lies in the file."""
    values: tuple[int | float | bool, ...] = ()
    """The elements of a short numeric array."""


Value = int | float | bool | str | Array


class Field(msgspec.Struct, frozen=True):
    """One entry of the metadata."""

    kind: int
    at: int
    """Where the value lies in the file."""
    value: Value


class Tensor(msgspec.Struct, frozen=True):
    """One tensor: its type and where its bytes are."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    """From the start of the file."""
    size_bytes: int
