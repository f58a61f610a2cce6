from __future__ import annotations

import struct
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.catalog.gguf_header import GgufHeader, kv_cache_bytes_per_token, read_header
from inferd.catalog.gguf_types import BLOCKS, Array
from inferd.errors import BadRequest
from tests.unit.catalog.gguf_bytes import LLAMA, Weights, gguf, text

A = Weights("a.weight", (32, 2), 0, bytes(256))
B = Weights("b.weight", (32,), 0, bytes(128))
TRUE = gguf(tensors=[A, B])


def _read(folder: Path, content: bytes) -> GgufHeader:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return read_header(path)


def test_a_header_says_what_the_file_says(tmp_path: Path) -> None:
    header = _read(tmp_path, TRUE)
    assert header.architecture == "llama"
    assert (header.context_length, header.block_count) == (128, 2)
    assert (header.embedding_length, header.head_count) == (32, 4)
    assert (header.bos_id, header.bos_text, header.eos_id, header.eos_text) == (1, "<s>", 2, "</s>")
    assert header.add_bos is True
    assert header.chat_template == "{{ messages }}"
    assert [(one.name, one.shape, one.size_bytes) for one in header.tensors] == [
        ("a.weight", (32, 2), 256),
        ("b.weight", (32,), 128),
    ]
    assert header.tensors[-1].offset + 128 == header.size_bytes == len(TRUE)
    assert header.weights_bytes == 384
    tokens = header.value("tokenizer.ggml.tokens")
    assert isinstance(tokens, Array)
    assert tokens.length == 4


def test_what_a_file_does_not_say_is_none(tmp_path: Path) -> None:
    header = _read(tmp_path, gguf({"general.alignment": 64, "llama.context_length": True}))
    assert header.architecture == ""
    assert header.context_length is None
    assert header.chat_template is None
    assert header.add_bos is None
    assert header.bos_text is None
    assert header.alignment == 64


def test_a_token_that_is_not_in_the_vocabulary_has_no_text(tmp_path: Path) -> None:
    assert _read(tmp_path, gguf({**LLAMA, "tokenizer.ggml.bos_token_id": 4})).bos_text is None


def test_version_2_is_read_and_others_are_refused(tmp_path: Path) -> None:
    assert _read(tmp_path, gguf(version=2)).version == 2
    for version in (0, 1, 4, 0x03000000):
        with pytest.raises(BadRequest, match="neither 2 nor 3"):
            _read(tmp_path, gguf(version=version))


def test_a_header_longer_than_the_first_read_is_read(tmp_path: Path) -> None:
    merges = ["x" * 1000] * 9000
    header = _read(tmp_path, gguf({**LLAMA, "tokenizer.ggml.merges": merges}, [A]))
    assert header.tensors[0].size_bytes == 256
    found = header.value("tokenizer.ggml.merges")
    assert isinstance(found, Array)
    assert found.length == 9000


def test_the_block_sizes_are_those_of_the_gguf_package() -> None:
    assert {int(kind): size for kind, size in GGML_QUANT_SIZES.items()} == BLOCKS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (LLAMA, 2 * 2 * (8 + 8) * 2),
        ({**LLAMA, "llama.attention.key_length": 16}, 2 * 2 * (16 + 8) * 2),
        ({**LLAMA, "llama.attention.head_count_kv": [1, 2]}, 3 * (8 + 8) * 2),
        ({k: v for k, v in LLAMA.items() if "kv" not in k}, 2 * 4 * (8 + 8) * 2),
        ({"general.architecture": "llama"}, 0),
    ],
)
def test_the_cache_of_a_token_counts_its_key_and_value_heads(
    tmp_path: Path, fields: dict[str, int | str], expected: int
) -> None:
    assert kv_cache_bytes_per_token(_read(tmp_path, gguf(fields))) == expected


def _with_array(kind: int, length: int) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k")
    return head + struct.pack("<IIQ", 9, kind, length) + bytes(64)


