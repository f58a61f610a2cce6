"""The replica in a child process: what the router relies on, with the echo engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from inferd.catalog.card import ModelCard
from inferd.catalog.progress import FetchProgress
from inferd.errors import ContextLengthExceeded, EngineFailed, Unavailable
from inferd.serving.local import LocalOptions, LocalReplica
from inferd.serving.replica import Flight, ReplicaDied
from inferd.serving.wire import EVENT_BYTES, WINDOW_BYTES
from inferd.tasks.every import Event
from inferd.tasks.text_generation import Done, Started, Text, TextGenerationRequest, TextPrompt
from tests.gateway import echo_card

Make = Callable[..., LocalReplica]


async def no_files(
    card: ModelCard,
    report: Callable[[FetchProgress], None],
) -> dict[str, Path]:
    return {}


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[LocalReplica] = []
    for name in ("logs", "run"):
        (tmp_path / name).mkdir()
    options = LocalOptions(1, tmp_path / "logs", tmp_path / "run", {"PATH": "/usr/bin:/bin"})

    def build(*tags: str, fetch: object = no_files) -> LocalReplica:
        card = echo_card(tags=tuple(f"echo:{tag}" for tag in tags))
        made.append(LocalReplica(card, fetch, options))  # pyright: ignore[reportArgumentType]
        return made[-1]

    yield build
    for replica in made:
        await replica.stop()
    assert list((tmp_path / "run").iterdir()) == [], "private directories are removed"


def ask(text: str = "one two three", max_tokens: int | None = None) -> TextGenerationRequest:
    return TextGenerationRequest("test/echo", TextPrompt(text), max_tokens=max_tokens)


async def events_of(replica: LocalReplica, request: TextGenerationRequest) -> list[Event]:
    return [event async for event in replica.run("R1", request, Flight())]


async def killed_at_the_first_text(replica: LocalReplica, pid: int) -> None:
    async for event in replica.run("R1", ask("w " * 500), Flight()):
        if isinstance(event, Text):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_loads_runs_and_gives_its_memory_back(make: Make) -> None:
    replica = make()
    facts = await replica.start()
    assert facts.slots == 8
    assert facts.pid is not None
    seen = await events_of(replica, ask())
    assert "".join(e.text for e in seen if isinstance(e, Text)) == "one two three"
    assert isinstance(seen[-1], Done)
    if sys.platform == "linux":
        assert facts.memory_bytes > 1 << 20
    await replica.stop()
    await replica.stop()
    assert not is_alive(facts.pid)
    assert not replica.died.done(), "it was asked to end"


async def test_requests_share_it_and_errors_stay_with_their_own(make: Make) -> None:
    replica = make("token_ms=1")
    await replica.start()

    async def one(number: int) -> str:
        flight = Flight()
        texts = [
            event.text
            async for event in replica.run(f"R{number}", ask(f"a{number} b{number}"), flight)
            if isinstance(event, Text)
        ]
        assert flight.usage.output_tokens == 2
        return "".join(texts)

    async def too_long() -> None:
        async for _ in replica.run("Rx", ask(max_tokens=5000), Flight()):
            pass

    refused = asyncio.ensure_future(too_long())
    assert await asyncio.gather(*(one(n) for n in range(8))) == [f"a{n} b{n}" for n in range(8)]
    with pytest.raises(ContextLengthExceeded):
        await refused


async def test_closing_early_stops_the_engine_and_leaves_the_final_usage(make: Make) -> None:
    replica = make("token_ms=2")
    await replica.start()
    flight = Flight()
    async with aclosing(replica.run("R1", ask("w " * 500), flight)) as events:
        async for event in events:
            if isinstance(event, Text) and event.usage.output_tokens == 5:
                break
    assert 5 <= flight.usage.output_tokens < 50
    assert flight.stage == "decode"
    assert isinstance((await events_of(replica, ask()))[-1], Done)


async def test_a_kill_is_told_to_its_requests_and_to_whoever_watches(make: Make) -> None:
    replica = make("token_ms=2")
    facts = await replica.start()
    assert facts.pid is not None
    with pytest.raises(ReplicaDied):
        await killed_at_the_first_text(replica, facts.pid)
    assert await asyncio.wait_for(replica.died, 5)
    with pytest.raises(ReplicaDied):
        await events_of(replica, ask())


async def test_an_engine_that_ends_its_process_is_a_death(make: Make) -> None:
    replica = make("crash_after=1")
    await replica.start()
    with pytest.raises(ReplicaDied):
        await events_of(replica, ask())
    assert await asyncio.wait_for(replica.died, 5)


async def test_a_load_that_fails_says_why_and_leaves_no_process(make: Make) -> None:
    replica = make("load_fails=1")
    with pytest.raises(EngineFailed, match="told not to load"):
        await replica.start()


async def test_a_fetch_that_fails_starts_no_process(make: Make, tmp_path: Path) -> None:
    async def fails(*_: object) -> dict[str, Path]:
        raise Unavailable("No network.")

    with pytest.raises(Unavailable):
        await make(fetch=fails).start()
    assert list((tmp_path / "logs").iterdir()) == []


async def test_a_start_that_is_cancelled_or_stopped_leaves_no_process(make: Make) -> None:
    for end in ("cancel", "stop"):
        replica = make("load_ms=60000")
        start = asyncio.ensure_future(replica.start())
        while replica._link is None:  # pyright: ignore[reportPrivateUsage] until the child runs
            await asyncio.sleep(0.01)
        process = replica._process  # pyright: ignore[reportPrivateUsage]
        if end == "cancel":
            start.cancel()
        else:
            await replica.stop()
        with pytest.raises((asyncio.CancelledError, EngineFailed)):
            await start
        assert process is not None
        assert process.returncode is not None


async def test_the_child_gets_no_environment_but_what_it_is_given(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "x")
    facts = await make().start()
    environment = Path(f"/proc/{facts.pid}/environ")
    if not environment.exists():
        pytest.skip("there is no /proc here")
    names = {pair.partition(b"=")[0] for pair in environment.read_bytes().split(b"\0")}
    assert b"SOME_SECRET" not in names
    assert {b"OMP_WAIT_POLICY", b"OMP_NUM_THREADS"} <= names


async def test_who_stops_reading_holds_up_his_own_request_alone(make: Make) -> None:
    replica = make()
    await replica.start()
    flight = Flight()
    async with aclosing(replica.run("R1", ask("w " * 900), flight)) as unread:
        assert isinstance(await anext(unread), Started)
        for number in range(20):
            others = [event async for event in replica.run(f"S{number}", ask("w " * 200), Flight())]
            assert isinstance(others[-1], Done)
    window = WINDOW_BYTES // EVENT_BYTES
    assert 0 < flight.usage.output_tokens <= window, "it was not computed on for nobody"


async def test_a_long_answer_needs_credit_and_gets_it(make: Make) -> None:
    replica = make()
    await replica.start()
    events = await events_of(replica, ask("w " * 900, max_tokens=90))
    assert isinstance(events[-1], Done)
    events = await events_of(replica, ask("w " * 490))
    assert sum(isinstance(event, Text) for event in events) == 490
