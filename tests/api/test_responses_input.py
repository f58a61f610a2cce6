"""POST /v1[/openai]/responses: what is taken, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferd.api.openai.responses import to_request
from inferd.api.openai.responses_in import ResponseIn
from inferd.errors import BadRequest
from inferd.tasks.text_generation import ChatPrompt, Constraint, Message, Tool, ToolCall, ToolUse
from tests.api.responses_client import RESPONSES, TIME, WEATHER, body, call, output
from tests.gateway import Gateway
from tests.ledger import entries


def prompt(input_: Any, **fields: Any) -> ChatPrompt:
    found = to_request(msgspec.convert(body(input_, **fields), ResponseIn)).prompt
    assert isinstance(found, ChatPrompt)
    return found


def messages(*items: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    return prompt(list(items), **fields).messages


def deep_schema() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"not": schema}
    return schema


class TestInput:
    def test_a_string_is_what_the_user_says_after_the_instructions(self) -> None:
        told = prompt("hello", instructions="be brief").messages
        assert told == (Message("system", "be brief"), Message("user", "hello"))

    def test_an_item_with_a_role_and_no_type_is_a_message(self) -> None:
        told = messages({"role": "developer", "content": "x"}, {"role": "user", "content": "y"})
        assert told == (Message("system", "x"), Message("user", "y"))

    def test_text_parts_join(self) -> None:
        parts = [{"type": "input_text", "text": "a "}, {"type": "input_text", "text": "b"}]
        assert messages({"type": "message", "role": "user", "content": parts}) == (
            Message("user", "a b"),
        )

    def test_what_an_answer_held_goes_back_as_one_assistant_message(self) -> None:
        told = messages(
            {"role": "user", "content": "weather?"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "must look"}],
            },
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "wait", "annotations": []}],
            },
            call("call_1", id="fc_1", status="completed"),
            call("call_2", name="g", arguments='{"a":1}'),
            output("call_1", "sun"),
            output(
                "call_2",
                [{"type": "input_text", "text": "ra"}, {"type": "input_text", "text": "in"}],
            ),
            {"role": "assistant", "content": "Sun."},
        )
        calls = (ToolCall("call_1", "f", "{}"), ToolCall("call_2", "g", '{"a":1}'))
        assert told == (
            Message("user", "weather?"),
            Message("assistant", "wait", tool_calls=calls, reasoning_content="must look"),
            Message("tool", "sun", tool_call_id="call_1"),
            Message("tool", "rain", tool_call_id="call_2"),
            Message("assistant", "Sun."),
        )

    def test_a_summary_stands_in_for_reasoning_without_content(self) -> None:
        summary = [{"type": "summary_text", "text": "short"}]
        told = messages({"type": "reasoning", "summary": summary}, call(), output())
        assert told[0].reasoning_content == "short"

    def test_a_refusal_is_what_the_assistant_said(self) -> None:
        parts = [{"type": "refusal", "refusal": "No."}]
        assert messages({"role": "assistant", "content": parts}) == (Message("assistant", "No."),)

    def test_the_last_message_may_be_the_beginning_of_the_answer(self) -> None:
        items = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        assert prompt(items, continue_final_message=True).continue_final
        with pytest.raises(BadRequest):
            prompt("a", continue_final_message=True)


class TestFields:
    def test_they_reach_the_engine(self) -> None:
        request = to_request(
            msgspec.convert(
                body(
                    temperature=0,
                    top_p=0.5,
                    min_p=0.1,
                    top_k=7,
                    repetition_penalty=1.1,
                    max_output_tokens=9,
                    stop_token_ids=[3],
                    ignore_eos=True,
                    prompt_cache_key="k",
                    top_logprobs=2,
                    reasoning={"effort": "none", "summary": "auto"},
                    text={"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}},
                ),
                ResponseIn,
            )
        )
        assert (request.sampling.temperature, request.sampling.top_p) == (0, 0.5)
        assert (request.sampling.min_p, request.sampling.top_k) == (0.1, 7)
        assert request.sampling.repetition_penalty == 1.1
        assert (request.max_tokens, request.stop_token_ids) == (9, (3,))
        assert (request.ignore_eos, request.cache_key, request.logprobs) == (True, "k", 2)
        assert request.constraint == Constraint("json_schema", schema={"a": 1})
        assert isinstance(request.prompt, ChatPrompt)
        assert request.prompt.template_kwargs["enable_thinking"] is False

    def test_logprobs_are_computed_only_if_asked_for(self) -> None:
        include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
        for fields, wanted in ({}, None), ({"include": include}, 0), ({"top_logprobs": 0}, None):
            assert to_request(msgspec.convert(body(**fields), ResponseIn)).logprobs == wanted

    @pytest.mark.parametrize(
        ("choice", "use"),
        [
            (None, ToolUse((Tool("weather"), Tool("time")))),
            ("required", ToolUse((Tool("weather"), Tool("time")), required=True)),
            ("none", None),
            (
                {"type": "function", "name": "time"},
                ToolUse((Tool("time"),), required=True, parallel=False),
            ),
            (
                {"type": "allowed_tools", "mode": "required", "tools": [TIME]},
                ToolUse((Tool("time"),), required=True),
            ),
            ({"type": "allowed_tools", "mode": "auto", "tools": [TIME]}, ToolUse((Tool("time"),))),
        ],
    )
    def test_tool_choice(self, choice: Any, use: ToolUse | None) -> None:
        flat = [{"type": "function", "name": name} for name in ("weather", "time")]
        assert prompt("a", tools=flat, tool_choice=choice).tool_use == use
        nested = [flat[0], {"type": "namespace", "name": "n", "tools": [flat[1]]}]
        assert prompt("a", tools=nested, tool_choice=choice).tool_use == use


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"previous_response_id": "resp_1"}, "previous_response_id"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"prompt": {"id": "pmpt_1"}}, "prompt"),
            ({"background": True}, "background"),
            ({"truncation": "auto"}, "truncation"),
            ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
            ({"tools": [WEATHER, {"type": "mcp", "server_label": "x"}]}, "tools.1.type"),
            (
                {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]},
                "tools.0.tools.0.type",
            ),
            ({"tools": [{"type": "function", "name": "a b"}]}, "tools.0.name"),
            ({"tools": [WEATHER, WEATHER]}, "tools"),
            ({"tools": [WEATHER | {"parameters": deep_schema()}]}, "tools.0.parameters"),
            (
                {"text": {"format": {"type": "json_schema", "schema": deep_schema()}}},
                "text.format.schema",
            ),
            ({"tool_choice": "required"}, "tools"),
            ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
            ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
            ({"top_logprobs": 21}, "top_logprobs"),
            ({"max_output_tokens": 0}, "max_output_tokens"),
            ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
            ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
            ({"text": {"verbosity": "low"}}, "text.verbosity"),
            ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
            ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options.mode"),
            ({"service_tier": "gold"}, "service_tier"),
            ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x"),
            ({"temperature": 2.1}, "temperature"),
        ],
    )
    async def test_a_field_is_named(
        self, gate: Gateway, fields: dict[str, Any], param: str
    ) -> None:
        answer = await gate.client.post(RESPONSES, body(**fields))
        assert (answer.status, answer.json()["error"]["param"]) == (400, param)
        assert await entries(gate) == []

    @pytest.mark.parametrize(
        ("item", "path"),
        [
            ({"type": "web_search_call", "id": "x"}, "type"),
            ({"type": "computer_call_output", "output": {"type": "screenshot"}}, "type"),
            ({"type": "item_reference", "id": "x"}, "type"),
            ({"id": "x"}, "type"),
            ({"type": "message", "content": "x"}, "role"),
            ({"role": "user"}, "content"),
            ({"role": "tool", "content": "x"}, "role"),
            ({"role": "user", "content": [{"type": "input_image"}]}, "content.0.type"),
            ({"role": "user", "content": [{"type": "input_file"}]}, "content.0.type"),
            ({"role": "user", "content": [{"type": "input_text"}]}, "content.0.text"),
            (call(arguments={}), "arguments"),
            ({"type": "function_call", "name": "f", "arguments": ""}, "call_id"),
            (output("call_9"), "call_id"),
        ],
    )
    async def test_an_item_is_named(self, gate: Gateway, item: Any, path: str) -> None:
        answer = await gate.client.post(RESPONSES, body([{"role": "user", "content": "a"}, item]))
        assert (answer.status, answer.json()["error"]["param"]) == (400, f"input.1.{path}")

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize("prefix", ["/v1", "/v1/openai"])
    async def test_no_response_is_stored(self, gate: Gateway, method: str, prefix: str) -> None:
        answer = await gate.client.call(method, f"{prefix}/responses/resp_1", b"")
        assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")
