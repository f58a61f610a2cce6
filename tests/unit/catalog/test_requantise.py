from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize, quantize
from scripts.cut_gguf import cut

from inferd.catalog.gguf_header import read_header
from inferd.catalog.gguf_types import F32, Q4_0, Q4_1, Q8_0, Tensor
from inferd.catalog.requantise import requantise
from inferd.errors import BadRequest
from tests.unit.catalog.gguf_bytes import LLAMA, Weights, gguf

_RANDOM = np.random.default_rng(7)
ROWS = _RANDOM.normal(size=(3, 64)).astype(np.float32)


def _quantised(name: str, kind: int) -> Weights:
    content = quantize(ROWS, GGMLQuantizationType(kind)).tobytes()
    return Weights(name, (64, 3), kind, content)


TENSORS = (
    _quantised("token_embd.weight", Q4_1),
    _quantised("blk.0.ffn_up.weight", Q4_1),
    Weights("blk.0.norm.weight", (8,), F32, np.arange(8, dtype=np.float32).tobytes()),
    _quantised("blk.1.ffn_up.weight", Q4_1),
    _quantised("output.weight", Q8_0),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.gguf"
    path.write_bytes(gguf(LLAMA, TENSORS))
    return path


def _bytes(path: Path, tensor: Tensor) -> bytes:
    return path.read_bytes()[tensor.offset : tensor.offset + tensor.size_bytes]


def test_4_1_becomes_4_0_embeddings_become_8_0_and_the_rest_stays(source: Path) -> None:
    target = source.with_name("target.gguf")
    requantise(source, target)
    header = read_header(target)
    assert [one.kind for one in header.tensors] == [Q8_0, Q4_0, F32, Q4_0, Q8_0]
    assert [one.name for one in header.tensors] == [one.name for one in TENSORS]
    assert _bytes(target, header.tensors[2]) == TENSORS[2].content
    assert _bytes(target, header.tensors[4]) == TENSORS[4].content
    assert header.value("general.file_type") == 2


def test_the_weights_stay_close_to_what_they_were(source: Path) -> None:
    target = source.with_name("target.gguf")
    requantise(source, target)
    for tensor in read_header(target).tensors[:2]:
        rows = np.frombuffer(_bytes(target, tensor), np.uint8).reshape(3, -1)
        weights = dequantize(rows, GGMLQuantizationType(tensor.kind))
        assert float(np.abs(weights - ROWS).mean()) < 0.15


def test_the_metadata_is_kept_but_for_the_file_type(source: Path) -> None:
    target = source.with_name("target.gguf")
    requantise(source, target)
    old, new = read_header(source), read_header(target)
    changed = {key for key in old.fields if old.fields[key] != new.fields[key]}
    assert changed == {"general.file_type"}
    assert (new.bos_text, new.chat_template) == (old.bos_text, old.chat_template)


def test_nothing_appears_when_the_source_is_broken(source: Path) -> None:
    source.write_bytes(source.read_bytes()[:-40])
    with pytest.raises(BadRequest):
        requantise(source, source.with_name("target.gguf"))
    assert [path.name for path in source.parent.iterdir()] == ["source.gguf"]


def test_the_process_says_why_it_failed(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "inferd.catalog.requantise", "none.gguf", "out.gguf"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stderr is not None
        said = child.stderr.read().decode()
    assert child.returncode == 1
    assert said.strip() == "The file none.gguf cannot be read: No such file or directory."


def test_the_process_ends_when_its_standard_input_does(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    os.mkfifo(source)  # Nobody writes: the child waits for ever.
    command = [sys.executable, "-P", "-m", "inferd.catalog.requantise", str(source), "out.gguf"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 1


def test_a_cut_keeps_the_first_layers_and_what_is_outside_of_them(source: Path) -> None:
    target = source.with_name("cut.gguf")
    cut(source, target, 1)
    header = read_header(target)
    assert header.block_count == 1
    kept = [one for one in TENSORS if not one.name.startswith("blk.1.")]
    assert [one.name for one in header.tensors] == [one.name for one in kept]
    for tensor, before in zip(header.tensors, kept, strict=True):
        assert _bytes(target, tensor) == before.content


@pytest.mark.parametrize("layers", [0, 3])
def test_a_cut_to_layers_that_are_not_there_is_refused(source: Path, layers: int) -> None:
    with pytest.raises(ValueError, match="has 2 layers"):
        cut(source, source.with_name("cut.gguf"), layers)
