"""The worker's end of a connection: credit, pieces, and who may ask for what."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources
from inferd.errors import EngineFailed, InferdError
from inferd.serving.inbox import Inbox
from inferd.serving.wire import (
    EVENT_BYTES,
    FRAME_BYTES_MAX,
    WINDOW_BYTES,
    Cancel,
    Close,
    Credit,
    Events,
    Failed,
    FromWorker,
    Load,
    LoadFailed,
    Output,
    Piece,
    Port,
    Run,
    ToWorker,
)
from inferd.serving.worker import Connection, Worker
from inferd.tasks.base import CHUNK_BYTES_MAX, Chunk, Progress, Stopped, Usage
from inferd.tasks.embeddings import Embedded
from inferd.tasks.every import ENDINGS, Event
from inferd.tasks.text_generation import Done, Text, TextGenerationRequest, TextPrompt
from inferd.tasks.text_to_image import Preview
from tests.gateway import echo_card, until

Script = Callable[[asyncio.Event], AsyncGenerator[Event]]


class Scripted:
    """An engine that does as the prompt's script says."""

    def __init__(self, **scripts: Script) -> None:
        self._scripts = scripts

    def load(self, card: ModelCard, resources: Resources) -> Features:
        return Features(("text-generation",), 8, 1000)

    def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        assert isinstance(request, TextGenerationRequest)
        assert isinstance(request.prompt, TextPrompt)
        return self._scripts[request.prompt.text](cancel)

    async def close(self) -> None:
        pass

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        return 0


class Peer:
    """A gateway's end: takes what comes only when the test says so."""

    def __init__(self) -> None:
        self.port = Port(FromWorker, self._heard, lambda: self.gone.set())  # type: ignore[arg-type]
        self.gone = asyncio.Event()
        self.said: dict[str, list[Output]] = {}
        self.load_failed = False

    def _heard(self, message: ToWorker | FromWorker) -> None:
        if isinstance(message, LoadFailed):
            self.load_failed = True
            return
        assert isinstance(message, Events)
        for request_id, output in message.items:
            self.said.setdefault(request_id, []).append(output)

    def ask(self, request_id: str, script: str) -> None:
        self.port.send(Run(request_id, TextGenerationRequest("m", TextPrompt(script))))

    def ended(self, request_id: str) -> bool:
        said = self.said.get(request_id, [])
        return bool(said) and isinstance(said[-1], (*ENDINGS, Stopped, Failed))


@asynccontextmanager
async def peer_of(worker: Worker, *, owner: bool = False) -> AsyncGenerator[Peer]:
    ours, theirs = socket.socketpair()
    peer, connection = Peer(), Connection(worker, owner=owner)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: connection.port, sock=theirs)
    await loop.create_unix_connection(lambda: peer.port, sock=ours)
    try:
        yield peer
    finally:
        peer.port.close()
        connection.port.close()


def worker_with(**scripts: Script) -> Worker:
    worker = Worker()
    worker.engine = Scripted(**scripts)
    return worker


def endless(made: list[int], event: Callable[[Usage], Event]) -> Script:
    """As much as anybody wants, until it is cancelled."""

    async def script(cancel: asyncio.Event) -> AsyncGenerator[Event]:
        while not cancel.is_set():
            made[0] += 1
            yield event(Usage(output_tokens=made[0]))
            await asyncio.sleep(0)
        yield Stopped(Usage(output_tokens=made[0]))

    return script


async def short(cancel: asyncio.Event) -> AsyncGenerator[Event]:
    yield Text(0, "x", (), Usage(1, 0, 1))
    yield Done(("eos",), Usage(1, 0, 1))


async def settled(made: list[int]) -> None:
    """Until the engine was not asked for more during many turns of the loop."""
    before = -1
    async with asyncio.timeout(10):
        while made[0] != before:
            before = made[0]
            for _ in range(50):
                await asyncio.sleep(0)


def _text(usage: Usage) -> Event:
    return Text(0, "x", (), usage)


def _chunk(usage: Usage) -> Event:
    return Chunk(0, bytes(CHUNK_BYTES_MAX), usage)


def _preview(usage: Usage) -> Event:
    return Preview(0, 0, bytes(CHUNK_BYTES_MAX), whole=True, usage=usage)


