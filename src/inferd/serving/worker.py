"""The worker: a child process that holds one replica. `python -m inferd.serving.worker FD`.

FD is one end of a socket pair; there is nothing to connect to. When the other end is gone the
gateway is dead, and the worker exits at once, in the middle of whatever it computes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from contextlib import aclosing

from inferd.catalog.card import ModelCard
from inferd.engines.base import Engine, Request, Resources
from inferd.engines.registry import engine_class
from inferd.errors import EngineFailed, InferdError
from inferd.serving.wire import (
    Cancel,
    Close,
    Events,
    Failed,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Port,
    Run,
    ToWorker,
    failure_of,
)
from inferd.tasks.every import Event

_log = logging.getLogger("inferd.worker")


class Worker:
    """Owns the engine; answers messages."""

    def __init__(self) -> None:
        self.port = Port(ToWorker, self._on_message, _gateway_gone)  # type: ignore[arg-type]
        self.closed = asyncio.Event()
        self._engine: Engine | None = None
        self._cancels: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outbox: list[tuple[str, Event | Failed]] = []

    def _on_message(self, message: ToWorker | FromWorker) -> None:
        match message:
            case Run(request_id, request):
                self._cancels[request_id] = asyncio.Event()
                self._own(self._run(request_id, request))
            case Cancel(request_id):
                if cancel := self._cancels.get(request_id):
                    cancel.set()
            case Load(card, resources):
                self._own(self._load(card, resources))
            case Close():
                self._own(self._close())
            case _:
                raise AssertionError("the decoder lets nothing else through")

    async def _load(self, card: ModelCard, resources: Resources) -> None:
        try:
            engine = engine_class(card.engine)()
            features = await asyncio.to_thread(engine.load, card, resources)
        except InferdError as error:
            self.port.send(LoadFailed(failure_of(error)))
        except Exception as error:  # noqa: BLE001 a library may raise anything while it loads
            _log.exception("load failed")
            failed = EngineFailed("The engine could not load the model.", detail=repr(error))
            self.port.send(LoadFailed(failure_of(failed)))
        else:
            self._engine = engine
            self.port.send(Loaded(features))

    async def _run(self, request_id: str, request: Request) -> None:
        cancel = self._cancels[request_id]
        try:
            assert self._engine is not None, "nothing runs before Loaded"
            async with aclosing(self._engine.run(request, cancel)) as events:
                async for event in events:
                    self._emit(request_id, event)
        except InferdError as error:
            self._emit(request_id, Failed(failure_of(error)))
        except Exception as error:  # noqa: BLE001 one bad request must not end the worker
            _log.exception("request failed")
            failed = EngineFailed("The engine failed on this request.", detail=repr(error))
            self._emit(request_id, Failed(failure_of(failed)))
        finally:
            del self._cancels[request_id]

    def _emit(self, request_id: str, event: Event | Failed) -> None:
        """Send with whatever else happens in this turn of the loop."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append((request_id, event))

    def _flush(self) -> None:
        items, self._outbox = self._outbox, []
        self.port.send(Events(items))

    async def _close(self) -> None:
        for cancel in self._cancels.values():
            cancel.set()
        if self._engine is not None:
            await self._engine.close()
        self.closed.set()

    def _own(self, work: Coroutine[None, None, None]) -> None:
        # Held by the worker until done; the process ends with them.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _gateway_gone() -> None:
    os._exit(0)


async def main(descriptor: int) -> None:
    """Serve one gateway over the inherited descriptor."""
    worker = Worker()
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: worker.port, sock=socket.socket(fileno=descriptor))
    await worker.closed.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(int(sys.argv[1])))
    # Engine threads that still run must not hold the process.
    os._exit(0)
