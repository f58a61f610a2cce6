"""The protocol of an engine: software that computes. Engines know no HTTP, no SQL, no money.

An engine lives in a worker process and serves one model. `load` blocks (the worker runs it in a
thread); `run` yields events. When `cancel` is set the engine stops within one step and ends with
`Stopped`, whose usage counts everything that it computed; closing the iterator stops it as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

import msgspec

from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest
from inferd.tasks.base import TaskName
from inferd.tasks.every import Event, Request

__all__ = ["Engine", "Event", "Features", "Request", "Resources", "unsupported"]


class Resources(msgspec.Struct, frozen=True):
    """What an engine may use."""

    files: dict[str, str]
    """role → absolute path."""
    threads: int
    runtime_dir: str
    """A private directory (0700) for sockets."""

    def path(self, role: str) -> Path:
        """The file of a role. KeyError when the card has none."""
        return Path(self.files[role])

    def folder(self) -> Path:
        """All files of the card in one folder, under their roles, as libraries expect them."""
        folder = Path(self.runtime_dir) / "model"
        for role, path in self.files.items():
            target = folder / role
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(path)
        return folder


def unsupported(engine: str, request: Request) -> BadRequest:
    """What an engine says to a task that it does not do; the gateway checks it before."""
    return BadRequest(f"The engine {engine} does not do this task ({type(request).__name__}).")


class Features(msgspec.Struct, frozen=True):
    """What a loaded engine can do."""

    tasks: tuple[TaskName, ...]
    slots: int
    """Requests computed at once. A text generation with `n` choices takes `n` of them."""
    context_length: int
    """Prompt and output of one request, in tokens; 0 where a task has no tokens."""
    spare: int = 0
    """Further slots, which only accounts that have nothing running may take: nobody's many long
    requests keep another account's first one waiting."""


class Engine(Protocol):
    """One model, loaded."""

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Load and warm up. Raises EngineFailed with a sentence."""
        ...

    def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Compute. Raises BadRequest, ContextLengthExceeded or EngineFailed."""
        ...

    async def close(self) -> None:
        """Free everything; nothing runs any more when this returns."""
        ...

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """Estimated resident bytes of a worker, before it is loaded."""
        ...
