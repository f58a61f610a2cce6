"""Packages of npm's registry, pinned by sha256. No node is needed, nothing in them is executed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import msgspec

from inferd.catalog.card import Wheel
from inferd.catalog.sources.http import Site, TransferFailed, new_client, place
from inferd.catalog.sources.index import Link
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.sources.transfer import insist
from inferd.errors import Unavailable

DEFAULT_NPM_URL = "https://registry.npmjs.org"
_NPM_SECONDS_MAX = 15
_PAGE_BYTES_MAX = 16 << 20
_REQUIREMENT = re.compile(r"((?:@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*)==([0-9A-Za-z.+-]+)")


class _Dist(msgspec.Struct):
    tarball: str


class _Version(msgspec.Struct):
    dist: _Dist


class NpmRegistry(PackageRegistry):
    """npm's registry. `url` None: the one that npm is configured with, else the public one."""

    def __init__(self, url: str | None = None, *, pause_seconds: float = 0.5) -> None:
        super().__init__(url, pause_seconds=pause_seconds)

    async def find(self, wheel: Wheel) -> Link:
        """Where a tarball lies. Unavailable when the registry is away or does not have it."""
        match = _REQUIREMENT.fullmatch(wheel.requirement)
        try:
            if match is None:
                raise ValueError(f"{wheel.requirement!r} is not of the form name==version")  # noqa: TRY301 - one answer to all that is wrong
            site = await self.site()
            path = f"/{quote(match[1], safe='@')}/{quote(match[2])}"
            page = await insist(lambda: _page(site, path), self.pause_seconds)
            found = msgspec.json.decode(page, type=_Version)
        except (TransferFailed, ValueError, msgspec.MsgspecError) as error:
            raise Unavailable(
                f"npm's registry cannot be asked for {wheel.requirement}: {error}."
            ) from error
        return Link(Path(found.dist.tarball).name, found.dist.tarball)

    async def ping(self, seconds_max: float) -> None:
        """Raise Unavailable when the registry does not answer within some seconds."""
        try:
            async with asyncio.timeout(seconds_max):
                await _page(await self.site(), "/-/ping")
        except (TransferFailed, TimeoutError) as error:
            reason = str(error) or "it does not answer"
            raise Unavailable(f"npm's registry cannot be reached: {reason}.") from error

    async def configured_url(self) -> str:
        """What npm says, or its settings file where there is no npm."""
        return await configured_npm_url()


async def _page(site: Site, path: str) -> bytes:
    page = bytearray()
    headers = {"accept": "application/json"}
    async with (
        new_client() as client,
        site.open(client, site.url + path, headers) as (url, response),
    ):
        while (chunk := await response.body_reader.read_chunk()) is not None:
            page += chunk
            if len(page) > _PAGE_BYTES_MAX:
                raise TransferFailed(f"{place(url)} sends an endless page", may_pass=False)
    return bytes(page)


async def configured_npm_url() -> str:
    """The registry that npm is configured with; the public one when nothing says otherwise."""
    npm = shutil.which("npm")
    if npm is not None:
        child = await asyncio.create_subprocess_exec(
            npm,
            *("config", "get", "registry"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_NPM_SECONDS_MAX):
                output, _ = await child.communicate()
        except TimeoutError:
            output = b""
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        told = output.decode("utf-8", "replace").strip()
        if told.startswith(("http://", "https://")):
            return told
    return await asyncio.to_thread(_from_file, Path.home() / ".npmrc")


def _from_file(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines():
            name, found, value = line.partition("=")
            if found and name.strip() == "registry" and value.strip().startswith("http"):
                return value.strip()
    return DEFAULT_NPM_URL
