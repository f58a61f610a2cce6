"""POST /v1[/openai]/responses: what is taken, what is refused, and how answers are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response as OpenAIResponse

from inferd.api.openai.responses import to_request
from inferd.api.openai.responses_in import ResponseIn
from inferd.errors import BadRequest
from inferd.money import usd
from inferd.tasks.text_generation import ChatPrompt, Constraint, Message, Tool, ToolCall, ToolUse
from tests.api.responses_stream import accumulate, read_events, steady
from tests.gateway import ADMIN_TOKEN, Gateway, echo_card, gateway
from tests.ledger import entries

RESPONSES = "/v1/responses"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
TIME = {"type": "function", "name": "time", "parameters": {"type": "object"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Graz"}}\n</tool_call>'
THOUGHT = "<think>Is it a city?</think>\n\nIt is."

DEEP: dict[str, Any] = {}
for _ in range(300):
    DEEP = {"not": DEEP}


def body(input_: Any = "one two three", **fields: Any) -> dict[str, Any]:
    return {"model": "test/echo", "input": input_, **fields}


def prompt(input_: Any, **fields: Any) -> ChatPrompt:
    found = to_request(msgspec.convert(body(input_, **fields), ResponseIn)).prompt
    assert isinstance(found, ChatPrompt)
    return found


def messages(*items: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    return prompt(list(items), **fields).messages


def call(call_id: str = "call_1", **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"} | fields


def output(call_id: str = "call_1", text: Any = "sun") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


@pytest.fixture
async def thinker(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, echo_card(tags=("reasoning",))) as running:
        yield running


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


class TestPlain:
    async def test_the_object_is_openais(self, gate: Gateway) -> None:
        answer = await gate.client.post(RESPONSES, body(metadata={"a": "b"}, store=True))
        told = answer.json()
        assert answer.status == 200
        OpenAIResponse.model_validate(told)
        assert told["id"] == "resp_" + answer.headers["x-request-id"]
        assert (told["object"], told["status"], told["error"]) == ("response", "completed", None)
        assert (told["store"], told["previous_response_id"]) == (False, None)
        assert told["metadata"] == {"a": "b"}
        (item,) = told["output"]
        assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
        part: Any = {
            "type": "output_text",
            "text": "one two three",
            "annotations": [],
            "logprobs": [],
        }
        assert item["content"] == [part]

    async def test_usage_and_cost_equal_the_ledgers(self, gate: Gateway) -> None:
        told = (await gate.client.post(RESPONSES, body(safety_identifier="team-7"))).json()
        (entry,) = await entries(gate)
        usage = told["usage"]
        assert (entry.status, entry.end_user, entry.dialect) == ("succeeded", "team-7", "openai")
        assert usage["input_tokens"] == entry.input_tokens > 0
        assert usage["output_tokens"] == entry.output_tokens > 0
        assert usage["total_tokens"] == entry.input_tokens + entry.output_tokens
        assert usage["estimated_cost"] == usd(entry.cost_nanos) > 0

    async def test_reasoning_comes_before_the_message(self, thinker: Gateway) -> None:
        told = (await thinker.client.post(RESPONSES, body(THOUGHT))).json()
        OpenAIResponse.model_validate(told)
        thought, message = told["output"]
        assert thought["type"] == "reasoning"
        assert thought["content"] == [{"type": "reasoning_text", "text": "Is it a city?"}]
        assert message["content"][0]["text"] == "It is."
        assert told["usage"]["output_tokens_details"]["reasoning_tokens"] > 0

    async def test_calls_alone_come_without_a_message(self, gate: Gateway) -> None:
        answer = await gate.client.post(RESPONSES, body(CALL, tools=[WEATHER]))
        told = answer.json()
        OpenAIResponse.model_validate(told)
        (item,) = told["output"]
        assert (item["type"], item["name"], item["status"]) == (
            "function_call",
            "weather",
            "completed",
        )
        assert msgspec.json.decode(item["arguments"]) == {"city": "Graz"}
        assert item["call_id"].startswith("call_")
        assert told["tools"] == [WEATHER]

    async def test_what_came_back_can_be_sent_again(self, thinker: Gateway) -> None:
        asked = body(f"<think>look it up</think>I look. {CALL}", tools=[WEATHER])
        told = (await thinker.client.post(RESPONSES, asked)).json()["output"]
        assert [item["type"] for item in told] == ["reasoning", "message", "function_call"]
        items = [*told, output(told[2]["call_id"], "sun and wind")]
        again = (await thinker.client.post(RESPONSES, body(items))).json()
        assert again["output"][0]["content"][0]["text"] == "sun and wind"

    async def test_too_few_tokens_make_an_incomplete_response(self, gate: Gateway) -> None:
        told = (await gate.client.post(RESPONSES, body(max_output_tokens=2))).json()
        OpenAIResponse.model_validate(told)
        assert (told["status"], told["output"][0]["status"]) == ("incomplete", "incomplete")
        assert told["incomplete_details"] == {"reason": "max_output_tokens"}
        assert told["completed_at"] is None

    async def test_the_model_and_tier_are_those_that_answered(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, echo_card("test/b")) as running:
            asked = body(models=["test/b"], service_tier="flex")
            told = (await running.client.post(RESPONSES, asked)).json()
            assert (told["model"], told["service_tier"]) == ("test/b", "default")


ASKED: dict[str, dict[str, Any]] = {
    "text": body(),
    "cut": body(max_output_tokens=2),
    "nothing": body(""),
    "thought": body(THOUGHT),
    "call": body(CALL, tools=[WEATHER]),
    "all": body(f"{THOUGHT} {CALL} {CALL}", tools=[WEATHER]),
    "cut call": body(CALL, tools=[WEATHER], max_output_tokens=4),
    "logprobs": body(THOUGHT, top_logprobs=3),
}


class TestStream:
    @pytest.mark.parametrize("name", ASKED)
    async def test_it_tells_what_the_plain_call_tells(self, thinker: Gateway, name: str) -> None:
        plain = (await thinker.client.post(RESPONSES, ASKED[name])).json()
        answer = await thinker.client.post(RESPONSES, ASKED[name] | {"stream": True})
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = read_events(answer.body)
        assert [e["type"] for e in events[:2]] == ["response.created", "response.in_progress"]
        last = events[-1]
        assert last["type"] == f"response.{plain['status']}"
        assert steady(last["response"]) == steady(plain)
        assert accumulate(events) == last["response"]["output"]

    async def test_logprobs_are_those_of_the_text_alone(self, thinker: Gateway) -> None:
        told = (await thinker.client.post(RESPONSES, body(THOUGHT, top_logprobs=3))).json()
        part = told["output"][1]["content"][0]
        assert "".join(found["token"] for found in part["logprobs"]).strip() == part["text"]

    async def test_the_order_of_a_whole_answer(self, thinker: Gateway) -> None:
        asked = body(f"<think>hm</think>ok {CALL}", tools=[WEATHER], stream=True)
        kinds = [e["type"] for e in read_events((await thinker.client.post(RESPONSES, asked)).body)]
        once = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
        part = ["response.content_part.added", "response.content_part.done"]
        item = ["response.output_item.added", "response.output_item.done"]
        thought = [f"response.reasoning_text.{word}" for word in ("delta", "done")]
        text = [f"response.output_text.{word}" for word in ("delta", "done")]
        called = [f"response.function_call_arguments.{word}" for word in ("delta", "done")]
        assert once == [
            *("response.created", "response.in_progress"),
            *(item[0], part[0], *thought, part[1], item[1]),
            *(item[0], part[0], *text, part[1], item[1]),
            *(item[0], *called, item[1]),
            "response.completed",
        ]

    async def test_openais_client_reads_it(self, thinker: Gateway) -> None:
        transport = httpx.ASGITransport(thinker.client.app)  # pyright: ignore[reportArgumentType]
        async with (
            httpx.AsyncClient(transport=transport) as http,
            AsyncOpenAI(api_key=ADMIN_TOKEN, base_url="http://i/v1", http_client=http) as client,
        ):
            asked: Any = {"model": "test/echo", "input": f"{THOUGHT} {CALL}", "tools": [WEATHER]}
            async with client.responses.stream(**asked) as stream:
                deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
                final = await stream.get_final_response()
            assert "".join(deltas) == final.output_text
            assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
            create: Any = client.responses.create
            assert (await create(**asked)).output_text == final.output_text
            kinds = [event.type async for event in await create(**asked, stream=True)]
            assert kinds[-1] == "response.completed"

    async def test_a_failure_tells_the_error_and_the_failed_response(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, echo_card(tags=("echo:fail_after=2",))) as running:
            answer = await running.client.post(RESPONSES, body("a b c d", stream=True))
            *_, error, failed = read_events(answer.body)
            assert (error["type"], error["code"]) == ("error", "engine_failed")
            assert failed["type"] == "response.failed"
            assert failed["response"]["status"] == "failed"
            assert failed["response"]["error"]["code"] == "server_error"
            (entry,) = await entries(running)
            assert (entry.status, entry.output_tokens) == ("failed", 2)


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
            ({"tools": [WEATHER | {"parameters": DEEP}]}, "tools.0.parameters"),
            ({"text": {"format": {"type": "json_schema", "schema": DEEP}}}, "text.format.schema"),
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
