"""A tiny model behind the engine, and behind the library's own pipeline as the reference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from inferd.catalog.card import CardPrice, ModelCard, ModelFile, PathSource
from inferd.engines.base import Resources
from inferd.engines.transformers_engine import TransformersEngine
from inferd.tasks.base import TASK_UNITS, TaskName
from inferd.tasks.every import Event, Request


def card(name: str, task: TaskName, folder: Path, **fields: Any) -> ModelCard:
    """A card of a folder; tokens or computing seconds cost a dollar a million, or each."""
    tokens = task not in TASK_UNITS
    given: dict[str, Any] = {
        "price": CardPrice(input="1") if tokens else CardPrice(compute_seconds="1"),
        "context_length": 128 if tokens else 0,
        **fields,
    }
    return ModelCard(
        name=name,
        task=task,
        engine="transformers",
        extra="transformers",
        licence="none",
        summary="Tiny.",
        files=(ModelFile(role="model", file_name="tiny", source=PathSource(str(folder))),),
        **given,
    )


@asynccontextmanager
async def loaded(task: TaskName, folder: Path, **fields: Any) -> AsyncGenerator[TransformersEngine]:
    """The engine, loaded."""
    engine = TransformersEngine()
    resources = Resources({"model": str(folder)}, threads=1, runtime_dir=str(folder))
    await asyncio.to_thread(engine.load, card("t/m", task, folder, **fields), resources)
    yield engine
    await engine.close()


async def ending(engine: TransformersEngine, request: Request) -> Any:
    """The last event."""
    *_, last = await events(engine, request)
    return last


async def events(
    engine: TransformersEngine, request: Request, cancel: asyncio.Event | None = None
) -> list[Event]:
    """All events."""
    return [event async for event in engine.run(request, cancel or asyncio.Event())]


def pipeline(task: str, folder: Path) -> Any:
    """The library's own way, on the same files."""
    library: Any = import_module("transformers")
    return library.pipeline(task, model=str(folder), device="cpu")
