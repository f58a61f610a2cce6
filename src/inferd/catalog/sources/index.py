"""Reads the page of a package index on one project: PEP 691 JSON, or the older HTML (PEP 503)."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import msgspec

from inferd.catalog.card import Wheel

ACCEPT = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
)
_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9._+!-]+)")


class Link(msgspec.Struct, frozen=True):
    """One file that an index offers."""

    filename: str
    url: str
    sha256: str | None = None
    size_bytes: int | None = None


def project(wheel: Wheel) -> tuple[str, str]:
    """(normalised name, version) of a requirement. ValueError when it pins none."""
    match = _REQUIREMENT.fullmatch(wheel.requirement)
    if match is None:
        raise ValueError(f"{wheel.requirement!r} is not of the form name==version")
    return re.sub(r"[-_.]+", "-", match[1]).lower(), match[2]


def links(page: bytes, content_type: str, page_url: str) -> list[Link]:
    """The files that a page lists, with absolute URLs. ValueError when it cannot be read."""
    if "json" in content_type:
        return _json_links(page, page_url)
    return _html_links(page, page_url)


def choose(offered: list[Link], wheel: Wheel) -> Link | None:
    """The file with the pinned digest; else one of the right name whose digest is not stated."""
    for link in offered:
        if link.sha256 == wheel.sha256:
            return link
    name, version = project(wheel)
    start = f"{name.replace('-', '_')}-{version}-"
    for link in offered:
        if link.sha256 is None and link.filename.endswith(".whl"):
            head, _, rest = link.filename.partition("-")
            if f"{re.sub(r'[-_.]+', '_', head).lower()}-{rest}".startswith(start):
                return link
    return None


class _JsonFile(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None


class _JsonPage(msgspec.Struct):
    files: list[_JsonFile]


def _json_links(page: bytes, page_url: str) -> list[Link]:
    try:
        decoded = msgspec.json.decode(page, type=_JsonPage)
    except msgspec.MsgspecError as error:
        raise ValueError("The page of the index is not valid JSON") from error
    return [
        Link(file.filename, urljoin(page_url, file.url), file.hashes.get("sha256"), file.size)
        for file in decoded.files
    ]


def _html_links(page: bytes, page_url: str) -> list[Link]:
    parser = _Anchors(page_url)
    parser.feed(page.decode("utf-8", "replace"))
    parser.close()
    return parser.found


class _Anchors(HTMLParser):
    def __init__(self, page_url: str) -> None:
        super().__init__()
        self._base_url = page_url
        self.found: list[Link] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if not href:
            return
        if tag == "base":
            self._base_url = urljoin(self._base_url, href)
        elif tag == "a":
            url, fragment = urldefrag(urljoin(self._base_url, href))
            kind, _, digest = fragment.partition("=")
            filename = unquote(urlsplit(url).path.rpartition("/")[2])
            self.found.append(Link(filename, url, digest if kind == "sha256" else None))
