"""The lines of the service tiers: the higher first, and none waits for ever."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from inferd.serving.fair_queue import TIERS, TURN_OF_THE_LAST, TieredQueue
from inferd.tasks.base import Tier


@dataclass(frozen=True)
class Job:
    account_id: str
    tier: Tier
    number: int
    work: int = 10


def test_priority_goes_first_and_flex_last() -> None:
    queue: TieredQueue[Job] = TieredQueue()
    for number, tier in enumerate(reversed(TIERS)):
        queue.push(Job("a", tier, number))
    served = [job.tier for _ in TIERS if (job := queue.pop())]
    assert served == list(TIERS)


def test_the_lowest_tier_gets_its_turn_under_a_flood_of_the_highest() -> None:
    queue: TieredQueue[Job] = TieredQueue()
    queue.push(Job("poor", "flex", 0))
    for number in range(100):
        queue.push(Job("rich", "priority", number))
    first = [queue.pop() for _ in range(TURN_OF_THE_LAST)]
    assert [job.tier for job in first if job].count("flex") == 1


jobs = st.builds(Job, st.sampled_from("ab"), st.sampled_from(TIERS), st.integers(0, 10**6))


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), jobs), max_size=60))
def test_the_lines_lose_and_double_nothing(steps: list[tuple[str, Job]]) -> None:
    queue: TieredQueue[Job] = TieredQueue()
    inside: list[Job] = []
    for step, job in steps:
        if step == "push":
            queue.push(job)
            inside.append(job)
        elif step == "pop":
            head, popped = queue.head(), queue.pop()
            assert head == popped
            assert (popped is None) == (not inside)
            if popped is not None:
                inside.remove(popped)
        else:
            there = job in inside
            assert queue.remove(job) == there
            if there:
                inside.remove(job)
        assert len(queue) == len(inside)
        assert sorted(queue.items(), key=repr) == sorted(inside, key=repr)
