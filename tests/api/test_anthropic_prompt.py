"""What Anthropic's messages, tools and thinking become, and what is refused with its place."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from inferd.api.anthropic.messages import to_request
from inferd.api.anthropic.prompt import chat_prompt
from inferd.api.anthropic.wire import MessagesIn
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import ChatPrompt, Constraint, Message, Tool, ToolCall, ToolUse

WEATHER = {"name": "weather", "description": "Asks.", "input_schema": {"type": "object"}}


def wire(**fields: Any) -> MessagesIn:
    messages = [{"role": "user", "content": "hi"}]
    return msgspec.convert(
        {"model": "m", "max_tokens": 100, "messages": messages} | fields, MessagesIn
    )


def prompt(*messages: tuple[str, Any], **fields: Any) -> ChatPrompt:
    turns = [{"role": role, "content": content} for role, content in messages]
    return chat_prompt(wire(messages=turns, **fields))


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
        assert to_request(wire()).sampling.temperature is None


class TestRefusals:
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
        with pytest.raises(UnsupportedField, match="are not supported") as caught:
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


class TestOutput:
    @pytest.mark.parametrize("spelling", ["output_config", "output_format"])
    def test_a_schema_constrains_the_text(self, spelling: str) -> None:
        asked = {"type": "json_schema", "schema": {"type": "object"}}
        body = {spelling: {"format": asked} if spelling == "output_config" else asked}
        assert to_request(wire(**body)).constraint == Constraint("json_schema", {"type": "object"})

    def test_the_effort_reaches_the_template(self) -> None:
        told = prompt(("user", "hi"), output_config={"effort": "high"})
        assert told.template_kwargs["reasoning_effort"] == "high"
        off = {"type": "disabled"}
        told = prompt(("user", "hi"), output_config={"effort": "high"}, thinking=off)
        assert told.template_kwargs["reasoning_effort"] == "none"
