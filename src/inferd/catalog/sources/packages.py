"""Downloads wheels, pinned by sha256, from a package index. Installs and executes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

from inferd.catalog.blocking import in_thread
from inferd.catalog.card import Wheel
from inferd.catalog.sources.http import Site, TransferFailed, new_client, place
from inferd.catalog.sources.index import ACCEPT, Link, choose, links, project
from inferd.catalog.sources.index_url import configured_index_url
from inferd.catalog.sources.part import Part
from inferd.errors import Unavailable

T = TypeVar("T")

_PAGE_BYTES_MAX = 64 << 20
_WHEEL_BYTES_MAX = 64 << 30
_STEP_BYTES = 1 << 20
_TRIES = 4
"""Failures in a row, without one byte gained, until it is given up."""


class PackageRegistry:
    """A package index. `index_url` None: the one that pip is configured with."""

    def __init__(self, index_url: str | None, *, pause_seconds: float = 0.5) -> None:
        self._index_url = index_url
        self._pause_seconds = pause_seconds

    async def find(self, wheel: Wheel) -> Link:
        """Where a wheel lies. Unavailable when the index is away or does not have it."""
        try:
            name, _ = project(wheel)
            site = await self._site()
            async with new_client() as client:
                offered = await self._insist(lambda: _page(site, client, f"/{name}/"))
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
        part = await in_thread(lambda stop: Part(path, stop))
        try:
            await self._complete(wheel, link, part, report)
            await in_thread(lambda _: part.sync())
            sha256 = part.sha256()
            if sha256 != wheel.sha256:
                part.discard()
        finally:
            part.close()
        if sha256 != wheel.sha256:
            raise Unavailable(
                f"What came as {wheel.requirement} does not have the pinned sha256 and was "
                "removed. Should that happen again, the package index is not to be trusted."
            )

    async def _complete(
        self, wheel: Wheel, link: Link, part: Part, report: Callable[[int], None]
    ) -> None:
        if link.size_bytes is not None and part.size_bytes > link.size_bytes:
            part.clear()
        report(part.size_bytes)
        if part.size_bytes and part.size_bytes == link.size_bytes:
            return
        site = await self._site()
        try:
            async with new_client() as client:
                await self._insist(
                    lambda: _continue(site, client, link, part, report),
                    gained=lambda: part.size_bytes,
                )
        except TransferFailed as error:
            raise Unavailable(
                f"The download of {wheel.requirement} failed after {part.size_bytes} bytes: "
                f"{error}."
            ) from error

    async def _site(self) -> Site:
        if self._index_url is None:
            self._index_url = await configured_index_url()
        return Site(self._index_url)

    async def _insist(
        self, attempt: Callable[[], Awaitable[T]], gained: Callable[[], int] = lambda: 0
    ) -> T:
        """Try until it works, or fails several times in a row without gaining anything."""
        failures = 0
        while True:
            before = gained()
            try:
                return await attempt()
            except TransferFailed as error:
                failures = 1 if gained() > before else failures + 1
                if not error.may_pass or failures >= _TRIES:
                    raise
            await asyncio.sleep(self._pause_seconds * 2 ** (failures - 1))


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


async def _continue(
    site: Site, client: Client, link: Link, part: Part, report: Callable[[int], None]
) -> None:
    """One request for what is missing. TransferFailed when it ends too early."""
    headers = {"range": f"bytes={part.size_bytes}-"} if part.size_bytes else {}
    async with site.open(client, link.url, headers) as (url, response):
        if not _goes_on(response, part.size_bytes):
            part.clear()
            if response.status != 200:
                raise TransferFailed(f"{place(url)} sent something else than the rest of the file")
        size_bytes_max = link.size_bytes or _WHEEL_BYTES_MAX
        async for step in _steps(response):
            if part.size_bytes + len(step) > size_bytes_max:
                raise TransferFailed(f"{place(url)} sends more than it announced", may_pass=False)
            await in_thread(lambda _, step=step: part.append(step))
            report(part.size_bytes)
    if link.size_bytes is not None and part.size_bytes < link.size_bytes:
        raise TransferFailed(f"{place(link.url)} stopped early")


def _goes_on(response: Response, size_bytes: int) -> bool:
    """The body starts where the part ends. A server may ignore the range and start anew."""
    stated = response.get_header("content-range") or ""
    return response.status == 206 and stated.startswith(f"bytes {size_bytes}-")


async def _steps(response: Response) -> AsyncGenerator[bytes]:
    """The body in steps worth a write; what came before a failure comes first."""
    reader, waiting, size = response.body_reader, list[bytes](), 0
    failure: PyreqwestError | None = None
    while failure is None:
        try:
            chunk = await reader.read_chunk()
        except PyreqwestError as error:
            failure, chunk = error, None
        if chunk is not None:
            waiting.append(bytes(chunk))
            size += len(chunk)
        if size >= _STEP_BYTES or (chunk is None and waiting):
            yield b"".join(waiting)
            waiting, size = [], 0
        if chunk is None:
            break
    if failure is not None:
        raise failure
