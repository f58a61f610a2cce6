"""Notices: whoever listens goes on listening."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from inferd.storage import notices


async def test_whatever_breaks_it_is_listened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    tried: list[int] = []

    async def listens(_: str, __: str, hear: Callable[[str], None]) -> None:
        tried.append(1)
        if len(tried) < 3:
            raise RuntimeError("nobody foresaw it")
        hear("news")
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(notices, "_listen_once", listens)
    monkeypatch.setattr(notices, "AGAIN_SECONDS", 0.001)
    task = asyncio.ensure_future(notices.listen("", "", heard.set_result))
    async with asyncio.timeout(10):
        assert await heard == "news"
    task.cancel()
    await asyncio.wait([task])
