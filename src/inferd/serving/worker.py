"""The worker: a child process that holds one replica. `python -m inferd.serving.worker FD [FD]`.

The first FD is one end of a socket pair. When the other end is gone the owner is dead, and the
worker exits at once, in the middle of whatever it computes. There is nothing to connect to, but
for the gateways of this machine if there are several: the second FD listens for them on a socket
in a private directory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing

import msgspec

from inferd.catalog.card import ModelCard
from inferd.engines.base import Engine, Request, Resources
from inferd.engines.decoder_pool import warm_decoders
from inferd.engines.registry import engine_class
from inferd.errors import EngineFailed, InferdError
from inferd.serving.memory import keep_what_is_loaded
from inferd.serving.wire import (
    EVENT_BYTES,
    WINDOW_BYTES,
    Cancel,
    Close,
    Credit,
    Events,
    Failed,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Output,
    Piece,
    Port,
    Run,
    ToWorker,
    failure_of,
    weight,
)
from inferd.tasks.base import CHUNK_BYTES_MAX
from inferd.tasks.embeddings import Embedded
from inferd.tasks.text_generation import Text

_log = logging.getLogger("inferd.worker")


class Worker:
    """Owns the engine. Whoever is connected has requests of his own."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.engine: Engine | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, card: ModelCard, resources: Resources) -> Loaded | LoadFailed:
        """Once, before anything runs."""
        try:
            engine = engine_class(card.engine)()
            features = await asyncio.to_thread(engine.load, card, resources)
            await asyncio.to_thread(warm_decoders, features.tasks)
        except InferdError as error:
            return LoadFailed(failure_of(error))
        except Exception as error:  # noqa: BLE001 a library may raise anything while it loads
            _log.exception("load failed")
            failed = EngineFailed("The engine could not load the model.", detail=repr(error))
            return LoadFailed(failure_of(failed))
        self.engine = engine
        keep_what_is_loaded()
        return Loaded(features)

    async def close(self) -> None:
        """Free the engine; the process ends next."""
        if self.engine is not None:
            await self.engine.close()
        self.closed.set()

    def own(self, work: Coroutine[None, None, None]) -> None:
        """Run it; held here until it is done. The process ends with what is left."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Running:
    """One request that is computed: whether it shall stop, and how far it may run ahead."""

    __slots__ = ("_moved", "cancelled", "credit")

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.credit = WINDOW_BYTES
        self._moved = asyncio.Event()

    def cancel(self) -> None:
        """Stop the engine; nothing waits for credit any more."""
        self.cancelled.set()
        self._moved.set()

    def pay(self, size_bytes: int) -> None:
        """The reader has taken so much."""
        self.credit += size_bytes
        self._moved.set()

    async def room(self) -> None:
        """Wait until there is credit, or none is needed."""
        while self.credit <= 0 and not self.cancelled.is_set():
            self._moved.clear()
            await self._moved.wait()


class Connection:
    """One gateway that asks, and its requests. Once it is lost they are cancelled.

    Only the `owner`, who started this process, may load and close.
    """

    def __init__(
        self, worker: Worker, on_lost: Callable[[], None] | None = None, *, owner: bool = False
    ) -> None:
        self.port = Port(ToWorker, self._on_message, self._on_lost)
        self._worker = worker
        self._lost = on_lost
        self._owner = owner
        self._running: dict[str, _Running] = {}
        self._outbox: list[tuple[str, Output]] = []
        self._outbox_bytes = 0

    def _on_message(self, message: ToWorker | FromWorker) -> None:
        match message:
            case Credit(request_id, size_bytes):
                if running := self._running.get(request_id):
                    running.pay(size_bytes)
            case Run(request_id, request):
                self._running[request_id] = _Running()
                self._worker.own(self._run(request_id, request))
            case Cancel(request_id):
                if running := self._running.get(request_id):
                    running.cancel()
            case Load(card, resources) if self._owner:
                self._worker.own(self._load(card, resources))
            case Close() if self._owner:
                self._cancel_all()
                self._worker.own(self._worker.close())
            case _:
                _log.error("a peer said what it may not say")
                self.port.close()

    async def _load(self, card: ModelCard, resources: Resources) -> None:
        self.port.send(await self._worker.load(card, resources))

    async def _run(self, request_id: str, request: Request) -> None:
        running = self._running[request_id]
        try:
            assert self._worker.engine is not None, "nothing runs before Loaded"
            async with aclosing(self._worker.engine.run(request, running.cancelled)) as events:
                async for event in events:
                    if type(event) is Embedded and len(event.vectors) > CHUNK_BYTES_MAX:
                        await self._send_vectors(request_id, running, event)
                        continue
                    if running.credit <= 0:
                        await running.room()
                    self._emit(request_id, running, event)
        except InferdError as error:
            self._emit(request_id, running, Failed(failure_of(error)))
        except Exception as error:  # noqa: BLE001 one bad request must not end the worker
            _log.exception("request failed")
            failed = EngineFailed("The engine failed on this request.", detail=repr(error))
            self._emit(request_id, running, Failed(failure_of(failed)))
        finally:
            del self._running[request_id]

    async def _send_vectors(self, request_id: str, running: _Running, event: Embedded) -> None:
        view = memoryview(event.vectors)
        for at in range(0, len(view), CHUNK_BYTES_MAX):
            await running.room()
            self._emit(request_id, running, Piece(bytes(view[at : at + CHUNK_BYTES_MAX])))
        await running.room()
        self._emit(request_id, running, msgspec.structs.replace(event, vectors=b""))

    def _emit(self, request_id: str, running: _Running, output: Output) -> None:
        """Send with whatever else happens in this turn of the loop."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append((request_id, output))
        # Most are text; a call would cost as much as the rest of this.
        size = EVENT_BYTES if type(output) is Text else weight(output)
        running.credit -= size
        self._outbox_bytes += size
        if self._outbox_bytes >= CHUNK_BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        items, self._outbox, self._outbox_bytes = self._outbox, [], 0
        if not items:
            return
        try:
            self.port.send(Events(items))
        except InferdError:
            # One of them fits no frame; the others must not be lost with it.
            for request_id, output in items:
                self._send_alone(request_id, output)

    def _send_alone(self, request_id: str, output: Output) -> None:
        try:
            self.port.send(Events([(request_id, output)]))
        except InferdError:
            _log.exception("an event fits no frame")
            failed = EngineFailed("The engine's answer is too large.")
            self.port.send(Events([(request_id, Failed(failure_of(failed)))]))

    def _on_lost(self) -> None:
        self._cancel_all()
        if self._lost is not None:
            self._lost()

    def _cancel_all(self) -> None:
        for running in self._running.values():
            running.cancel()


def _gateway_gone() -> None:
    os._exit(0)


async def main(descriptor: int, listening: int | None = None) -> None:
    """Serve the owner over the inherited descriptor, and whoever connects to the other one."""
    worker = Worker()
    connection = Connection(worker, _gateway_gone, owner=True)
    loop = asyncio.get_running_loop()
    sock = socket.socket(fileno=descriptor)
    await loop.create_unix_connection(lambda: connection.port, sock=sock)
    if listening is not None:
        await loop.create_unix_server(
            lambda: Connection(worker).port, sock=socket.socket(fileno=listening)
        )
    await worker.closed.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(*map(int, sys.argv[1:])))
    # Engine threads that still run must not hold the process.
    os._exit(0)
