"""The scheduler's decisions, one situation each, and the fair queue's order."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from inferd.serving.fair_queue import FairQueue
from inferd.serving.scheduler import Drain, ModelView, Policy, Refuse, Start, Stop, plan

POLICY = Policy(memory_bytes=100, idle_seconds=60, swap_wait_seconds=10)


def view(model: str, state: str = "cold", memory: int = 60, **fields: float) -> ModelView:
    return ModelView(model, state, memory, **fields)  # pyright: ignore[reportArgumentType]


def test_a_waiting_model_that_fits_starts() -> None:
    assert plan([view("a", queued=1)], 0, POLICY).decisions == (Start("a"),)


def test_nobody_waits_nothing_happens() -> None:
    assert plan([view("a"), view("b", "ready")], 1, POLICY).decisions == ()


def test_an_idle_model_makes_room_after_its_linger() -> None:
    models = [view("a", queued=1, oldest_seconds=5), view("b", "ready", idle_since_seconds=5)]
    early = plan(models, 5.01, POLICY)
    assert early.decisions == ()
    assert early.wake_at_seconds is not None
    assert plan(models, early.wake_at_seconds, POLICY).decisions == (Stop("b", evicted=True),)


def test_a_busy_model_is_not_disturbed_before_the_wait_is_over_and_drains_then() -> None:
    models = [view("a", queued=1, oldest_seconds=0), view("b", "ready", in_flight=2, queued=5)]
    assert plan(models, 9.9, POLICY).decisions == ()
    assert plan(models, 10, POLICY).decisions == (Drain("b"),)


def test_a_draining_model_stops_when_it_is_empty() -> None:
    assert plan([view("a", "draining", in_flight=1)], 0, POLICY).decisions == ()
    assert plan([view("a", "draining")], 0, POLICY).decisions == (Stop("a", evicted=True),)


def test_memory_that_is_already_coming_free_is_waited_for() -> None:
    models = [
        view("a", queued=1),
        view("b", "stopping"),
        view("c", "ready", memory=40, in_flight=1, idle_since_seconds=0),
    ]
    assert plan(models, 50, POLICY).decisions == ()


def test_the_longest_line_goes_first() -> None:
    models = [view("a", queued=1), view("b", queued=4)]
    assert plan(models, 1, POLICY).decisions == (Start("b"),)


def test_whoever_has_waited_too_long_goes_before_the_longest_line() -> None:
    models = [
        view("a", queued=1, oldest_seconds=0),
        view("b", queued=4, oldest_seconds=9),
    ]
    assert plan(models, 12, POLICY).decisions == (Start("a"),)


def test_one_that_can_never_fit_is_refused() -> None:
    assert plan([view("a", memory=101, queued=1)], 0, POLICY).decisions == (Refuse("a", 101),)


def test_one_that_failed_is_not_started_before_its_time() -> None:
    models = [view("a", queued=1, retry_at_seconds=8)]
    waiting = plan(models, 5, POLICY)
    assert (waiting.decisions, waiting.wake_at_seconds) == ((), 8)
    assert plan(models, 8, POLICY).decisions == (Start("a"),)


def test_idle_models_are_unloaded_in_time_and_minus_one_means_never() -> None:
    models = [view("a", "ready", idle_since_seconds=0)]
    assert plan(models, 59, POLICY).wake_at_seconds == 60
    assert plan(models, 60, POLICY).decisions == (Stop("a", evicted=False),)
    never = Policy(memory_bytes=100, idle_seconds=-1, swap_wait_seconds=10)
    assert plan(models, 1e9, never).decisions == ()


def test_one_that_died_in_use_comes_back_without_being_asked() -> None:
    assert plan([view("a", wanted=True)], 0, POLICY).decisions == (Start("a"),)


views = st.builds(
    ModelView,
    model=st.sampled_from("abcdef"),
    state=st.sampled_from(["cold", "loading", "ready", "draining", "stopping"]),
    memory_bytes=st.integers(0, 120),
    in_flight=st.integers(0, 2),
    queued=st.integers(0, 3),
    oldest_seconds=st.floats(0, 100),
    idle_since_seconds=st.floats(0, 100),
    retry_at_seconds=st.floats(0, 100),
    wanted=st.booleans(),
)


@given(st.lists(views, max_size=6, unique_by=lambda m: m.model), st.floats(0, 200))
def test_no_plan_breaks_the_budget_or_stops_what_runs(models: list[ModelView], now: float) -> None:
    decided = plan(models, now, POLICY)
    by_name = {m.model: m for m in models}
    used = sum(m.memory_bytes for m in models if m.state != "cold")
    started = [by_name[d.model] for d in decided.decisions if isinstance(d, Start)]
    if started:
        assert used + sum(m.memory_bytes for m in started) <= POLICY.memory_bytes
    for decision in decided.decisions:
        model = by_name[decision.model]
        if isinstance(decision, Stop):
            assert not model.in_flight or model.state == "loading"
        if isinstance(decision, Start):
            assert model.state == "cold"
    assert decided.wake_at_seconds is None or decided.wake_at_seconds > now


@dataclass(frozen=True)
class Job:
    account_id: str
    work: int
    number: int


def test_accounts_take_turns() -> None:
    queue: FairQueue[Job] = FairQueue()
    for number in range(100):
        queue.push(Job("greedy", 10, number))
    queue.push(Job("modest", 10, 0))
    order = [queue.pop() for _ in range(3)]
    assert "modest" in {job.account_id for job in order if job is not None}


def test_heavy_work_costs_turns() -> None:
    queue: FairQueue[Job] = FairQueue()
    for number in range(20):
        queue.push(Job("heavy", 90, number))
        queue.push(Job("light", 10, number))
    first = [queue.pop() for _ in range(11)]
    light = sum(job is not None and job.account_id == "light" for job in first)
    assert light >= 8


jobs = st.builds(Job, st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 1000))


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), jobs), max_size=60))
def test_the_queue_loses_and_doubles_nothing(steps: list[tuple[str, Job]]) -> None:
    queue: FairQueue[Job] = FairQueue()
    inside: list[Job] = []
    for step, job in steps:
        if step == "push":
            queue.push(job)
            inside.append(job)
        elif step == "pop":
            head, popped = queue.head(), queue.pop()
            assert head == popped
            if popped is not None:
                own = [j for j in inside if j.account_id == popped.account_id]
                assert own[0] == popped, "first come, first served within an account"
                inside.remove(popped)
        else:
            assert queue.remove(job) is (job in inside)
            if job in inside:
                inside.remove(job)
        assert len(queue) == len(inside)
        assert sorted(map(repr, queue.items())) == sorted(map(repr, inside))
