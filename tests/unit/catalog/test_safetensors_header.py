"""The header of safetensors: what it says fits the file, or the file is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.catalog.safetensors_header import HEADER_BYTES_MAX, check_index, read_tensors
from inferd.errors import BadRequest


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SOUND = {
    "__metadata__": {"format": "pt"},
    "a": entry("F32", [2, 3], 0, 24),
    "b": entry("BF16", [4], 24, 32),
    "empty": entry("I64", [0], 32, 32),
}


def file_of(header: Any, data_bytes: int, *, claimed: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if claimed is None else claimed
    return length.to_bytes(8, "little") + text + bytes(data_bytes)


LIES = {
    "nothing": b"",
    "half a length": b"\1\0\0",
    "a header longer than the file": file_of(SOUND, 32, claimed=10_000),
    "a header of 2^63 bytes": file_of(SOUND, 32, claimed=2**63),
    "a header that ends early": file_of(SOUND, 32, claimed=9),
    "data that is missing": file_of(SOUND, 31),
    "data that nobody owns": file_of(SOUND, 33),
    "an overlap": file_of({**SOUND, "c": entry("U8", [4], 20, 24)}, 32),
    "a gap": file_of({"a": entry("U8", [4], 4, 8)}, 8),
    "an end before its begin": file_of({"a": entry("U8", [4], 4, 0)}, 4),
    "an offset outside": file_of({"a": entry("U8", [4], 0, 2**40)}, 4),
    "a negative offset": file_of({"a": entry("U8", [4], -4, 0)}, 4),
    "a shape of another size": file_of({"a": entry("F32", [2, 4], 0, 24)}, 24),
    "a shape that overflows": file_of({"a": entry("U8", [2**32, 2**32], 0, 0)}, 0),
    "a shape with a negative side": file_of({"a": entry("U8", [-1, -4], 0, 4)}, 4),
    "a hundred dimensions": file_of({"a": entry("U8", [1] * 100, 0, 1)}, 1),
    "an unknown type": file_of({"a": entry("PICKLE", [4], 0, 4)}, 4),
    "a list": file_of([], 0),
    "no JSON": file_of(b"{not json", 0),
    "no text": file_of(b'{"\xff\xfe": 1}', 0),
    "deep nesting": file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0),
    "metadata that is none": file_of({"__metadata__": {"a": [1]}}, 0),
    "a pickle": b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93",
    "a GGUF": b"GGUF" + bytes(60),
}


def read(tmp_path: Path, content: bytes) -> dict[str, Any]:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    return read_tensors(path)  # pyright: ignore[reportReturnType]


def test_what_fits_is_read(tmp_path: Path) -> None:
    assert set(read(tmp_path, file_of(SOUND, 32))) == {"a", "b", "empty"}
    assert read(tmp_path, file_of({}, 0)) == {}
    assert set(read(tmp_path, file_of({"a": entry("F4", [3, 2], 0, 3)}, 3))) == {"a"}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused_with_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="not usable safetensors") as refusal:
        read(tmp_path, LIES[name])
    assert len(refusal.value.message) < 200
    assert str(tmp_path) not in refusal.value.message


def test_a_header_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write((HEADER_BYTES_MAX + 1).to_bytes(8, "little"))
        file.truncate(HEADER_BYTES_MAX + 100)
    with pytest.raises(BadRequest, match="over 100 MiB"):
        read_tensors(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        read_tensors(tmp_path / "none.safetensors")


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_leads_anywhere_but_to_a_refusal_or_tensors_that_fit(
    tmp_path: Path, data: st.DataObject
) -> None:
    made = bytearray(file_of(SOUND, 32))
    for _ in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensors = read(tmp_path, bytes(made))
    except BadRequest:
        return
    for tensor in tensors.values():
        assert tensor.data_offsets[1] <= len(made)


@pytest.mark.engine
def test_it_agrees_with_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors")
    for name, content in {"sound": file_of(SOUND, 32), **LIES}.items():
        path = tmp_path / "m.safetensors"
        path.write_bytes(content)
        try:
            with library.safe_open(path, "np") as opened:
                theirs = set(opened.keys())
        except Exception:  # noqa: BLE001 the library has its own family
            continue
        assert name == "sound", "what the library refuses nobody else may take"
        assert theirs == set(read_tensors(path))


@pytest.mark.parametrize(
    "part",
    ["../m.safetensors", "/etc/passwd", "sub/m.safetensors", "m.bin", "none.safetensors", ""],
)
def test_a_list_of_parts_leads_nowhere_else(tmp_path: Path, part: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name in ("../m.safetensors", "sub/m.safetensors", "m.bin", "m.safetensors"):
        (folder / name).write_bytes(file_of({}, 0))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m.safetensors"}}))
    check_index(index)
    index.write_text(json.dumps({"weight_map": {"a": "m.safetensors", "b": part}}))
    with pytest.raises(BadRequest, match="not beside it"):
        check_index(index)
    index.write_text('{"weight_map": []}')
    with pytest.raises(BadRequest, match="no list of parts"):
        check_index(index)
