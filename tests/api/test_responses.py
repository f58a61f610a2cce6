"""POST /v1[/openai]/responses: how answers are told, whole and as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response as OpenAIResponse

from inferd.money import usd
from tests.api.responses_client import (
    RESPONSES,
    WEATHER,
    accumulate,
    body,
    output,
    read_events,
    steady,
)
from tests.gateway import ADMIN_TOKEN, Gateway, echo_card, gateway
from tests.ledger import entries

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Graz"}}\n</tool_call>'
THOUGHT = "<think>Is it a city?</think>\n\nIt is."


@pytest.fixture
async def thinker(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, echo_card(tags=("reasoning",))) as running:
        yield running


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
        # The client's releases differ in whose AsyncClient they name.
        http: Any = httpx.AsyncClient(transport=transport)
        async with (
            http,
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
