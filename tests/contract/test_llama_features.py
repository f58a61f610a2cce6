"""Every wish of the chat contract has its effect on llama.cpp, with the real (cut) model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from inferd.engines.base import Request, Resources
from inferd.engines.xllamacpp import XllamacppEngine
from inferd.errors import BadRequest, ContextLengthExceeded
from inferd.tasks.base import Stopped
from inferd.tasks.every import Event
from inferd.tasks.text_generation import (
    ChatPrompt,
    Constraint,
    Detokenized,
    DetokenizeRequest,
    Done,
    Message,
    Sampling,
    Text,
    TextGenerationRequest,
    TextPrompt,
    Token,
    Tokenized,
    TokenizeRequest,
    TokenPrompt,
    Tool,
    ToolCall,
    ToolUse,
)
from tests.weights import smollm2_cut_card, smollm2_cut_path

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

CONTEXT = 2048
GREEDY = Sampling(temperature=0, seed=3)
WEATHER = Tool(
    "get_weather",
    "The weather in a city",
    {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", 'Köln "}']}, "days": {"enum": [1, 2]}},
        "required": ["city", "days"],
    },
)
CLOCK = Tool("get_time")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[XllamacppEngine]:
    card = msgspec.structs.replace(smollm2_cut_card(), slots=4, context_length=CONTEXT)
    folder = tmp_path_factory.mktemp("llama")
    loaded = XllamacppEngine()
    resources = Resources({"model": str(smollm2_cut_path())}, 2, str(folder))
    await asyncio.to_thread(loaded.load, card, resources)
    yield loaded
    await loaded.close()


def chat(text: str = "What is the weather?", **wishes: Any) -> TextGenerationRequest:
    use = wishes.pop("tool_use", None)
    messages = wishes.pop("messages", (Message("user", text),))
    prompt = ChatPrompt(messages, use, continue_final=wishes.pop("continue_final", False))
    fields: dict[str, Any] = {"max_tokens": 80, "sampling": GREEDY} | wishes
    return TextGenerationRequest("m", prompt, **fields)


def raw(prompt: TextPrompt | TokenPrompt, **wishes: Any) -> TextGenerationRequest:
    fields: dict[str, Any] = {"max_tokens": 8, "sampling": GREEDY} | wishes
    return TextGenerationRequest("m", prompt, **fields)


async def events(engine: XllamacppEngine, request: Request) -> list[Event]:
    async with aclosing(engine.run(request, asyncio.Event())) as running:
        return [event async for event in running]


def text_of(seen: list[Event], choice: int = 0) -> str:
    return "".join(e.text for e in seen if isinstance(e, Text) and e.choice == choice)


def tokens_of(seen: list[Event]) -> list[Token]:
    return [token for e in seen if isinstance(e, Text) for token in e.tokens]


def calls_of(seen: list[Event], choice: int = 0) -> list[tuple[str, Any]]:
    """(name, decoded arguments), after checking that each call keeps one id."""
    pieces: dict[int, list[Any]] = {}
    for event in seen:
        if isinstance(event, Text) and event.choice == choice:
            for call in event.calls:
                pieces.setdefault(call.index, []).append(call)
    assert all(len({piece.id for piece in parts}) == 1 for parts in pieces.values())
    return [
        (parts[0].name, msgspec.json.decode("".join(piece.arguments for piece in parts)))
        for parts in pieces.values()
    ]


def reasons(seen: list[Event]) -> tuple[str, ...]:
    assert isinstance(seen[-1], Done)
    return seen[-1].reasons


async def ids_of(engine: XllamacppEngine, text: str) -> tuple[int, ...]:
    (found, _) = await events(engine, TokenizeRequest("m", TextPrompt(text)))
    assert isinstance(found, Tokenized)
    return found.ids


class TestTools:
    async def test_a_required_call_comes_whatever_the_model_would_say(
        self, engine: XllamacppEngine
    ) -> None:
        seen = await events(engine, chat(tool_use=ToolUse((WEATHER, CLOCK), required=True)))
        ((name, arguments),) = calls_of(seen)
        assert name in ("get_weather", "get_time")
        assert name == "get_time" or set(arguments) == {"city", "days"}
        assert (reasons(seen), text_of(seen)) == (("tool_calls",), "")

    async def test_only_tools_that_are_there_are_called(self, engine: XllamacppEngine) -> None:
        for tool in (WEATHER, CLOCK):
            seen = await events(engine, chat(tool_use=ToolUse((tool,), required=True)))
            assert [name for name, _ in calls_of(seen)] == [tool.name]

    async def test_every_choice_has_its_own_calls(self, engine: XllamacppEngine) -> None:
        use = ToolUse((WEATHER,), required=True)
        seen = await events(engine, chat(tool_use=use, n=3, sampling=Sampling(seed=5)))
        assert reasons(seen) == ("tool_calls",) * 3
        assert all(len(calls_of(seen, choice)) == 1 for choice in range(3))

    async def test_several_calls_come_where_they_are_allowed(self, engine: XllamacppEngine) -> None:
        # The end is forbidden for a while, so the only way on is another call.
        use = ToolUse((CLOCK,), required=True, parallel=True)
        forbidden = ((2, -100.0), (0, -100.0))
        seen = await events(engine, chat(tool_use=use, logit_bias=forbidden, max_tokens=70))
        whole = [piece for e in seen if isinstance(e, Text) for piece in e.calls if piece.name]
        assert len(whole) > 1
        assert [piece.index for piece in whole] == list(range(len(whole)))

    async def test_tools_are_shown_to_a_model_whose_template_has_none(
        self, engine: XllamacppEngine
    ) -> None:
        plain = await events(engine, TokenizeRequest("m", chat().prompt))
        taught = await events(
            engine, TokenizeRequest("m", chat(tool_use=ToolUse((WEATHER,))).prompt)
        )
        assert isinstance(plain[0], Tokenized)
        assert isinstance(taught[0], Tokenized)
        text = "".join(taught[0].texts)
        assert "get_weather" in text
        assert "The weather in a city" in text
        assert len(taught[0].ids) > len(plain[0].ids) + 40

    async def test_calls_and_their_results_go_back_in(self, engine: XllamacppEngine) -> None:
        messages = (
            Message("user", "weather?"),
            Message("assistant", "", tool_calls=(ToolCall("c", "get_weather", '{"city":"Oslo"}'),)),
            Message("tool", "17 degrees", tool_call_id="c"),
        )
        prompt = chat(messages=messages, tool_use=ToolUse((WEATHER,))).prompt
        (found, _) = await events(engine, TokenizeRequest("m", prompt))
        assert isinstance(found, Tokenized)
        text = "".join(found.texts)
        assert '{"name": "get_weather", "arguments": {"city":"Oslo"}}' in text
        assert "<tool_response>\n17 degrees\n</tool_response>" in text

    async def test_without_a_duty_the_words_are_the_same_as_without_a_grammar(
        self, engine: XllamacppEngine
    ) -> None:
        use = ToolUse((WEATHER,))
        lesson = await events(engine, TokenizeRequest("m", chat(tool_use=use).prompt))
        assert isinstance(lesson[0], Tokenized)
        free = await events(engine, raw(TokenPrompt(lesson[0].ids), max_tokens=30))
        held = await events(engine, chat(tool_use=use, max_tokens=30))
        assert text_of(held).strip() == text_of(free).strip()


class TestFormats:
    async def test_json_object_is_an_object(self, engine: XllamacppEngine) -> None:
        schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
        for constraint in (Constraint("json_schema", schema), Constraint("json_object")):
            seen = await events(engine, chat(constraint=constraint, max_tokens=300))
            if reasons(seen) == ("eos",):
                assert isinstance(msgspec.json.decode(text_of(seen)), dict)
            assert "\n" not in text_of(seen)

    async def test_a_pattern_is_matched_to_its_end(self, engine: XllamacppEngine) -> None:
        pattern = "[0-9]{4}-[0-9]{2}/[a-c]+x"
        seen = await events(
            engine, chat(constraint=Constraint("regex", pattern=pattern), max_tokens=200)
        )
        if reasons(seen) == ("eos",):
            assert re.fullmatch(pattern, text_of(seen))
        assert re.match("[0-9]{4}-[0-9]{2}/", text_of(seen))

    async def test_a_format_that_cannot_be_kept_is_refused_before_a_step(
        self, engine: XllamacppEngine
    ) -> None:
        with pytest.raises(BadRequest, match="contains"):
            await events(
                engine, chat(constraint=Constraint("json_schema", {"contains": {"type": "null"}}))
            )


class TestTokens:
    async def test_logprobs_are_listed_best_first(self, engine: XllamacppEngine) -> None:
        tokens = tokens_of(await events(engine, chat(logprobs=5, max_tokens=6)))
        assert len(tokens) == 6
        for token in tokens:
            values = [logprob for _, _, logprob in token.top]
            assert values == sorted(values, reverse=True)
            assert len(values) == 5
            # Greedy: the token is the likeliest.
            assert token.logprob == values[0]

    async def test_token_ids_are_as_good_as_their_text(self, engine: XllamacppEngine) -> None:
        text = "The capital of France is"
        ids = await ids_of(engine, text)
        assert text_of(await events(engine, raw(TokenPrompt(ids)))) == text_of(
            await events(engine, raw(TextPrompt(text)))
        )

    async def test_an_echo_scores_a_text_as_it_was_made(self, engine: XllamacppEngine) -> None:
        text = "The capital of France is"
        made = tokens_of(await events(engine, raw(TextPrompt(text), logprobs=1)))
        ids = await ids_of(engine, text)
        whole = TokenPrompt((*ids, *(token.id for token in made if token.id is not None)))
        seen = await events(engine, raw(whole, echo=True, logprobs=1, max_tokens=1))
        scored = tokens_of(seen)[len(ids) : len(ids) + len(made)]
        assert tokens_of(seen)[0].logprob is None
        for one, other in zip(made, scored, strict=True):
            assert (one.id, one.text) == (other.id, other.text)
            assert one.logprob == pytest.approx(other.logprob, abs=0.2)
        assert isinstance(seen[-1], Done)
        assert seen[-1].usage.input_tokens == len(whole.ids)
        assert seen[-1].usage.cached_tokens == 0

    async def test_leaving_an_echo_frees_its_slot(self, engine: XllamacppEngine) -> None:
        ids = await ids_of(engine, "word " * 400)
        cancel = asyncio.Event()
        seen: list[Event] = []
        request = raw(TokenPrompt(ids), echo=True, logprobs=0)
        async with aclosing(engine.run(request, cancel)) as running:
            async for event in running:
                seen.append(event)
                cancel.set()
        assert isinstance(seen[-1], Stopped)
        assert seen[-1].usage.input_tokens < len(ids)
        assert reasons(await events(engine, chat(n=4, max_tokens=1))) == ("length",) * 4

    async def test_a_stop_token_ends_and_is_not_shown(self, engine: XllamacppEngine) -> None:
        made = tokens_of(await events(engine, chat(max_tokens=12)))
        last = made[6]
        assert last.id is not None
        first = next(at for at, token in enumerate(made) if token.id == last.id)
        seen = await events(engine, chat(max_tokens=12, stop_token_ids=(last.id,)))
        assert reasons(seen) == ("stop_sequence",)
        assert text_of(seen) == "".join(token.text for token in made[:first])

    async def test_a_bias_decides(self, engine: XllamacppEngine) -> None:
        seen = await events(engine, chat(logit_bias=((28, 100.0),), max_tokens=4))
        assert [token.id for token in tokens_of(seen)] == [28] * 4

    async def test_ignore_eos_goes_on_to_the_budget(self, engine: XllamacppEngine) -> None:
        wish: dict[str, Any] = {"logit_bias": ((2, 100.0),), "max_tokens": 9}
        assert reasons(await events(engine, chat(**wish))) == ("eos",)
        seen = await events(engine, chat(**wish, ignore_eos=True))
        assert reasons(seen) == ("length",)

    @pytest.mark.parametrize(
        "wish", [{"logit_bias": ((10**6, 1.0),)}, {"stop_token_ids": (49152,)}]
    )
    async def test_ids_outside_the_vocabulary_are_refused(
        self, engine: XllamacppEngine, wish: dict[str, Any]
    ) -> None:
        with pytest.raises(BadRequest, match="vocabulary"):
            await events(engine, chat(**wish))

    async def test_text_and_tokens_are_two_sides(self, engine: XllamacppEngine) -> None:
        text = "Zwölf 😀 boxes\n\n<|im_end|>"
        ids = await ids_of(engine, text)
        (found, _) = await events(engine, DetokenizeRequest("m", ids))
        assert isinstance(found, Detokenized)
        assert found.text == text

    async def test_what_cannot_fit_is_refused_before_it_is_cut_up(
        self, engine: XllamacppEngine
    ) -> None:
        for text in ("x" * 3_000_000, "<|im_end|>" * (CONTEXT + 1)):
            with pytest.raises(ContextLengthExceeded):
                await asyncio.wait_for(events(engine, raw(TextPrompt(text))), 5)


class TestPrompts:
    async def test_a_last_message_is_continued(self, engine: XllamacppEngine) -> None:
        messages = (Message("user", "Count"), Message("assistant", "one two"))
        prompt = chat(messages=messages, continue_final=True).prompt
        (found, _) = await events(engine, TokenizeRequest("m", prompt))
        assert isinstance(found, Tokenized)
        assert "".join(found.texts).endswith("assistant\none two")

    async def test_a_key_keeps_its_prefix_beside_others(self, engine: XllamacppEngine) -> None:
        async def cached(key: str, words: str) -> int:
            wish = {"cache_scope": "acc", "cache_key": key, "max_tokens": 1}
            seen = await events(engine, chat(words * 30, **wish))
            assert isinstance(seen[-1], Done)
            return seen[-1].usage.cached_tokens

        await cached("a", "apples ")
        await cached("b", "pears ")
        assert await cached("a", "apples ") > 30
        assert await cached("b", "pears ") > 30
