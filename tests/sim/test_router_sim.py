"""The router under random arrivals, leaves, crashes, slow loads and memory pressure.

A seeded script drives the real router with fake replicas on a clock that only the script turns.
After each step the invariants hold; at the end everything is at rest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

import pytest

from inferd.catalog.card import ModelCard
from inferd.clock import ManualClock
from inferd.engines.base import Request
from inferd.errors import InferdError, TooManyRequests, Unavailable
from inferd.serving.replica import Flight, ReplicaDied, ReplicaFacts
from inferd.serving.router import Ask, Router, RouterOptions
from inferd.tasks.base import Usage
from inferd.tasks.every import Event
from inferd.tasks.text_generation import Done, Text, TextGenerationRequest, TextPrompt
from tests.gateway import echo_card

MEMORY = {"t/a": 40, "t/b": 50, "t/c": 60}
BUDGET = 100
SLOTS = 3
SPARE = 1


class FakeReplica:
    """Does what the script says, when it says so."""

    def __init__(self, card: ModelCard, world: World) -> None:
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.card = card
        self.state = "new"
        self.loaded = asyncio.Event()
        self.load_fails = False
        self.gates: dict[str, asyncio.Event] = {}
        self._world = world
        world.replicas.append(self)

    async def start(self) -> ReplicaFacts:
        self.state = "loading"
        await self.loaded.wait()
        if self.load_fails:
            self.state = "failed"
            raise Unavailable("The script says no.")
        self.state = "ready"
        return ReplicaFacts(SLOTS, 100, MEMORY[self.card.name], spare=SPARE)

    async def run(self, request_id: str, request: Request, flight: Flight) -> AsyncGenerator[Event]:
        if self.state != "ready":
            raise ReplicaDied("It is dead.")
        gate = self.gates[request_id] = asyncio.Event()
        try:
            flight.usage = Usage(1, 0, 1)
            yield Text(0, "x", (), flight.usage)
            await gate.wait()
            if self.died.done():
                raise ReplicaDied("It died.")
            yield Done(("eos",), flight.usage)
        finally:
            del self.gates[request_id]

    def die(self) -> None:
        self.state = "dead"
        self.died.set_result("killed by the script")
        for gate in self.gates.values():
            gate.set()

    async def stop(self) -> None:
        assert not self.gates or self.state == "dead", "stopped while something ran"
        self.state = "stopped"

    def progress(self) -> str:
        return "Loading"


class World:
    """Router, clock, and what the script knows."""

    def __init__(self, seed: int, *, idle_seconds: float = 30) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.replicas: list[FakeReplica] = []
        self.router = Router(
            lambda card: FakeReplica(card, self),
            self.clock,
            RouterOptions(
                queue_size_max=12,
                queue_seconds_max=40,
                idle_seconds=idle_seconds,
                memory_bytes=BUDGET,
                swap_wait_seconds=5,
            ),
            lambda card: MEMORY[card.name],
        )
        self.tasks: dict[str, asyncio.Task[str]] = {}
        self.endings: dict[str, str] = {}
        self.served_by_account: dict[str, int] = {}
        self._count = 0

    def arrive(self, model: str, account: str, slots: int = 1) -> str:
        self._count += 1
        request_id = f"R{self._count}"
        request = TextGenerationRequest(model, TextPrompt("x"), n=slots)
        card = echo_card(model, slots=SLOTS)
        ask = Ask(request_id, account, card, request, work=10, slots=slots)
        self.tasks[request_id] = asyncio.ensure_future(self._ask(ask))
        return request_id

    async def _ask(self, ask: Ask) -> str:
        ending = "nothing"
        try:
            async for event in self.router.run(ask, Flight()):
                if isinstance(event, Done):
                    ending = "done"
                    count = self.served_by_account.get(ask.account_id, 0)
                    self.served_by_account[ask.account_id] = count + 1
        except asyncio.CancelledError:
            ending = "left"
            raise
        except TooManyRequests:
            ending = "shed"
        except InferdError:
            ending = "failed"
        finally:
            assert ask.request_id not in self.endings, "ended twice"
            self.endings[ask.request_id] = ending
        return ending

    async def settle(self) -> None:
        """Let the loop run until nothing moves."""
        for _ in range(30):
            await asyncio.sleep(0)

    def running(self) -> list[tuple[FakeReplica, str]]:
        return [(r, i) for r in self.replicas for i in r.gates]

    def check(self) -> None:
        alive = [r for r in self.replicas if r.state in ("loading", "ready")]
        assert sum(MEMORY[r.card.name] for r in alive) <= BUDGET
        for replica in alive:
            assert len(replica.gates) <= SLOTS + SPARE
        for model in self.router.snapshot().models:
            assert 0 <= model.in_flight <= SLOTS + SPARE
            assert model.queued <= 12

    async def step(self) -> None:  # noqa: C901 one branch for each thing that can happen
        """One random thing happens."""
        dice = self.random.random()
        if dice < 0.45:
            self.arrive(
                self.random.choice(list(MEMORY)),
                self.random.choice("ab"),
                self.random.choice((1, 1, 1, 2)),
            )
        elif dice < 0.75 and self.running():
            replica, request_id = self.random.choice(self.running())
            replica.gates[request_id].set()
        elif dice < 0.82:
            open_ = [t for t in self.tasks.values() if not t.done()]
            if open_:
                self.random.choice(open_).cancel()
        elif dice < 0.92:
            loading = [r for r in self.replicas if r.state == "loading"]
            for replica in loading[:1]:
                replica.load_fails = self.random.random() < 0.1
                replica.loaded.set()
        elif dice < 0.94:
            ready = [r for r in self.replicas if r.state == "ready"]
            if ready:
                self.random.choice(ready).die()
        else:
            self.clock.advance(self.random.random() * 6)
            self.router.tick()
        await self.settle()
        self.check()

    async def finish(self) -> None:
        """Let everything that is open come to an end."""
        for _ in range(400):
            for replica in self.replicas:
                if replica.state == "loading":
                    replica.loaded.set()
                for gate in list(replica.gates.values()):
                    gate.set()
            self.clock.advance(1)
            self.router.tick()
            await self.settle()
            if all(task.done() for task in self.tasks.values()):
                break
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("seed", range(60))
async def test_random_events_keep_every_invariant(seed: int) -> None:
    world = World(seed)
    for _ in range(150):
        await world.step()
    await world.finish()
    assert set(world.endings) == set(world.tasks), f"seed {seed}: somebody never ended"
    assert all(model.in_flight == 0 for model in world.router.snapshot().models)
    assert all(model.queued == 0 for model in world.router.snapshot().models)
    world.clock.advance(100)
    world.router.tick()
    await world.settle()
    assert all(r.state != "ready" for r in world.replicas), f"seed {seed}: idle, not unloaded"
    await world.router.close()


async def test_one_accounts_thousand_jobs_do_not_delay_anothers_first() -> None:
    world = World(0)
    for _ in range(12):
        world.arrive("t/a", "greedy")
    await world.settle()
    world.replicas[0].loaded.set()
    await world.settle()
    modest = world.arrive("t/a", "modest")
    await world.settle()
    order: list[str] = []
    while modest not in order:
        replica, request_id = world.running()[0]
        order.append(request_id)
        replica.gates[request_id].set()
        await world.settle()
    assert len(order) <= SLOTS + 2
    await world.finish()
    await world.router.close()


async def test_long_jobs_of_one_account_leave_a_slot_for_anothers_first() -> None:
    world = World(0)
    greedy = [world.arrive("t/a", "greedy") for _ in range(12)]
    await world.settle()
    world.replicas[0].loaded.set()
    await world.settle()
    assert [i for _, i in world.running()] == greedy[:SLOTS], "nobody else asks: all its slots"
    modest = world.arrive("t/a", "modest")
    await world.settle()
    assert modest in world.replicas[0].gates, "nothing of the greedy one had to end"
    second = world.arrive("t/a", "modest")
    third = world.arrive("t/a", "third")
    await world.settle()
    assert second not in world.replicas[0].gates
    assert third not in world.replicas[0].gates, "the spare slot is taken"
    # What is free next is for whoever has nothing running, though the others came before.
    world.replicas[0].gates[greedy[0]].set()
    await world.settle()
    assert third in world.replicas[0].gates
    world.replicas[0].gates[greedy[1]].set()
    await world.settle()
    assert not {second, greedy[SLOTS]} & set(world.replicas[0].gates), "it is spare again"
    await world.finish()
    assert set(world.endings.values()) == {"done"}
    await world.router.close()


async def test_several_choices_are_not_kept_out_by_those_who_need_one() -> None:
    world = World(0)
    running = [world.arrive("t/a", f"one{n}") for n in range(SLOTS)]
    await world.settle()
    world.replicas[0].loaded.set()
    await world.settle()
    wide = world.arrive("t/a", "at the head", slots=3)
    await world.settle()
    later = [world.arrive("t/a", f"later{n}") for n in range(4)]
    for request_id in running:
        await world.settle()
        world.replicas[0].gates[request_id].set()
    await world.settle()
    assert wide in world.replicas[0].gates
    assert sum(i in world.replicas[0].gates for i in later) == SLOTS + SPARE - 3
    await world.finish()
    await world.router.close()


async def test_alternating_three_models_from_eight_clients_does_not_thrash() -> None:
    world = World(1)
    requests = iter(range(100))
    endings: list[str] = []

    async def client() -> None:
        for number in requests:
            model = list(MEMORY)[number % 3]
            request_id = world.arrive(model, f"client{number % 8}")
            endings.append(await world.tasks[request_id])

    # Only one of the three fits beside nothing else.
    world.router._policy = type(world.router._policy)(60, 300, 10)  # pyright: ignore[reportPrivateUsage]
    clients = [asyncio.ensure_future(client()) for _ in range(8)]
    while not all(task.done() for task in clients):
        for replica in world.replicas:
            if replica.state == "loading":
                replica.loaded.set()
            for gate in list(replica.gates.values())[:1]:
                gate.set()
        await world.settle()
        world.clock.advance(0.02)
        world.router.tick()
    await asyncio.gather(*clients)
    assert endings == ["done"] * 100
    # Strict rotation is the worst case: with eight clients a scheduler that knew the future would
    # need 14 swaps, and the longest line first 15.
    assert world.router.snapshot().evictions <= 15
    await world.router.close()


async def test_a_model_that_can_never_fit_is_refused_with_both_numbers() -> None:
    world = World(2)
    world.router._policy = type(world.router._policy)(30 << 20, 300, 10)  # pyright: ignore[reportPrivateUsage]
    world.router._memory_estimate = lambda card: len(card.name) * (40 << 20)  # pyright: ignore[reportPrivateUsage, reportUnknownLambdaType, reportUnknownMemberType, reportUnknownArgumentType]
    request_id = world.arrive("t/a", "a")
    assert await world.tasks[request_id] == "failed"
    await world.router.close()


async def test_whoever_waits_too_long_is_told() -> None:
    world = World(3)
    request_id = world.arrive("t/a", "a")
    await world.settle()
    world.clock.advance(41)
    world.router.tick()
    assert await asyncio.wait_for(world.tasks[request_id], 5) == "failed"
    await world.router.close()


async def test_leaving_a_load_does_not_stop_it_for_the_next() -> None:
    world = World(4)
    first = world.arrive("t/a", "a")
    await world.settle()
    world.tasks[first].cancel()
    await world.settle()
    second = world.arrive("t/a", "b")
    world.replicas[0].loaded.set()
    await world.settle()
    world.replicas[0].gates[second].set()
    assert await world.tasks[second] == "done"
    assert len(world.replicas) == 1
    await world.router.close()


@pytest.mark.parametrize(("idle", "left"), [(-1.0, "ready"), (0.0, "stopped"), (5.0, "ready")])
async def test_idle_time_counts_from_the_last_byte(idle: float, left: str) -> None:
    world = World(5, idle_seconds=idle)
    request_id = world.arrive("t/a", "a")
    await world.settle()
    world.replicas[0].loaded.set()
    await world.settle()
    world.clock.advance(1000)
    world.router.tick()
    await world.settle()
    assert world.replicas[0].state == "ready", "it runs"
    world.replicas[0].gates[request_id].set()
    assert await world.tasks[request_id] == "done"
    await world.settle()
    assert world.replicas[0].state == left
    world.clock.advance(6)
    world.router.tick()
    await world.settle()
    assert world.replicas[0].state == ("ready" if idle < 0 else "stopped")
    await world.router.close()


async def test_a_replica_whose_death_is_not_yet_known_costs_a_request_nothing() -> None:
    world = World(1)
    first = world.arrive("t/a", "one")
    await world.settle()
    world.replicas[0].loaded.set()
    await world.settle()
    world.replicas[0].gates[first].set()
    await world.settle()
    # It refuses what comes, and nobody has told the router why.
    world.replicas[0].state = "dead"
    second = world.arrive("t/a", "one")
    await world.settle()
    world.replicas[0].died.set_result("killed by the script")
    world.replicas[1].loaded.set()
    await world.settle()
    world.replicas[1].gates[second].set()
    await world.settle()
    assert world.endings == {first: "done", second: "done"}
    assert world.router.snapshot().deaths == 1
    await world.router.close()
