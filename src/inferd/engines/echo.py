"""An engine without weights: answers with the words it was given, one token for each word.

It is the fake of the tests and of load measurements, never in the packaged catalogue. Its card's
tags turn it slow or faulty:

    echo:load_ms=500      loading takes so long          echo:token_ms=5     so does each token
    echo:prefill_ms=2     and each prompt token          echo:fail_after=3   raises after 3 tokens
    echo:crash_after=3    the process dies               echo:load_fails=1   it never loads
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from inferd.catalog.card import ModelCard
from inferd.engines.base import Features, Request, Resources
from inferd.engines.budget import output_budget
from inferd.engines.stop_strings import StopStrings
from inferd.errors import EngineFailed
from inferd.tasks.base import Usage
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    Event,
    FinishReason,
    Progress,
    Started,
    Stopped,
    Text,
    Token,
)

PREFILL_STEP = 32
"""Prompt tokens between two looks at `cancel`."""


class EchoEngine:
    """Says what it hears."""

    def __init__(self) -> None:
        self._knobs: dict[str, float] = {}
        self._context_length = 0

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Read the knobs."""
        for tag in card.tags:
            name, _, value = tag.removeprefix("echo:").partition("=")
            if tag.startswith("echo:"):
                self._knobs[name] = float(value)
        time.sleep(self._knob("load_ms") / 1000)
        if "load_fails" in self._knobs:
            raise EngineFailed("The echo model was told not to load.")
        self._context_length = card.context_length
        return Features(("text-generation",), card.slots, card.context_length)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Echo the last message, or the prompt."""
        words = _prompt(request).split()
        budget = output_budget(self._context_length, len(words), request.max_tokens)
        yield Started(len(words), budget)
        seen = 0
        while seen < len(words):
            step = min(PREFILL_STEP, len(words) - seen)
            await self._pause(self._knob("prefill_ms") * step)
            seen += step
            if cancel.is_set():
                yield Stopped(Usage(input_tokens=seen))
                return
            yield Progress(Usage(input_tokens=seen))
        said = [_Choice(request.stop) for _ in range(request.n)]
        async for event in self._say(words, budget, said, cancel):
            yield event

    async def _say(  # noqa: C901 the knobs of a fake are its branches
        self, words: list[str], budget: int, said: list[_Choice], cancel: asyncio.Event
    ) -> AsyncGenerator[Event]:
        output = 0
        for position in range(max(budget, 1)):
            await self._pause(self._knob("token_ms"))
            for index, choice in enumerate(said):
                if choice.reason is not None:
                    continue
                if position >= len(words):
                    choice.reason = "eos"
                    continue
                self._misbehave(output)
                output += 1
                usage = Usage(len(words), 0, output)
                if cancel.is_set():
                    yield Stopped(usage)
                    return
                yield choice.say(index, words[position], position, usage)
                if choice.reason is None and position + 1 >= budget:
                    choice.reason = "length" if budget < len(words) else "eos"
            if all(choice.reason is not None for choice in said):
                break
        usage = Usage(len(words), 0, output)
        for index, choice in enumerate(said):
            if rest := choice.stops.flush():
                yield Text(index, rest, (), usage)
        yield Done(tuple(choice.reason or "eos" for choice in said), usage)

    async def close(self) -> None:
        """Nothing to free."""

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """What the card says, else next to nothing."""
        return card.memory_bytes or 1 << 20

    def _misbehave(self, output: int) -> None:
        if output >= self._knobs.get("crash_after", float("inf")):
            os._exit(3)
        if output >= self._knobs.get("fail_after", float("inf")):
            raise EngineFailed("The echo model was told to fail.")

    def _knob(self, name: str) -> float:
        return self._knobs.get(name, 0.0)

    async def _pause(self, milliseconds: float) -> None:
        await asyncio.sleep(milliseconds / 1000)


class _Choice:
    def __init__(self, stop: tuple[str, ...]) -> None:
        self.stops = StopStrings(stop)
        self.reason: FinishReason | None = None

    def say(self, index: int, word: str, position: int, usage: Usage) -> Text:
        text = word if position == 0 else f" {word}"
        shown = self.stops.feed(text)
        if self.stops.matched:
            self.reason = "stop_sequence"
        return Text(index, shown, (Token(position, text, 0.0),), usage)


def _prompt(request: Request) -> str:
    if isinstance(request.prompt, ChatPrompt):
        return request.prompt.messages[-1].content
    return request.prompt.text
