"""POST /anthropic/v1/messages: what is taken, what is refused, and how answers are told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.api.anthropic.messages import to_request
from inferd.api.anthropic.prompt import chat_prompt
from inferd.api.anthropic.wire import MessagesIn
from inferd.errors import BadRequest, UnsupportedField
from inferd.money import usd
from inferd.tasks.text_generation import ChatPrompt, Message, Tool, ToolCall, ToolUse
from tests.api.anthropic_stream import accumulate
from tests.gateway import Client, Gateway, Response, echo_card, gateway
from tests.ledger import entries

MESSAGES = "/anthropic/v1/messages"
COUNT = "/anthropic/v1/messages/count_tokens"
WEATHER = {"name": "weather", "description": "Asks.", "input_schema": {"type": "object"}}


def body(text: str = "one two three", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "test/echo", "max_tokens": 100, "messages": messages} | fields


def wire(**fields: Any) -> MessagesIn:
    return msgspec.convert(body(**fields), MessagesIn)


def prompt(*messages: tuple[str, Any], **fields: Any) -> ChatPrompt:
    turns = [{"role": role, "content": content} for role, content in messages]
    return chat_prompt(wire(messages=turns, **fields))


def error(answer: Response) -> tuple[int, str, str]:
    told = answer.json()
    assert told["type"] == "error"
    return answer.status, told["error"]["type"], told["error"]["message"]


class Test200:
    async def test_a_plain_answer_has_anthropics_shape(self, gate: Gateway) -> None:
        answer = await gate.client.post(MESSAGES, body())
        assert answer.status == 200
        told = answer.json()
        usage = told.pop("usage")
        assert told == {
            "id": "msg_" + answer.headers["x-request-id"],
            "type": "message",
            "role": "assistant",
            "model": "test/echo",
            "content": [{"type": "text", "text": "one two three"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
        }
        assert usage["cache_creation_input_tokens"] == 0
        assert usage["service_tier"] == "standard"

    async def test_usage_and_cost_equal_the_ledgers(self, gate: Gateway) -> None:
        asked = body(metadata={"user_id": "team-7"})
        usage = (await gate.client.post(MESSAGES, asked)).json()["usage"]
        (entry,) = await entries(gate)
        assert (entry.dialect, entry.status, entry.end_user) == ("anthropic", "succeeded", "team-7")
        read = usage["cache_read_input_tokens"]
        assert read == entry.cached_tokens
        assert usage["input_tokens"] + read == entry.input_tokens > 0
        assert usage["output_tokens"] == entry.output_tokens > 0
        assert usage["estimated_cost"] == usd(entry.cost_nanos) > 0

    async def test_streamed_and_plain_answers_are_the_same(self, gate: Gateway) -> None:
        plain = (await gate.client.post(MESSAGES, body())).json()
        answer = await gate.client.post(MESSAGES, body(stream=True))
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        streamed = accumulate(answer.body)
        assert streamed.pop("id") != plain.pop("id")
        assert streamed == plain

    async def test_an_answer_without_text_has_no_blocks(self, gate: Gateway) -> None:
        asked = body(stop_sequences=["one"])
        plain = (await gate.client.post(MESSAGES, asked)).json()
        streamed = accumulate((await gate.client.post(MESSAGES, asked | {"stream": True})).body)
        assert plain["content"] == streamed["content"] == []
        assert plain["stop_reason"] == streamed["stop_reason"] == "stop_sequence"

    async def test_a_stop_sequence_is_named(self, gate: Gateway) -> None:
        told = (await gate.client.post(MESSAGES, body(stop_sequences=["x", "two"]))).json()
        assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", "two")
        assert told["content"] == [{"type": "text", "text": "one "}]

    async def test_a_spent_token_budget_is_named(self, gate: Gateway) -> None:
        told = (await gate.client.post(MESSAGES, body(max_tokens=2))).json()
        assert (told["stop_reason"], told["usage"]["output_tokens"]) == ("max_tokens", 2)

    async def test_max_tokens_may_be_missing(self, gate: Gateway) -> None:
        asked = body()
        del asked["max_tokens"]
        assert (await gate.client.post(MESSAGES, asked)).json()["stop_reason"] == "end_turn"

    async def test_a_clients_own_headers_query_and_extra_fields_do_not_disturb(
        self, gate: Gateway
    ) -> None:
        assert gate.client.token is not None
        headers = {
            "x-api-key": gate.client.token,
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "interleaved-thinking-2025-05-14",
        }
        client = Client(gate.client.app, token=None, headers=headers)
        asked = body(context_management={"edits": []}, cache_control={"type": "ephemeral"})
        assert (await client.post(f"{MESSAGES}?beta=true", asked)).status == 200

    @pytest.mark.parametrize(
        ("multiplier", "asked", "told"),
        [
            ("1.5", None, "standard"),
            ("1.5", "standard_only", "standard"),
            ("1.5", "auto", "priority"),
            (None, "auto", "standard"),
        ],
    )
    async def test_the_tier_that_is_paid_is_told(
        self, tmp_path: Path, multiplier: str | None, asked: str | None, told: str
    ) -> None:
        card = echo_card()
        assert card.price is not None
        tiered = echo_card(price=msgspec.structs.replace(card.price, priority=multiplier))
        async with gateway(tmp_path, tiered) as running:
            answer = await running.client.post(MESSAGES, body(service_tier=asked))
            usage = answer.json()["usage"]
            (entry,) = await entries(running)
            assert usage["service_tier"] == told
            assert usage["estimated_cost"] == usd(entry.cost_nanos)

    async def test_the_first_model_that_has_room_answers(self, gate: Gateway) -> None:
        asked = body(model="test/ignored", models=["test/echo", "test/echo"])
        assert (await gate.client.post(MESSAGES, asked)).json()["model"] == "test/echo"


class TestThinkingAndTools:
    @pytest.fixture
    async def thinker(self, tmp_path: Path) -> AsyncIterator[Gateway]:
        async with gateway(tmp_path, echo_card(tags=("reasoning",))) as running:
            yield running

    SAID = (
        "<think>\nlet me see\n</think>\n\nI ask.\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": [1, 2]}}\n'
        "</tool_call>"
    )

    async def test_thoughts_text_and_calls_are_blocks_of_their_own(self, thinker: Gateway) -> None:
        asked = body(self.SAID, tools=[WEATHER])
        plain = (await thinker.client.post(MESSAGES, asked)).json()
        thought, text, call = plain["content"]
        assert thought["type"] == "thinking"
        assert thought["thinking"].strip() == "let me see"
        assert thought["signature"] == ""
        assert text == {"type": "text", "text": "I ask."}
        assert re.fullmatch("toolu_[0-9A-Za-z]+", call.pop("id"))
        wanted = {"city": "Köln", "days": [1, 2]}
        assert call == {"type": "tool_use", "name": "weather", "input": wanted}
        assert plain["stop_reason"] == "tool_use"
        assert plain["usage"]["output_tokens_details"]["thinking_tokens"] > 0

    async def test_they_are_the_same_in_a_stream(self, thinker: Gateway) -> None:
        asked = body(self.SAID, tools=[WEATHER])
        plain = (await thinker.client.post(MESSAGES, asked)).json()
        streamed = accumulate((await thinker.client.post(MESSAGES, asked | {"stream": True})).body)
        for told in (plain, streamed):
            del told["id"], told["content"][-1]["id"]
        assert streamed == plain

    async def test_an_answer_can_be_sent_back(self, thinker: Gateway) -> None:
        asked = body(self.SAID, tools=[WEATHER])
        told = (await thinker.client.post(MESSAGES, asked)).json()["content"]
        result = {"type": "tool_result", "tool_use_id": told[-1]["id"], "content": "rain, 4 °C"}
        turns = [
            *asked["messages"],
            {"role": "assistant", "content": told},
            {"role": "user", "content": [result]},
        ]
        again = (await thinker.client.post(MESSAGES, asked | {"messages": turns})).json()
        assert again["content"] == [{"type": "text", "text": "rain, 4 °C"}]


class TestCountTokens:
    async def test_the_count_is_what_an_answer_is_charged_for(self, gate: Gateway) -> None:
        asked = body("a b c d e", system="Be kind.", tools=[WEATHER])
        del asked["max_tokens"]
        counted = await gate.client.post(COUNT, asked)
        assert (counted.status, await entries(gate)) == (200, [])
        usage = (await gate.client.post(MESSAGES, asked)).json()["usage"]
        assert counted.json() == {"input_tokens": usage["input_tokens"]}

    async def test_what_messages_refuses_is_not_counted(self, gate: Gateway) -> None:
        wrong: list[Any] = [{"messages": []}, {"tools": [{"name": "f"}]}, {"model": "no/such"}]
        for fields in wrong:
            status, kind, _ = error(await gate.client.post(COUNT, body(**fields)))
            assert (status, kind) in (
                (400, "invalid_request_error"),
                (404, "not_found_error"),
            )
        stranger = Client(gate.client.app, token=None)
        assert error(await stranger.post(COUNT, body()))[0] == 401


class TestPrompt:
    def test_the_system_prompt_is_a_string_or_blocks_with_a_blank_line_between(self) -> None:
        cached = {"type": "ephemeral"}
        blocks = [{"type": "text", "text": t, "cache_control": cached} for t in ("Be kind.", "Go.")]
        for system, said in (("Be kind.", "Be kind."), (blocks, "Be kind.\n\nGo.")):
            told = prompt(("user", "hi"), system=system)
            assert told.messages == (Message("system", said), Message("user", "hi"))
        assert prompt(("user", "hi"), system="").messages == (Message("user", "hi"),)

    def test_a_line_that_differs_in_every_request_is_left_out(self) -> None:
        line = "x-anthropic-billing-header: cc_version=2.1; cch=%s;"
        blocks = [{"type": "text", "text": line % "a1"}, {"type": "text", "text": "You help."}]
        told = prompt(("user", "hi"), system=blocks)
        assert told == prompt(("user", "hi"), system=(line % "b2") + "\nYou help.")
        assert told.messages[0] == Message("system", "You help.")

    def test_a_system_message_may_stand_among_the_messages(self) -> None:
        told = prompt(("user", "hi"), ("system", "Be short."), ("user", "well?"))
        assert [m.role for m in told.messages] == ["user", "system", "user"]

    def test_neighbours_of_one_role_are_one_turn(self) -> None:
        told = prompt(("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d"))
        roles = [(m.role, m.content) for m in told.messages]
        assert roles == [("user", "a\nb"), ("assistant", "c"), ("user", "d")]

    def test_calls_and_thoughts_belong_to_their_message(self) -> None:
        said: list[Any] = [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "redacted_thinking", "data": "zzz"},
            {"type": "text", "text": "I ask."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"b": 1, "a": "ü"}},
            {"type": "tool_use", "id": "own-id", "name": "weather", "input": {}},
        ]
        told = prompt(("user", "hi"), ("assistant", said), ("user", "go on"))
        calls = (
            ToolCall("call_1", "weather", '{"b":1,"a":"ü"}'),
            ToolCall("own-id", "weather", "{}"),
        )
        assert told.messages[1] == Message(
            "assistant", "I ask.", tool_calls=calls, reasoning_content="hm"
        )

    def test_results_come_before_the_text_beside_them(self) -> None:
        text = {"type": "text", "text": "rain"}
        said = [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text, text]},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no", "is_error": True},
            {"type": "tool_result", "tool_use_id": "other"},
            {"type": "text", "text": "and now?", "cache_control": {"type": "ephemeral"}},
        ]
        assert prompt(("user", said)).messages == (
            Message("tool", "rain\nrain", tool_call_id="call_1"),
            Message("tool", "Error: no", tool_call_id="call_2"),
            Message("tool", "", tool_call_id="other"),
            Message("user", "and now?"),
        )

    def test_an_assistants_last_message_is_continued(self) -> None:
        told = prompt(("user", "hi"), ("assistant", "Well, "))
        assert told.continue_final
        assert told.messages[-1] == Message("assistant", "Well, ")
        empty = prompt(("user", "hi"), ("assistant", []))
        assert (empty.continue_final, len(empty.messages)) == (False, 1)

    def test_a_call_cannot_be_continued(self) -> None:
        call: Any = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
        with pytest.raises(BadRequest, match="tool_result"):
            prompt(("user", "hi"), ("assistant", [call]))

    @pytest.mark.parametrize(
        ("choice", "required", "parallel"),
        [
            (None, False, None),
            ({"type": "auto"}, False, None),
            ({"type": "auto", "disable_parallel_tool_use": True}, False, False),
            ({"type": "any"}, True, None),
            ({"type": "tool", "name": "weather"}, True, False),
        ],
    )
    def test_tools_and_their_choice(self, choice: Any, required: bool, parallel: Any) -> None:
        custom = WEATHER | {"type": "custom", "cache_control": {"type": "ephemeral"}}
        told = prompt(("user", "hi"), tools=[custom], tool_choice=choice)
        tool = Tool("weather", "Asks.", {"type": "object"})
        assert told.tool_use == ToolUse((tool,), required, parallel)

    def test_no_tools_where_none_is_chosen(self) -> None:
        told = prompt(("user", "hi"), tools=[WEATHER], tool_choice={"type": "none"})
        assert told.tool_use is None

    @pytest.mark.parametrize(
        ("thinking", "thinks"),
        [
            ({"type": "enabled", "budget_tokens": 2048}, True),
            ({"type": "adaptive"}, True),
            ({"type": "disabled"}, False),
            ({"enabled": True}, True),
            ({"enabled": False}, False),
        ],
    )
    def test_thinking_in_every_spelling(self, thinking: Any, thinks: bool) -> None:
        assert prompt(("user", "hi")).template_kwargs == {}
        told = prompt(("user", "hi"), thinking=thinking)
        assert told.template_kwargs["enable_thinking"] is thinks

    def test_sampling_and_caching_reach_the_engine(self) -> None:
        request = to_request(
            wire(temperature=0.5, top_p=0.9, top_k=-1, prompt_cache_key="k", stop_sequences=["a"])
        )
        sampling = request.sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 0)
        assert (request.cache_key, request.stop, request.max_tokens) == ("k", ("a",), 100)
        assert to_request(wire(top_k=7)).sampling.top_k == 7
        assert to_request(wire()).sampling.temperature == 1.0


class Test400:
    @pytest.mark.parametrize(
        ("role", "block", "place"),
        [
            ("user", {"type": "image", "source": {"type": "base64"}}, "messages.0.content.0"),
            ("user", {"type": "document", "source": {}}, "messages.0.content.0"),
            (
                "user",
                {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]},
                "messages.0.content.0.content.0",
            ),
            ("assistant", {"type": "server_tool_use", "id": "x"}, "messages.0.content.0"),
        ],
    )
    def test_a_block_that_is_not_text_is_named(self, role: str, block: Any, place: str) -> None:
        with pytest.raises(UnsupportedField, match="takes text only") as caught:
            prompt((role, [block]))
        assert caught.value.message.startswith(f"{place}: ")
        assert repr(block["type"]) in caught.value.message or "content.0.content" in place

    @pytest.mark.parametrize(
        ("role", "block", "place"),
        [
            ("user", {"type": "tool_use", "id": "a", "name": "b", "input": {}}, "content.0"),
            ("assistant", {"type": "tool_result", "tool_use_id": "a"}, "content.0"),
            ("system", {"type": "thinking", "thinking": "hm"}, "content.0"),
            ("user", {"type": "text"}, "content.0.text"),
            ("user", {"type": "tool_result", "content": "x"}, "content.0.tool_use_id"),
            ("assistant", {"type": "tool_use", "name": "b"}, "content.0.id"),
            ("assistant", {"type": "tool_use", "id": "b"}, "content.0.name"),
        ],
    )
    def test_a_block_that_is_wrong_is_named(self, role: str, block: Any, place: str) -> None:
        with pytest.raises(BadRequest, match=rf"messages\.0\.{place}"):
            prompt((role, [block]))

    @pytest.mark.parametrize(
        ("tool", "said"),
        [
            ({"type": "web_search_20250305", "name": "web_search"}, "web_search_20250305"),
            ({"type": "bash_20250124", "name": "bash"}, "bash_20250124"),
            ({"name": "f"}, "tools.0.input_schema"),
            ({"input_schema": {}}, "tools.0.name"),
            ({"name": "a b", "input_schema": {}}, "name"),
        ],
    )
    def test_a_tool_that_is_not_taken_is_named(self, tool: Any, said: str) -> None:
        with pytest.raises(BadRequest, match=re.escape(said)):
            prompt(("user", "hi"), tools=[tool])

    @pytest.mark.parametrize(
        "fields",
        [
            {"max_tokens": 0},
            {"messages": []},
            {"messages": [{"role": "tool", "content": "x"}]},
            {"messages": [{"role": "user"}]},
            {"temperature": 2.1},
            {"top_p": 0},
            {"top_k": -2},
            {"stop_sequences": [""]},
            {"stop_sequences": ["a"] * 17},
            {"system": [{"type": "image"}]},
            {"thinking": {}},
            {"thinking": {"type": "perhaps"}},
            {"tool_choice": {"type": "any"}},
            {"tool_choice": {"type": "tool"}, "tools": [WEATHER]},
            {"tool_choice": {"type": "tool", "name": "no"}, "tools": [WEATHER]},
            {"service_tier": "golden"},
            {"models": ["a"] * 5},
            {"models": ["a:1"]},
        ],
    )
    async def test_a_wrong_value_is_refused_and_not_billed(
        self, gate: Gateway, fields: dict[str, Any]
    ) -> None:
        for stream in (False, True):
            answer = await gate.client.post(MESSAGES, body(**fields, stream=stream))
            status, kind, message = error(answer)
            assert (status, kind) == (400, "invalid_request_error")
            assert message
        assert await entries(gate) == []

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 50_000])
    async def test_what_is_not_json_is_refused(self, gate: Gateway, raw: bytes) -> None:
        assert error(await gate.client.post(MESSAGES, raw))[:2] == (400, "invalid_request_error")


class TestRefusals:
    async def test_401(self, gate: Gateway) -> None:
        answer = await Client(gate.client.app, token=None).post(MESSAGES, body())
        assert error(answer)[:2] == (401, "authentication_error")

    async def test_404_for_an_unknown_model(self, gate: Gateway) -> None:
        answer = await gate.client.post(MESSAGES, body(model="no/such"))
        assert error(answer)[:2] == (404, "not_found_error")

    async def test_503_while_draining(self, gate: Gateway) -> None:
        await gate.services.router.drain(0)
        answer = await gate.client.post(MESSAGES, body())
        assert error(answer)[:2] == (503, "overloaded_error")

    @pytest.mark.parametrize("stream", [False, True])
    async def test_500_before_the_first_byte(self, tmp_path: Path, stream: bool) -> None:
        async with gateway(tmp_path, echo_card(tags=("echo:fail_after=0",))) as running:
            answer = await running.client.post(MESSAGES, body(stream=stream))
            assert error(answer)[:2] == (500, "api_error")

    async def test_an_engine_that_breaks_later_ends_the_stream_with_an_error_event(
        self, tmp_path: Path
    ) -> None:
        async with gateway(tmp_path, echo_card(tags=("echo:fail_after=2",))) as running:
            answer = await running.client.post(MESSAGES, body("a b c d", stream=True))
            assert answer.status == 200
            last = answer.body.rstrip().split(b"\n\n")[-1]
            name, _, data = last.partition(b"\n")
            assert name == b"event: error"
            told = msgspec.json.decode(data.removeprefix(b"data: "))
            assert told["error"]["type"] == "api_error"
            assert b"message_stop" not in answer.body
            (entry,) = await entries(running)
            assert (entry.status, entry.output_tokens) == ("failed", 2)