LIES = {
    "empty": b"",
    "another format": b"PK\x03\x04" + TRUE[4:],
    "cut in the magic": TRUE[:3],
    "cut in the counts": TRUE[:12],
    "cut in the fields": TRUE[:100],
    "cut in the tensors' data": TRUE[:-1],
    "2^63 fields": gguf(field_count=1 << 63),
    "2^64-1 tensors": gguf(tensor_count=(1 << 64) - 1),
    "70,000 tensors": gguf(tensor_count=70_000),
    "more tensors than listed": gguf(tensors=[A], tensor_count=2),
    "a key of 2^62 bytes": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62) + bytes(64),
    "a text of 2^64-1 bytes": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IQ", 8, (1 << 64) - 1)
    ),
    "an unknown type": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 99),
    "an array of 2^61 numbers": _with_array(10, 1 << 61),
    "an array of 2^61 texts": _with_array(8, 1 << 61),
    "an array of texts of which one is 2^64-1 long": (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + text("k")
        + struct.pack("<IIQQ", 9, 8, 2, (1 << 64) - 1)
        + bytes(64)
    ),
    "an array of arrays": _with_array(9, 1),
    "a field twice": (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 2)
        + 2 * (text("general.type") + struct.pack("<II", 4, 1))
    ),
    "alignment 0": gguf({"general.alignment": 0}),
    "alignment 48": gguf({"general.alignment": 48}),
    "alignment 2^31": gguf({"general.alignment": 1 << 31}),
    "alignment true": gguf({"general.alignment": True}),
    "no dimension": gguf(tensors=[Weights("a", ())]),
    "five dimensions": gguf(tensors=[Weights("a", (1, 1, 1, 1, 1))]),
    "a dimension of 0": gguf(tensors=[Weights("a", (32, 0))]),
    "dimensions whose product overflows": gguf(tensors=[Weights("a", (1 << 32, 1 << 32, 1 << 32))]),
    "a tensor larger than the file": gguf(tensors=[Weights("a", (4096,), 0, bytes(128))]),
    "a tensor behind the file": gguf(tensors=[Weights("a", (32,), 0, bytes(128), 1 << 40)]),
    "a tensor at 2^64-32": gguf(tensors=[Weights("a", (32,), 0, bytes(128), (1 << 64) - 32)]),
    "a tensor out of line": gguf(tensors=[Weights("a", (8,), 0, bytes(128), 4)]),
    "a tensor on top of another": gguf(tensors=[A, Weights("b", (32,), 0, bytes(128), 32)]),
    "two tensors of one name": gguf(tensors=[A, Weights("a.weight", (32,), 0, bytes(128))]),
    "an unknown tensor type": gguf(tensors=[Weights("a", (32,), 77, bytes(128))]),
    "a row that is no whole block": gguf(tensors=[Weights("a", (33,), 2, bytes(128))]),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused_with_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match=r"model\.gguf is not a usable GGUF model: .+") as refusal:
        _read(tmp_path, LIES[name])
    assert len(refusal.value.message) < 300


def test_a_long_lie_makes_a_short_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as refusal:
        _read(tmp_path, gguf(tensors=[Weights("x" * 60_000, (0,))]))
    assert len(refusal.value.message) < 300


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        read_header(tmp_path / "none.gguf")


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(TRUE) - 1), st.integers(0, 255)), max_size=12),
    st.integers(0, len(TRUE)),
)
def test_no_damage_leads_anywhere_but_to_a_refusal_or_a_header_that_fits(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(TRUE)
    for at, byte in damage:
        content[at] = byte
    del content[length:]
    try:
        header = _read(tmp_path_factory.getbasetemp(), bytes(content))
    except BadRequest:
        return
    for tensor in header.tensors:
        assert header.fields_end <= tensor.offset
        assert tensor.offset + tensor.size_bytes <= length


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    with pytest.raises(BadRequest):
        _read(
            tmp_path_factory.getbasetemp(),
            b"GGUF\x03\0\0\0" + struct.pack("<QQ", 3, 2) + noise[:60],
        )
