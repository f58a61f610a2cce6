"""One download: resumed where it stopped, tried again while it gets on, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

from inferd.catalog.blocking import in_thread
from inferd.catalog.sources.http import Site, TransferFailed, new_client, place
from inferd.catalog.sources.index import Link
from inferd.catalog.sources.part import Part

T = TypeVar("T")

FILE_BYTES_MAX = 64 << 30
_STEP_BYTES = 1 << 20
_TRIES = 4
"""Failures in a row, without one byte gained, until it is given up."""


async def complete(
    site: Site, link: Link, part: Part, report: Callable[[int], None], pause_seconds: float
) -> None:
    """Fetch what `part` lacks. `report` gets the bytes that are there. Raises TransferFailed."""
    if link.size_bytes is not None and part.size_bytes > link.size_bytes:
        part.clear()
    report(part.size_bytes)
    if link.size_bytes is not None and part.size_bytes == link.size_bytes:
        return
    async with new_client() as client:
        await insist(
            lambda: _continue(site, client, link, part, report),
            pause_seconds,
            gained=lambda: part.size_bytes,
        )


async def insist(
    attempt: Callable[[], Awaitable[T]],
    pause_seconds: float,
    gained: Callable[[], int] = lambda: 0,
) -> T:
    """Try until it works, or fails several times in a row without gaining anything."""
    failures = 0
    while True:
        before = gained()
        try:
            return await attempt()
        except TransferFailed as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # A connection that is torn down by a cancellation may fail on its way out.
                raise asyncio.CancelledError from error
            failures = 1 if gained() > before else failures + 1
            if not error.may_pass or failures >= _TRIES:
                raise
        await asyncio.sleep(pause_seconds * 2 ** (failures - 1))


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
        size_bytes_max = link.size_bytes or FILE_BYTES_MAX
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
