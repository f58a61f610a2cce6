"""Downloads wheels, pinned by sha256, from a package index. Installs and executes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyreqwest.client import Client

from inferd.catalog.blocking import in_thread
from inferd.catalog.card import Wheel
from inferd.catalog.sources.http import Site, TransferFailed, new_client, place
from inferd.catalog.sources.index import ACCEPT, Link, choose, links, project
from inferd.catalog.sources.index_url import configured_index_url
from inferd.catalog.sources.part import Part, opened_part
from inferd.catalog.sources.transfer import complete, insist
from inferd.errors import Unavailable

_PAGE_BYTES_MAX = 64 << 20


class PackageRegistry:
    """A package index. `index_url` None: the one that pip is configured with."""

    def __init__(self, index_url: str | None, *, pause_seconds: float = 0.5) -> None:
        self._index_url = index_url
        self.pause_seconds = pause_seconds

    async def find(self, wheel: Wheel) -> Link:
        """Where a wheel lies. Unavailable when the index is away or does not have it."""
        try:
            name, _ = project(wheel)
            site = await self.site()
            async with new_client() as client:
                offered = await insist(lambda: _page(site, client, f"/{name}/"), self.pause_seconds)
        except (TransferFailed, ValueError) as error:
            raise Unavailable(
                f"The package index cannot be asked for {wheel.requirement}: {error}."
            ) from error
        link = choose(offered, wheel)
        if link is None:
            raise Unavailable(
                f"The package index has no wheel {wheel.requirement} with the pinned sha256."
            )
        return link

    async def download(
        self, wheel: Wheel, link: Link, path: Path, report: Callable[[int], None]
    ) -> None:
        """Complete `path`, which may hold the start of the wheel already, and verify it.

        `report` gets the bytes that are there. Unavailable when the network fails for good
        (what came so far stays, for the next time) or the digest is wrong (then it is removed).
        """
        async with opened_part(path) as part:
            await self._complete(wheel, link, part, report)
            await in_thread(lambda _: part.sync())
            sha256 = part.sha256()
            if sha256 != wheel.sha256:
                part.discard()
        if sha256 != wheel.sha256:
            raise Unavailable(
                f"What came as {wheel.requirement} does not have the pinned sha256 and was "
                "removed. Should that happen again, the package index is not to be trusted."
            )

    async def _complete(
        self, wheel: Wheel, link: Link, part: Part, report: Callable[[int], None]
    ) -> None:
        try:
            await complete(await self.site(), link, part, report, self.pause_seconds)
        except TransferFailed as error:
            raise Unavailable(
                f"The download of {wheel.requirement} failed after {part.size_bytes} bytes: "
                f"{error}."
            ) from error

    async def site(self) -> Site:
        """The origin, with its credentials. Raises TransferFailed for what is no URL."""
        if self._index_url is None:
            self._index_url = await self.configured_url()
        return Site(self._index_url)

    async def configured_url(self) -> str:
        """The index that pip uses."""
        return await configured_index_url()


async def _page(site: Site, client: Client, path: str) -> list[Link]:
    """What the index lists for one project."""
    url = site.url + path
    async with site.open(client, url, {"accept": ACCEPT}) as (final_url, response):
        page = bytearray()
        while (chunk := await response.body_reader.read_chunk()) is not None:
            page += chunk
            if len(page) > _PAGE_BYTES_MAX:
                raise TransferFailed(f"{place(url)} sends an endless page", may_pass=False)
        return links(bytes(page), response.get_header("content-type") or "", final_url)
