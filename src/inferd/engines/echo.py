"""An engine without weights: answers with the words it was given, one token for each word.

It is the fake of the tests and of load measurements, never in the packaged catalogue. Every other
task is in `echo_tasks.py`: a card names its task. Tags of a card turn it slow or faulty:

    echo:load_ms=500      loading takes so long          echo:token_ms=5     so does each token
    echo:prefill_ms=2     and each prompt token          echo:fail_after=3   raises after 3 tokens
    echo:crash_after=3    the process dies               echo:load_fails=1   it never loads
    echo:compute_ms=40    what a picture is billed for (text and classifiers are billed by words)

A request may say the same of itself, as words in its text: `echo:fail_after=3` anywhere in a prompt
or an input (loading apart). The tag `reasoning` lets it tell `<think>…</think>` from the rest; with
tools it knows calls.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from inferd.catalog.card import ModelCard
from inferd.engines.answer_parser import AnswerParser
from inferd.engines.base import Features, Request, Resources
from inferd.engines.budget import output_budget
from inferd.engines.echo_knobs import Knobs
from inferd.engines.echo_tasks import answer
from inferd.engines.stop_strings import StopStrings
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import NOTHING, Progress, Stopped, Usage
from inferd.tasks.every import Event
from inferd.tasks.text_generation import (
    ChatPrompt,
    Detokenized,
    DetokenizeRequest,
    Done,
    FinishReason,
    Prompt,
    Started,
    Text,
    TextGenerationRequest,
    Token,
    Tokenized,
    TokenizeRequest,
    TokenPrompt,
)

_WORD = re.compile(r"\n*[^\s]+")
PREFILL_STEP = 32
"""Prompt tokens between two looks at `cancel`."""


class EchoEngine:
    """Says what it hears."""

    def __init__(self) -> None:
        self._knobs = Knobs()
        self._card: ModelCard | None = None
        self._context_length = 0
        self._vocabulary = _Vocabulary()
        self._thinks = False

    def load(self, card: ModelCard, resources: Resources) -> Features:
        """Read the knobs."""
        self._knobs = Knobs.of_card(card.tags)
        time.sleep(self._knobs.number("load_ms") / 1000)
        if "load_fails" in self._knobs:
            raise EngineFailed("The echo model was told not to load.")
        self._card = card
        self._context_length = card.context_length
        self._thinks = "reasoning" in card.tags
        spare = int(self._knobs.number("spare"))
        return Features((card.task,), card.slots, card.context_length, spare)

    async def run(self, request: Request, cancel: asyncio.Event) -> AsyncGenerator[Event]:
        """Echo the last message, or the prompt; do what another task asks for."""
        assert self._card is not None, "nothing runs before it is loaded"
        if isinstance(request, TokenizeRequest | DetokenizeRequest):
            yield self._tokenized(request)
            yield Done((), NOTHING)
            return
        knobs = self._knobs.of_request(request)
        if isinstance(request, TextGenerationRequest):
            made = self._generate(request, knobs, cancel)
        else:
            made = answer(request, self._card, knobs, cancel.is_set)
        async with aclosing(made) as events:
            async for event in events:
                yield event

    async def _generate(
        self, request: TextGenerationRequest, knobs: Knobs, cancel: asyncio.Event
    ) -> AsyncGenerator[Event]:
        if request.constraint is not None or request.logit_bias:
            raise BadRequest("The echo model says what it hears, whatever the format or bias.")
        words = self._words(request.prompt)
        budget = output_budget(self._context_length, len(words), request.max_tokens)
        yield Started(len(words), budget)
        seen = 0
        while seen < len(words):
            step = min(PREFILL_STEP, len(words) - seen)
            await knobs.pause("prefill_ms", step)
            seen += step
            if cancel.is_set():
                yield Stopped(Usage(input_tokens=seen))
                return
            yield Progress(Usage(input_tokens=seen))
        said = [_Choice(request, self._thinks) for _ in range(request.n)]
        if request.echo:
            usage = Usage(input_tokens=seen)
            tokens = tuple(self._token(word, at) for at, word in enumerate(words))
            for index in range(request.n):
                yield Text(index, " ".join(words), tokens, usage)
        async for event in self._say(words, budget, said, knobs, cancel):
            yield event

    async def _say(  # noqa: C901 the knobs of a fake are its branches
        self,
        words: list[str],
        budget: int,
        said: list[_Choice],
        knobs: Knobs,
        cancel: asyncio.Event,
    ) -> AsyncGenerator[Event]:
        output = 0
        for position in range(max(budget, 1)):
            await knobs.pause("token_ms")
            for index, choice in enumerate(said):
                if choice.over(position, len(words)):
                    continue
                knobs.misbehave(output)
                output += 1
                usage = Usage(len(words), 0, output, reasoning_tokens=_thought(said))
                if cancel.is_set():
                    yield Stopped(usage)
                    return
                token = self._token(words[position % len(words)], position)
                yield choice.say(index, token, usage)
                if choice.reason is None and position + 1 >= budget:
                    cut = budget < len(words) or choice.endless
                    choice.reason = "length" if cut else "eos"
            if all(choice.reason is not None for choice in said):
                break
        usage = Usage(len(words), 0, output, reasoning_tokens=_thought(said))
        for index, choice in enumerate(said):
            if rest := choice.flush(index, usage):
                yield rest
        reasons: tuple[FinishReason, ...] = tuple(choice.reason or "eos" for choice in said)
        yield Done(reasons, usage, stopped_at=tuple(choice.stops.matched for choice in said))

    async def close(self) -> None:
        """Nothing to free."""

    @staticmethod
    def memory_bytes(card: ModelCard, files: dict[str, Path]) -> int:
        """What the card says, else next to nothing."""
        return card.memory_bytes or 1 << 20

    def _words(self, prompt: Prompt) -> list[str]:
        if isinstance(prompt, ChatPrompt):
            text = prompt.messages[-1].content
            # Markup keeps its line breaks: they are part of it.
            return [word for word in _WORD.findall(text) if word]
        if isinstance(prompt, TokenPrompt):
            return [self._vocabulary.word(id_) for id_ in prompt.ids]
        return prompt.text.split()

    def _token(self, word: str, position: int) -> Token:
        text = word if position == 0 or word.startswith("\n") else f" {word}"
        id_ = self._vocabulary.id(word)
        return Token(id_, text, 0.0, top=((id_, text, 0.0),))

    def _tokenized(self, request: TokenizeRequest | DetokenizeRequest) -> Event:
        if isinstance(request, DetokenizeRequest):
            return Detokenized(" ".join(self._vocabulary.word(id_) for id_ in request.ids))
        words = self._words(request.prompt)
        ids = tuple(self._vocabulary.id(word) for word in words)
        return Tokenized(ids, tuple(words), self._context_length)


class _Vocabulary:
    """Ids of words in the order in which they were first heard."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: list[str] = []

    def id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self._words)
            self._words.append(word)
        return self._ids[word]

    def word(self, id_: int) -> str:
        if not 0 <= id_ < len(self._words):
            raise BadRequest(f"The token id {id_} is outside of the vocabulary.", param="prompt")
        return self._words[id_]


