"""Keeps the first N layers of a GGUF model: `python scripts/cut_gguf.py SOURCE DESTINATION N`.

The result talks nonsense in the source's vocabulary at several times its speed, which is what
tests of loading, scheduling and cancellation want.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inferd.catalog.gguf_header import GgufHeader, read_header
from inferd.catalog.gguf_rewrite import Rewrite, Target, rewrite
from inferd.catalog.gguf_types import Tensor
from inferd.errors import InferdError


def cut(source: Path, destination: Path, layers: int) -> None:
    """Write the first `layers` layers of `source`, whole or not at all."""
    header = read_header(source)
    if not 1 <= layers <= (header.block_count or 0):
        raise ValueError(f"{source.name} has {header.block_count} layers, not {layers}.")
    kept = tuple(Target(one, one.kind) for one in header.tensors if _layer(one) < layers)
    plan = Rewrite(header, kept, {_block_count(header): layers})
    rewrite(source, destination, plan, _unchanged)


def _block_count(header: GgufHeader) -> str:
    return f"{header.architecture}.block_count"


def _layer(tensor: Tensor) -> int:
    """0-based; tensors outside the layers count as of the first."""
    prefix, _, rest = tensor.name.partition(".")
    return int(rest.partition(".")[0]) if prefix == "blk" else 0


def _unchanged(tensor: Tensor, kind: int, content: bytes) -> bytes:
    raise AssertionError(f"{tensor.name} was asked to become type {kind}; a cut converts nothing.")


def main(arguments: list[str]) -> int:
    """0 when the file is written."""
    if len(arguments) != 3 or not arguments[2].isdigit():
        sys.stderr.write(f"{__doc__}\n")
        return 2
    source, destination, layers = arguments
    try:
        cut(Path(source), Path(destination), int(layers))
    except (InferdError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
