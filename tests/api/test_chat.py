"""POST /v1[/openai]/chat/completions: one class for each status."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.access.caller import INFERENCE_RUN
from inferd.money import usd
from inferd.serving.router import RouterOptions
from tests.gateway import Client, Gateway, echo_card, gateway, until
from tests.ledger import entries

CHAT = "/v1/openai/chat/completions"


def body(text: str = "one two three", **fields: Any) -> dict[str, Any]:
    return {"model": "test/echo", "messages": [{"role": "user", "content": text}], **fields}


class Test200:
    async def test_a_plain_answer_has_deepinfras_shape(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body())
        assert answer.status == 200
        told = answer.json()
        assert told["object"] == "chat.completion"
        assert told["id"] == "chatcmpl-" + answer.headers["x-request-id"]
        assert told["model"] == "test/echo"
        message = told["choices"][0]["message"]
        assert message["content"]
        assert message["role"] == "assistant"
        assert {"name", "tool_calls", "reasoning_content"} <= message.keys()
        assert told["choices"][0]["finish_reason"] == "stop"

    @pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions"])
    async def test_both_prefixes_serve(self, gate: Gateway, path: str) -> None:
        assert (await gate.client.post(path, body())).status == 200

    async def test_usage_and_cost_equal_the_ledgers(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body(user="team-7"))
        usage = answer.json()["usage"]
        (entry,) = await entries(gate)
        assert entry.request_id == answer.headers["x-request-id"]
        assert (entry.status, entry.stage, entry.end_user) == ("succeeded", "done", "team-7")
        assert usage["prompt_tokens"] == entry.input_tokens > 0
        assert usage["completion_tokens"] == entry.output_tokens > 0
        assert usage["total_tokens"] == entry.input_tokens + entry.output_tokens
        fresh = entry.input_tokens - entry.cached_tokens
        nanos = fresh * 1000 + entry.cached_tokens * 500 + entry.output_tokens * 2000
        assert entry.cost_nanos == nanos
        assert usage["estimated_cost"] == usd(nanos)

    async def test_streamed_and_plain_answers_are_the_same(self, gate: Gateway) -> None:
        plain = (await gate.client.post(CHAT, body(seed=1))).json()
        events = (await gate.client.post(CHAT, body(seed=1, stream=True))).events()
        streamed = "".join(e["choices"][0]["delta"].get("content") or "" for e in events)
        assert streamed == plain["choices"][0]["message"]["content"]
        assert events[-1]["usage"] == plain["usage"]

    async def test_usage_rides_on_the_finish_chunk_and_no_choices_are_empty(
        self, gate: Gateway
    ) -> None:
        answer = await gate.client.post(CHAT, body(stream=True))
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.body.endswith(b"data: [DONE]\n\n")
        events = answer.events()
        assert all(len(event["choices"]) == 1 for event in events)
        assert [bool(event["usage"]) for event in events] == [False] * (len(events) - 1) + [True]
        assert events[-1]["choices"][0]["finish_reason"] == "stop"
        assert all(e["choices"][0]["delta"]["role"] == "assistant" for e in events[:-1])

    async def test_include_usage_true_sends_one_last_chunk_without_choices(
        self, gate: Gateway
    ) -> None:
        options = {"include_usage": True}
        answer = await gate.client.post(CHAT, body(stream=True, stream_options=options))
        *head, finish, last = answer.events()
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] > 0
        assert finish["choices"][0]["finish_reason"] == "stop"
        assert all(event["usage"] is None for event in [*head, finish])

    async def test_include_usage_false_sends_none(self, gate: Gateway) -> None:
        options = {"include_usage": False}
        answer = await gate.client.post(CHAT, body(stream=True, stream_options=options))
        assert all(event["usage"] is None for event in answer.events())

    async def test_continuous_usage_grows_on_every_chunk(self, gate: Gateway) -> None:
        options = {"continuous_usage_stats": True}
        answer = await gate.client.post(CHAT, body(stream=True, stream_options=options))
        counts = [event["usage"]["completion_tokens"] for event in answer.events()]
        assert counts == sorted(counts)
        assert counts[0] >= 1

    async def test_n_answers_cost_one_prompt(self, gate: Gateway) -> None:
        one = (await gate.client.post(CHAT, body())).json()
        three = (await gate.client.post(CHAT, body(n=3))).json()
        assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
        assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
        assert three["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]

    async def test_a_stream_of_n_finishes_each_choice_once_and_bills_once(
        self, gate: Gateway
    ) -> None:
        events = (await gate.client.post(CHAT, body(n=2, stream=True))).events()
        finished = [e["choices"][0]["index"] for e in events if e["choices"][0]["finish_reason"]]
        assert finished == [0, 1]
        assert sum(bool(event["usage"]) for event in events) == 1

    async def test_max_tokens_ends_with_length(self, gate: Gateway) -> None:
        for name in ("max_tokens", "max_completion_tokens"):
            told = (await gate.client.post(CHAT, body() | {name: 2})).json()
            assert told["choices"][0]["finish_reason"] == "length"
            assert told["usage"]["completion_tokens"] == 2

    async def test_gzip_bodies_are_read(self, gate: Gateway) -> None:
        packed = gzip.compress(msgspec.json.encode(body()))
        answer = await gate.client.post(CHAT, packed, headers={"content-encoding": "gzip"})
        assert answer.status == 200

    @pytest.mark.parametrize("name", ["x-api-key", "xi-api-key"])
    async def test_every_header_for_keys_is_accepted(self, gate: Gateway, name: str) -> None:
        assert gate.client.token is not None
        client = Client(gate.client.app, token=None, headers={name: gate.client.token})
        assert (await client.post(CHAT, body())).status == 200


class Test400:
    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 50_000])
    async def test_what_is_not_json_is_refused_and_not_billed(
        self, gate: Gateway, raw: bytes
    ) -> None:
        answer = await gate.client.post(CHAT, raw)
        assert answer.status == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert await entries(gate) == []

    async def test_a_field_that_is_not_supported_is_named(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body(functions=[{"name": "f"}]))
        error = answer.json()["error"]
        assert (answer.status, error["param"]) == (400, "functions")
        assert error["code"] == "unsupported_field"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_too_long_names_both_numbers_and_costs_nothing(
        self, gate: Gateway, stream: bool
    ) -> None:
        answer = await gate.client.post(CHAT, body("w " * 600, max_tokens=600, stream=stream))
        error = answer.json()["error"]
        assert (answer.status, error["code"]) == (400, "context_length_exceeded")
        assert "600" in error["message"]
        assert "1000" in error["message"]
        assert all(entry.cost_nanos == 0 for entry in await entries(gate))

    async def test_stream_options_need_a_stream(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body(stream_options={"include_usage": True}))
        assert (answer.status, answer.json()["error"]["param"]) == (400, "stream_options")


class Test401:
    @pytest.mark.parametrize("token", [None, "wrong", "ifd_" + "0" * 43, "jwt:a.b.c"])
    async def test_no_token_or_a_wrong_one(self, gate: Gateway, token: str | None) -> None:
        answer = await Client(gate.client.app, token=token).post(CHAT, b"never decoded")
        assert answer.status == 401
        assert answer.json()["error"]["message"]
        assert answer.headers["www-authenticate"] == "Bearer"

    async def test_a_revoked_token_is_refused_at_once(self, gate: Gateway) -> None:
        row, secret = await gate.services.tokens.create(gate.account_id, "t", (INFERENCE_RUN,))
        client = Client(gate.client.app, token=secret)
        assert (await client.post(CHAT, body())).status == 200
        await gate.services.tokens.revoke(gate.account_id, row.id)
        assert (await client.post(CHAT, body())).status == 401


class Test402:
    async def test_a_budget_that_does_not_cover_the_most_it_can_cost(self, gate: Gateway) -> None:
        await gate.services.ledger.set_credit(gate.account_id, 1000)
        answer = await gate.client.post(CHAT, body())
        assert answer.status == 402
        assert "$0.000001" in answer.json()["error"]["message"]
        assert await entries(gate) == []

    async def test_what_was_set_aside_comes_back(self, gate: Gateway) -> None:
        await gate.services.ledger.set_credit(gate.account_id, 10_000_000)
        for _ in range(3):
            assert (await gate.client.post(CHAT, body(max_tokens=5))).status == 200
        assert gate.services.ledger.outstanding_nanos(gate.account_id) == 0


class Test403:
    async def test_a_token_without_the_scope(self, gate: Gateway) -> None:
        _, secret = await gate.services.tokens.create(gate.account_id, "t", ("other",))
        answer = await Client(gate.client.app, token=secret).post(CHAT, body())
        assert answer.status == 403
        assert INFERENCE_RUN in answer.json()["error"]["message"]


class Test404:
    @pytest.mark.parametrize("name", ["test/unknown", "echo", "../../etc/passwd", "a" * 500])
    async def test_an_unknown_model(self, gate: Gateway, name: str) -> None:
        answer = await gate.client.post(CHAT, body() | {"model": name})
        assert answer.status == 404
        assert answer.json()["error"]["code"] == "model_not_found"


class Test413:
    async def test_a_body_over_the_cap(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, b'"' + b"a" * 10_000_001 + b'"')
        assert answer.status == 413

    async def test_a_gzip_bomb(self, gate: Gateway) -> None:
        bomb = gzip.compress(bytes(60_000_000))
        answer = await gate.client.post(CHAT, bomb, headers={"content-encoding": "gzip"})
        assert answer.status == 413


class Test415:
    @pytest.mark.parametrize(
        "headers", [{"content-encoding": "br"}, {"content-type": "application/x-pickle"}]
    )
    async def test_encodings_and_types_that_are_not_read(
        self, gate: Gateway, headers: dict[str, str]
    ) -> None:
        assert (await gate.client.post(CHAT, body(), headers=headers)).status == 415


class Test429:
    @pytest.fixture
    async def narrow(self, tmp_path: Path) -> AsyncIterator[Gateway]:
        card = echo_card(slots=1, tags=("echo:token_ms=20",))
        queue = RouterOptions(memory_bytes=1 << 30, queue_size_max=1)
        async with gateway(tmp_path, card, router_options=queue) as running:
            yield running

    async def test_a_full_queue_sheds_at_once_and_bills_nothing(self, narrow: Gateway) -> None:
        await narrow.client.post(CHAT, body("warm", max_tokens=1))
        answers = await asyncio.gather(
            *(narrow.client.post(CHAT, body("w " * 20)) for _ in range(6))
        )
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200, 200, 429, 429, 429, 429]
        shed = next(answer for answer in answers if answer.status == 429)
        assert int(shed.headers["retry-after"]) >= 1
        assert len(await entries(narrow)) == 3

    async def test_more_than_the_concurrency_limit_names_the_limit(self, tmp_path: Path) -> None:
        card = echo_card(tags=("echo:token_ms=20",))
        async with gateway(tmp_path, card, concurrency=2) as running:
            answers = await asyncio.gather(
                *(running.client.post(CHAT, body("w " * 10)) for _ in range(5))
            )
            refused = [answer for answer in answers if answer.status == 429]
            assert len(refused) == 3
            assert "2" in refused[0].json()["error"]["message"]
            assert (await running.client.post(CHAT, body())).status == 200


class Test499:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_client_that_leaves_is_billed_for_what_was_made_and_frees_its_slot(
        self, tmp_path: Path, stream: bool
    ) -> None:
        card = echo_card(slots=1, tags=("echo:token_ms=10",))
        async with gateway(tmp_path, card) as running:
            gone = asyncio.Event()
            call = asyncio.ensure_future(
                running.client.post(CHAT, body("w " * 400, stream=stream), gone=gone)
            )
            await until(
                lambda: bool(running.flights) and running.flights[0].usage.output_tokens > 2
            )
            gone.set()
            await asyncio.wait_for(call, 2)
            (entry,) = await entries(running)
            assert (entry.status, entry.stage) == ("cancelled", "decode")
            assert 0 < entry.output_tokens < 400
            assert entry.cost_nanos > 0
            assert (await running.client.post(CHAT, body())).status == 200


class Test500:
    async def test_an_engine_that_breaks_before_the_first_byte(self, tmp_path: Path) -> None:
        card = echo_card(tags=("echo:fail_after=0",))
        async with gateway(tmp_path, card) as running:
            answer = await running.client.post(CHAT, body())
            assert answer.status == 500
            assert answer.json()["error"]["code"] == "engine_failed"

    async def test_an_engine_that_breaks_later_ends_the_stream_with_an_error_event(
        self, tmp_path: Path
    ) -> None:
        card = echo_card(tags=("echo:fail_after=2",))
        async with gateway(tmp_path, card) as running:
            answer = await running.client.post(CHAT, body("a b c d", stream=True))
            assert answer.status == 200
            assert answer.events()[-1]["error"]["code"] == "engine_failed"
            assert b"[DONE]" not in answer.body
            (entry,) = await entries(running)
            assert (entry.status, entry.output_tokens) == ("failed", 2)


class Test503:
    async def test_while_draining(self, gate: Gateway) -> None:
        await gate.services.router.drain(0)
        answer = await gate.client.post(CHAT, body())
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
