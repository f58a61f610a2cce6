from __future__ import annotations

from pathlib import Path

import pytest

from inferd.catalog.card import Wheel
from inferd.catalog.sources.index import links, project
from inferd.catalog.sources.index_url import DEFAULT_INDEX_URL, index_url_of
from inferd.catalog.sources.packages import PackageRegistry
from inferd.errors import Unavailable
from tests.unit.catalog.index_server import IndexServer, index_server

BUFFER = 1 << 16
"""What the HTTP client may have received and not yet handed over when a connection breaks."""


def _starts(server: IndexServer) -> list[int]:
    """From which byte on each request wanted the file."""
    ranges = [ask.byte_range or "bytes=0-" for ask in server.file_asks()]
    return [int(one.removeprefix("bytes=").removesuffix("-")) for one in ranges]


async def _download(registry: PackageRegistry, wheel: Wheel, part: Path) -> list[int]:
    seen: list[int] = []
    await registry.download(wheel, await registry.find(wheel), part, seen.append)
    return seen


@pytest.mark.parametrize("html", [False, True])
async def test_a_wheel_is_found_by_its_digest_and_downloaded(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes, *, html: bool
) -> None:
    server.html = html
    server.files["some_model-0.9-py3-none-any.whl"] = b"older"
    wheel = server.add("some-model", content)
    seen = await _download(registry, wheel, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content
    assert seen[0] == 0
    assert seen[-1] == len(content)
    assert seen == sorted(seen)


@pytest.mark.parametrize("html", [False, True])
async def test_an_index_that_states_no_digests_is_asked_by_file_name(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes, *, html: bool
) -> None:
    server.html, server.states_hashes = html, False
    wheel = server.add("some-model", content)
    await _download(registry, wheel, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content


async def test_a_broken_connection_is_taken_up_where_it_broke(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes
) -> None:
    wheel = server.add("some-model", content)
    server.cuts = [1_000_000, 500_000]
    await _download(registry, wheel, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content
    starts = _starts(server)
    assert starts[0] == 0
    assert 1_000_000 - BUFFER < starts[1] <= 1_000_000
    assert starts[1] + 500_000 - BUFFER < starts[2] <= starts[1] + 500_000
    assert server.sent_bytes < len(content) + 2 * BUFFER


async def test_a_later_download_goes_on_from_what_an_earlier_left(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes
) -> None:
    wheel = server.add("some-model", content)
    server.cuts = [700_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match=r"some-model==1\.0 failed after \d+ bytes"):
        await _download(registry, wheel, tmp_path / "part")
    left = (tmp_path / "part").stat().st_size
    assert 700_000 - BUFFER < left <= 700_000
    server.cuts = []
    seen = await _download(registry, wheel, tmp_path / "part")
    assert _starts(server)[-1] == seen[0] == left
    assert server.sent_bytes < len(content) + BUFFER
    assert (tmp_path / "part").read_bytes() == content


async def test_a_part_that_is_already_whole_is_not_asked_for_again(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes
) -> None:
    wheel = server.add("some-model", content)
    (tmp_path / "part").write_bytes(content)
    await _download(registry, wheel, tmp_path / "part")
    assert server.file_asks() == []


async def test_a_server_that_knows_no_ranges_sends_it_all_again(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes
) -> None:
    server.knows_ranges = False
    wheel = server.add("some-model", content)
    server.cuts = [1_000_000]
    await _download(registry, wheel, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content
    assert _starts(server)[1] > 0
    assert server.sent_bytes == 1_000_000 + len(content)


async def test_a_part_longer_than_the_file_is_thrown_away(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes
) -> None:
    wheel = server.add("some-model", content)
    (tmp_path / "part").write_bytes(content + b"more")
    await _download(registry, wheel, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content


async def test_a_wrong_digest_removes_the_part_and_says_so(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes
) -> None:
    wheel = server.add("some-model", content)
    (tmp_path / "part").write_bytes(b"x" * 1000)
    with pytest.raises(Unavailable, match="does not have the pinned sha256 and was removed"):
        await _download(registry, wheel, tmp_path / "part")
    assert not (tmp_path / "part").exists()
    await _download(registry, wheel, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == content


async def test_a_server_that_sends_more_than_announced_is_left(
    server: IndexServer, registry: PackageRegistry, tmp_path: Path, content: bytes
) -> None:
    wheel = server.add("some-model", content)
    link = await registry.find(wheel)
    server.files[link.filename] = content * 2
    with pytest.raises(Unavailable, match="sends more than it announced"):
        await registry.download(wheel, link, tmp_path / "part", lambda _: None)


async def test_what_the_index_does_not_have_is_refused_at_once(
    server: IndexServer, registry: PackageRegistry
) -> None:
    with pytest.raises(Unavailable, match=r"none==1\.0: 127\.0\.0\.1 answered with status 404"):
        await registry.find(Wheel("none==1.0", "0" * 64))
    assert len(server.asks) == 1


async def test_another_digest_than_the_pinned_is_not_taken(
    server: IndexServer, registry: PackageRegistry, content: bytes
) -> None:
    server.add("some-model", content)
    with pytest.raises(Unavailable, match=r"has no wheel some-model==1\.0 with the pinned sha256"):
        await registry.find(Wheel("some-model==1.0", "0" * 64))


async def test_an_index_that_is_away_is_said_so(content: bytes) -> None:
    with index_server() as gone:
        wheel = gone.add("some-model", content)
    with pytest.raises(Unavailable, match=r"cannot be asked for some-model==1\.0"):
        await PackageRegistry(gone.url, pause_seconds=0).find(wheel)


async def test_credentials_go_to_the_index_alone_and_into_no_sentence(
    server: IndexServer, tmp_path: Path, content: bytes
) -> None:
    server.login = ("me", "p@ss/word")
    url = server.url.replace("://", "://me:p%40ss%2Fword@")
    registry = PackageRegistry(url, pause_seconds=0)
    with index_server() as elsewhere:
        server.files_url = elsewhere.url.replace("/simple", "/files/")
        wheel = server.add("some-model", content)
        elsewhere.add("some-model", content)
        await _download(registry, wheel, tmp_path / "part")
        assert [ask.authorization for ask in elsewhere.asks] == [None]
    assert all(ask.authorization for ask in server.asks)
    server.login = ("me", "another")
    with pytest.raises(Unavailable) as refusal:
        await registry.find(wheel)
    shown = f"{refusal.value} {refusal.value.detail} {refusal.value.__cause__!r}"
    assert "status 401" in shown
    assert "word" not in shown


async def test_a_redirect_is_followed_without_the_credentials(
    server: IndexServer, tmp_path: Path, content: bytes
) -> None:
    with index_server() as mirror:
        wheel = mirror.add("some-model", content)
        server.redirect_to = f"http://127.0.0.1:{mirror.server_port}"
        registry = PackageRegistry(server.url.replace("://", "://me:secret@"), pause_seconds=0)
        await _download(registry, wheel, tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == content
        assert {ask.authorization for ask in mirror.asks} == {None}


async def test_a_redirect_without_end_is_given_up(
    server: IndexServer, registry: PackageRegistry, content: bytes
) -> None:
    wheel = server.add("some-model", content)
    server.redirect_to = "/loop"
    with pytest.raises(Unavailable, match="redirects without end"):
        await registry.find(wheel)
    assert len(server.asks) == 6


@pytest.mark.parametrize("url", ["file:///srv/simple", "ftp://example.org/simple", "simple"])
async def test_only_http_is_spoken(url: str) -> None:
    with pytest.raises(Unavailable, match="no http or https URL"):
        await PackageRegistry(url).find(Wheel("some-model==1.0", "0" * 64))


def test_links_of_a_page_are_absolute() -> None:
    page = (
        b'<base href="/pool/"><a href="a-1-py3-none-any.whl#sha256=ab">a</a>'
        b'<a href="https://other.example/b%2B1.whl#md5=cd">b</a><a name="x">c</a>'
    )
    found = links(page, "text/html", "https://index.example/simple/a/")
    assert [(one.filename, one.url, one.sha256) for one in found] == [
        ("a-1-py3-none-any.whl", "https://index.example/pool/a-1-py3-none-any.whl", "ab"),
        ("b+1.whl", "https://other.example/b%2B1.whl", None),
    ]


@pytest.mark.parametrize("page", [b"", b"[]", b'{"files": 3}', b'{"files": [{}]}', b"\xff\xfe"])
def test_json_that_is_no_page_is_refused(page: bytes) -> None:
    with pytest.raises(ValueError, match="not valid JSON"):
        links(page, "application/vnd.pypi.simple.v1+json", "https://index.example/simple/a/")


@pytest.mark.parametrize("text", ["a", "a==", "a>=1", "../a==1", "a==1/../b", "a b==1", ""])
def test_a_requirement_that_pins_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name==version"):
        project(Wheel(text, "0" * 64))


def test_a_project_name_is_normalised() -> None:
    assert project(Wheel("Some_Model.X==1.0", "0" * 64)) == ("some-model-x", "1.0")


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", DEFAULT_INDEX_URL),
        ("global.index-url='https://a.example/simple'", "https://a.example/simple"),
        (
            "global.index-url='https://a.example/simple'\n:env:.index-url='https://b.example/s'",
            "https://b.example/s",
        ),
        ("global.extra-index-url='https://a.example/simple'", DEFAULT_INDEX_URL),
        ("global.index-url=not a literal", DEFAULT_INDEX_URL),
    ],
)
def test_the_index_is_the_one_that_pip_uses(listing: str, expected: str) -> None:
    assert index_url_of(listing) == expected
