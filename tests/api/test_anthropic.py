"""POST /anthropic/v1/messages: what is taken, what is refused, and how answers are told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.money import usd
from tests.api.anthropic_stream import accumulate
from tests.gateway import Client, Gateway, Response, echo_card, gateway
from tests.ledger import entries

MESSAGES = "/anthropic/v1/messages"
COUNT = "/anthropic/v1/messages/count_tokens"
WEATHER = {"name": "weather", "description": "Asks.", "input_schema": {"type": "object"}}


def body(text: str = "one two three", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "test/echo", "max_tokens": 100, "messages": messages} | fields


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


class Test400:
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