@pytest.mark.parametrize(
    ("event", "size"),
    [
        (_text, EVENT_BYTES),
        (Progress, EVENT_BYTES),
        (_chunk, CHUNK_BYTES_MAX),
        (_preview, CHUNK_BYTES_MAX),
    ],
)
async def test_an_engine_is_a_window_ahead_of_its_reader_and_no_more(
    event: Callable[[Usage], Event], size: int
) -> None:
    made = [0]
    worker = worker_with(endless=endless(made, event), short=short)
    async with peer_of(worker) as peer:
        peer.ask("R1", "endless")
        await until(lambda: len(peer.said.get("R1", ())) == WINDOW_BYTES // size)
        await settled(made)
        assert len(peer.said["R1"]) == WINDOW_BYTES // size
        assert made[0] == WINDOW_BYTES // size + 1, "one is in the engine's hand"
        # A neighbour on the same socket is served meanwhile.
        peer.ask("R2", "short")
        await until(lambda: peer.ended("R2"))
        assert len(peer.said["R1"]) == WINDOW_BYTES // size
        peer.port.send(Credit("R1", 2 * size))
        await until(lambda: len(peer.said["R1"]) == WINDOW_BYTES // size + 2)
        # A cancel waits for no credit, and the last usage counts all that was made.
        peer.port.send(Cancel("R1"))
        await until(lambda: peer.ended("R1"))
        last = peer.said["R1"][-1]
        assert isinstance(last, Stopped)
        assert last.usage.output_tokens == made[0]


async def test_a_failure_waits_for_no_credit() -> None:
    async def fails(cancel: asyncio.Event) -> AsyncGenerator[Event]:
        for _ in range(WINDOW_BYTES // EVENT_BYTES):
            yield Text(0, "x", (), Usage())
        raise EngineFailed("No.")

    async with peer_of(worker_with(fails=fails)) as peer:
        peer.ask("R1", "fails")
        await until(lambda: peer.ended("R1"))
        assert isinstance(peer.said["R1"][-1], Failed)


async def test_vectors_larger_than_a_frame_arrive_in_pieces_against_credit() -> None:
    vectors = bytes(range(256)) * (FRAME_BYTES_MAX // 256) + b"1234"

    async def embeds(cancel: asyncio.Event) -> AsyncGenerator[Event]:
        yield Embedded(vectors, 1, Usage(3))

    async with peer_of(worker_with(embeds=embeds)) as peer:
        inbox = Inbox(lambda size_bytes: peer.port.send(Credit("R1", size_bytes)))
        peer.ask("R1", "embeds")
        outputs = peer.said.setdefault("R1", [])
        while not peer.ended("R1"):
            await until(lambda: bool(outputs))
            assert sum(len(one.data) for one in outputs if isinstance(one, Piece)) <= WINDOW_BYTES
            ended = peer.ended("R1")
            for output in outputs:
                inbox.put(output)
            outputs.clear()
            if ended:
                break
        whole = await inbox.take()
        assert isinstance(whole, Embedded)
        assert whole.vectors == vectors


async def test_what_fits_no_frame_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def huge(cancel: asyncio.Event) -> AsyncGenerator[Event]:
        yield Text(0, "x" * (FRAME_BYTES_MAX + 1), (), Usage())

    async with peer_of(worker_with(huge=huge, short=short)) as peer:
        peer.ask("R1", "huge")
        peer.ask("R2", "short")
        await until(lambda: peer.ended("R1") and peer.ended("R2"))
        assert isinstance(peer.said["R1"][0], Failed)
        assert isinstance(peer.said["R2"][-1], Done)


async def test_connections_have_requests_of_their_own_and_a_lost_one_cancels_them() -> None:
    made_a, made_b = [0], [0]
    worker = worker_with(
        a=endless(made_a, Progress),
        b=endless(made_b, Progress),
        short=short,
    )
    async with peer_of(worker) as staying:
        async with peer_of(worker) as leaving:
            leaving.ask("R1", "a")
            staying.ask("R1", "b")
            await until(lambda: bool(leaving.said) and bool(staying.said))
        await settled(made_a)
        before = made_b[0]
        staying.port.send(Credit("R1", 50 * EVENT_BYTES))
        await until(lambda: made_b[0] > before)
        assert not staying.ended("R1"), "the other one's requests were cancelled, not this one's"
        staying.ask("R2", "short")
        await until(lambda: staying.ended("R2"))
        staying.port.send(Cancel("R1"))
        await until(lambda: staying.ended("R1"))
    tasks = worker._tasks  # pyright: ignore[reportPrivateUsage]
    await until(lambda: not tasks)


@pytest.mark.parametrize("message", [Close(), Load(echo_card(), Resources({}, 1, ""))])
async def test_only_the_owner_loads_and_closes(message: ToWorker) -> None:
    worker = worker_with(short=short)
    async with peer_of(worker) as guest:
        guest.port.send(message)
        await asyncio.wait_for(guest.gone.wait(), 10)
    assert not worker.closed.is_set()
    async with peer_of(worker, owner=True) as owner:
        owner.port.send(Close())
        await asyncio.wait_for(worker.closed.wait(), 10)


class _Line:
    """One request between a scripted engine and an inbox, without sockets."""

    def __init__(self, sizes: list[int]) -> None:
        self.inbox = Inbox(self._credit)
        self.unsent = list(enumerate(sizes))
        self.credit = WINDOW_BYTES
        self.held = 0

    def _credit(self, size_bytes: int) -> None:
        self.credit += size_bytes

    def send(self) -> None:
        """As the worker does: while there is credit."""
        while self.unsent and self.credit > 0:
            number, size = self.unsent.pop(0)
            usage = Usage(output_tokens=number)
            event = Chunk(0, bytes(size), usage) if size else Text(0, "x", (), usage)
            self.inbox.put(event)
            self.held += size or EVENT_BYTES
            self.credit -= size or EVENT_BYTES

    async def take(self) -> Event | InferdError:
        event = await self.inbox.take()
        self.held -= len(event.data) if isinstance(event, Chunk) else EVENT_BYTES
        return event


@given(st.lists(st.sampled_from([0, 0, 0, 1, 5000, CHUNK_BYTES_MAX]), max_size=600), st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_comes_all_of_it_arrives_in_order_and_within_the_window(
    sizes: list[int], data: st.DataObject
) -> None:
    async def play() -> None:
        line, got = _Line(sizes), 0
        while got < len(sizes):
            line.send()
            assert line.held <= WINDOW_BYTES + CHUNK_BYTES_MAX
            for _ in range(data.draw(st.integers(1, 300))):
                if not line.held:
                    break
                event = await line.take()
                assert isinstance(event, Text | Chunk)
                assert event.usage.output_tokens == got
                got += 1

    _run(play)


def _run(play: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await play()

    asyncio.run(main())