class _Choice:
    def __init__(self, request: TextGenerationRequest, thinks: bool) -> None:  # noqa: FBT001 a fake
        self.stops = StopStrings(request.stop)
        self.reason: FinishReason | None = None
        self.endless = request.ignore_eos
        self.thought = 0
        chat = isinstance(request.prompt, ChatPrompt)
        tools = isinstance(request.prompt, ChatPrompt) and request.prompt.tool_use is not None
        self._parser = AnswerParser(thinks=thinks and chat, tools=tools)
        self._stop_ids = request.stop_token_ids

    def over(self, position: int, words: int) -> bool:
        """Nothing more to say."""
        if self.reason is None and not words:
            self.reason = "eos"
        if self.reason is None and position >= words and not self.endless:
            self.reason = "eos"
        return self.reason is not None

    def say(self, index: int, token: Token, usage: Usage) -> Text:
        """One word."""
        self.thought += self._parser.state == "thinking"
        if token.id in self._stop_ids:
            self.reason = "stop_sequence"
            return Text(index, "", (token,), usage)
        shown = self._parser.feed(self.stops.feed(token.text))
        if self.stops.matched:
            self.reason = "stop_sequence"
        return Text(index, shown.text, (token,), usage, shown.reasoning, shown.calls)

    def flush(self, index: int, usage: Usage) -> Text | None:
        """What was held back, and the reason of an answer that calls."""
        held = self._parser.feed(self.stops.flush())
        rest = self._parser.flush()
        if self.reason == "eos" and self._parser.calls:
            self.reason = "tool_calls"
        text, thought = held.text + rest.text, held.reasoning + rest.reasoning
        calls = held.calls + rest.calls
        return Text(index, text, (), usage, thought, calls) if text or thought or calls else None


def _thought(said: list[_Choice]) -> int:
    return sum(choice.thought for choice in said)
