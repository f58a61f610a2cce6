"""Windows of several requests, decoded together. Imported in workers only.

The library asks for one window at a time, from a thread of each request. Whoever asks while a
step is computed waits; the next step takes all that wait and want the same. Nobody waits for a
timer. Encoding is left as it is: on a CPU it is no faster for several windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Condition
from typing import Any

import numpy as np

ITEMS_MAX = 8


class _Job:
    """One window."""

    def __init__(self, encoded: Any, prompt: Sequence[int], options: dict[str, Any]) -> None:
        self.encoded = encoded
        self.prompt = list(prompt)
        self.options = options
        self.result: Any = None
        self.error: Exception | None = None
        self.done = False

    def like(self, other: _Job) -> bool:
        """Whether both can be computed in one step."""
        return self.prompt == other.prompt and self.options == other.options


class SharedDecoder:
    """Stands for CTranslate2's Whisper model on a CPU; all but `generate` is that model's own."""

    def __init__(self, model: Any, storage: Any) -> None:
        self._model = model
        self._storage = storage
        self._turn = Condition()
        self._waiting: list[_Job] = []
        self._computing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, encoded: Any, prompts: list[list[int]], **options: Any) -> list[Any]:
        """One window, as the library calls it. Raises what the model raises."""
        job = _Job(encoded, prompts[0], options)
        with self._turn:
            self._waiting.append(job)
        while batch := self._next_step(job):
            try:
                self._compute(batch)
            finally:
                with self._turn:
                    self._computing = False
                    for one in batch:
                        one.done = True
                    self._turn.notify_all()
        if job.error is not None:
            raise job.error
        return [job.result]

    def _next_step(self, job: _Job) -> list[_Job]:
        """The step that this thread is to compute, the oldest first; [] when its job is done."""
        with self._turn:
            while self._computing and not job.done:
                self._turn.wait()
            if job.done:
                return []
            self._computing = True
            first = self._waiting[0]
            batch = [one for one in self._waiting if one.like(first)][:ITEMS_MAX]
            self._waiting = [one for one in self._waiting if one not in batch]
            return batch

    def _compute(self, batch: list[_Job]) -> None:
        try:
            results = self._step(batch)
        except Exception as error:  # noqa: BLE001 whose fault it is shows when each is alone
            if len(batch) == 1:
                batch[0].error = error
                return
            for job in batch:
                self._compute([job])
            return
        for job, result in zip(batch, results, strict=True):
            job.result = result

    def _step(self, batch: list[_Job]) -> list[Any]:
        encoded = batch[0].encoded
        if len(batch) > 1:
            # The view owns nothing: `joined` lives as long as the step.
            joined = np.concatenate([np.asarray(job.encoded) for job in batch])
            encoded = self._storage.from_array(joined)
        prompts = [job.prompt for job in batch]
        found: list[Any] = self._model.generate(encoded, prompts, **batch[0].options)
        return found
