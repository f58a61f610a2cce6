"""A request whose caller is known reads nothing from the database, whichever it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from inferd.api.app import build
from inferd.cli.wiring import rooms
from inferd.settings import Settings
from tests.e2e.steps import CHAT, body, card
from tests.gateway import ADMIN_TOKEN, Client
from tests.process import without_none


@pytest.fixture
async def client(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Client, list[str]]]:
    """The rooms as `inferd serve` makes them, and every statement that a request causes."""
    (tmp_path / "cards").mkdir()
    text = msgspec.toml.encode(without_none(msgspec.to_builtins(card("t/echo"))))
    (tmp_path / "cards" / "echo.toml").write_bytes(text)
    settings = Settings(
        data_dir=str(tmp_path), database_url=database_url, bootstrap_token=ADMIN_TOKEN
    )
    async with rooms(settings, lambda _: None) as services:
        await services.tokens.ensure_admin(ADMIN_TOKEN)
        statements: list[str] = []
        background = set[asyncio.Task[Any]]()

        def seen(_: Any, __: Any, statement: str, *___: Any) -> None:
            # What the gateway does by itself, such as saying that it lives, is no request's.
            if asyncio.current_task() not in background:
                statements.append(statement)

        event.listen(services.database.engine.sync_engine, "before_cursor_execute", seen)
        background |= asyncio.all_tasks() - {asyncio.current_task()}
        yield Client(build(services)), statements


async def test_a_warm_request_reads_nothing(client: tuple[Client, list[str]]) -> None:
    caller, statements = client
    made = await caller.post("/v1/api-tokens", {"name": "t", "monthly_limit": 1})
    limited = {"authorization": f"Bearer {made.json()['token']}"}
    calls: list[dict[str, Any]] = [
        {"headers": headers, "stream": stream} for headers in ({}, limited) for stream in (0, 1)
    ]

    async def ask_all() -> None:
        for call in calls:
            wanted = body("t/echo", max_tokens=2, stream=bool(call["stream"]))
            answer = await caller.post(CHAT, wanted, headers=call["headers"])
            assert answer.status == 200, answer.body

    await ask_all()
    assert statements, "the first ones read who asks"
    statements.clear()
    for _ in range(10):
        await ask_all()
    assert statements == []
