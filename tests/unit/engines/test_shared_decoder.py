"""Windows that are decoded together: who joins whom, and whose fault stays whose."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inferd.engines.shared_decoder import ITEMS_MAX, SharedDecoder

Encoded = NDArray[np.float32]


class Model:
    """Says the number that it was given, times ten. Waits until it may go on."""

    device = "cpu"

    def __init__(self) -> None:
        self.begun, self.go_on = Event(), Event()
        self.calls: list[int] = []

    def generate(self, encoded: Encoded, prompts: list[list[int]], **options: Any) -> list[float]:
        self.calls.append(len(prompts))
        self.begun.set()
        assert self.go_on.wait(10)
        if (encoded < 0).any():
            raise RuntimeError("below zero")
        return [float(one) * 10 for one in encoded[:, 0]]


class Storage:
    @staticmethod
    def from_array(array: Encoded) -> Encoded:
        return array


def decoder(model: Model) -> SharedDecoder:
    return SharedDecoder(model, Storage)


def window(number: float) -> Encoded:
    return np.full((1, 3), number, np.float32)


def all_wait(shared: SharedDecoder, count: int) -> None:
    with shared._turn:  # pyright: ignore[reportPrivateUsage] to see when all have come
        while len(shared._waiting) < count:  # pyright: ignore[reportPrivateUsage]
            shared._turn.wait(0.001)  # pyright: ignore[reportPrivateUsage]


def run(numbers: list[float], *, prompts: list[list[int]] | None = None) -> tuple[Model, list[Any]]:
    """The first is computed while the others gather."""
    model = Model()
    shared = decoder(model)
    texts = prompts or [[1, 2]] * len(numbers)
    with ThreadPoolExecutor(len(numbers)) as threads:
        first = threads.submit(shared.generate, window(numbers[0]), [texts[0]], beam_size=1)
        assert model.begun.wait(10)
        rest = [
            threads.submit(shared.generate, window(number), [text], beam_size=1)
            for number, text in zip(numbers[1:], texts[1:], strict=True)
        ]
        all_wait(shared, len(rest))
        model.go_on.set()
        outcomes = [one.exception() or one.result() for one in [first, *rest]]
    return model, outcomes


def test_what_gathers_while_a_step_runs_is_the_next_step() -> None:
    model, outcomes = run([1, 2, 3, 4])
    assert outcomes == [[10], [20], [30], [40]]
    assert model.calls == [1, 3]


def test_a_step_has_a_limit() -> None:
    model, outcomes = run([float(number) for number in range(ITEMS_MAX + 4)])
    assert outcomes == [[number * 10] for number in range(ITEMS_MAX + 4)]
    assert model.calls == [1, ITEMS_MAX, 3]


def test_other_prompts_and_options_go_by_themselves() -> None:
    model, outcomes = run([1, 2, 3, 4], prompts=[[1], [2], [1], [2]])
    assert outcomes == [[10], [20], [30], [40]]
    assert sorted(model.calls) == [1, 1, 2]


def test_one_bad_window_fails_alone() -> None:
    _, outcomes = run([1, 2, -3, 4])
    assert [outcomes[0], outcomes[1], outcomes[3]] == [[10], [20], [40]]
    assert isinstance(outcomes[2], RuntimeError)


def test_all_else_is_the_models_own() -> None:
    assert decoder(Model()).device == "cpu"
    with pytest.raises(AttributeError):
        _ = decoder(Model()).no_such_thing
