"""What all dialects share: tiers and their price, fallback models, small routes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.access.caller import INFERENCE_RUN
from inferd.access.tokens import TokenWish
from inferd.catalog.card import CardPrice
from tests.accounts import join
from tests.api.conftest import gateway
from tests.gateway import Client, Gateway, echo_card
from tests.ledger import entries

CHAT = "/v1/chat/completions"
MESSAGES = "/anthropic/v1/messages"
PRICE = CardPrice(input="1", output="2", priority="1.5", flex="0.8")


def body(model: str = "test/echo", text: str = "one two three four", **fields: Any) -> Any:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


class TestTiers:
    @pytest.mark.parametrize(
        ("asked", "header", "paid", "factor"),
        [
            (None, None, None, 1.0),
            ("priority", None, "priority", 1.5),
            ("auto", None, "priority", 1.5),
            ("flex", None, "flex", 0.8),
            ("standard_only", None, "default", 1.0),
            ("scale", None, "default", 1.0),
            (None, "flex", None, 0.8),
            ("default", "flex", "default", 1.0),
            (None, "nonsense", None, 1.0),
        ],
    )
    async def test_the_tier_is_in_the_price_and_in_the_ledger(
        self, tmp_path: Path, asked: str | None, header: str | None, paid: str, factor: float
    ) -> None:
        card = echo_card(price=PRICE)
        async with gateway(tmp_path, card) as running:
            headers = {"x-deepinfra-service-tier": header} if header else {}
            fields = {} if asked is None else {"service_tier": asked}
            answer = await running.client.post(CHAT, body(**fields), headers=headers)
            told = answer.json()
            assert told.get("service_tier") == paid
            assert told["usage"]["estimated_cost"] == pytest.approx(12e-6 * factor)
            (entry,) = await entries(running)
            assert entry.cost_nanos == round(12_000 * factor)
            found = await running.client.post("/v1/usage/verify", {})
            assert found.json()["differences"] == []

    async def test_a_model_without_the_tier_serves_the_default(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body(service_tier="priority"))
        assert answer.json()["service_tier"] == "default"
        (entry,) = await entries(gate)
        assert (entry.tier, entry.cost_nanos) == ("default", 12_000)

    async def test_an_unknown_tier_is_refused(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body(service_tier="gold"))
        assert (answer.status, answer.json()["error"]["param"]) == (400, "service_tier")


class TestFallback:
    async def test_a_busy_model_gives_way_to_the_next(self, tmp_path: Path) -> None:
        slow = echo_card("test/slow", slots=1, tags=("echo:token_ms=20",))
        async with gateway(tmp_path, slow, echo_card("test/other")) as running:
            await running.client.post(CHAT, body("test/other"))
            gone, sent = asyncio.Event(), asyncio.Event()
            long = body("test/slow", "w " * 400, stream=True)
            busy = asyncio.create_task(running.client.post(CHAT, long, gone=gone, sent=sent))
            await sent.wait()
            for path, text in ((CHAT, "model"), (MESSAGES, "model")):
                names = ["test/slow", "test/other", "test/slow"]
                wish = body("ignored/name", models=names, max_tokens=9)
                answer = await running.client.post(path, wish)
                assert (answer.status, answer.json()[text]) == (200, "test/other")
            refused = await running.client.post(CHAT, body("test/slow", fail_fast=True))
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            gone.set()
            await busy
            served = {(entry.model, entry.status) for entry in await entries(running)}
            assert served == {("test/other", "succeeded"), ("test/slow", "cancelled")}

    async def test_a_cold_model_is_loaded_for_the_next_one(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, echo_card("test/cold")) as running:
            wish = body("test/cold", fail_fast=True)
            assert (await running.client.post(CHAT, wish)).status == 429
            assert (await running.client.post(CHAT, body("test/cold"))).status == 200
            assert (await running.client.post(CHAT, wish)).status == 200

    async def test_only_names_that_exist_are_tried(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body(models=["test/echo", "no/such"]))
        assert answer.status == 404
        answer = await gate.client.post(CHAT, body(models=["test/echo:1234567"]))
        assert (answer.status, answer.json()["error"]["param"]) == (400, "models")
        assert await entries(gate) == []


class TestNames:
    async def test_a_replaced_model_is_answered_by_its_successor(self, tmp_path: Path) -> None:
        old = echo_card("test/old", replaced_by="test/echo", deprecated_unix=1_700_000_000)
        async with gateway(tmp_path, echo_card(), old) as running:
            answer = await running.client.post(CHAT, body("test/old"))
            assert answer.json()["model"] == "test/echo"
            native = await running.client.post("/v1/inference/test/old", {"input": "a"})
            assert native.status == 200
            listed = (await running.client.get("/models/test/old")).json()
            assert (listed["replaced_by"], listed["deprecated"]) == ("test/echo", 1_700_000_000)

    @pytest.mark.parametrize("path", ["/v1/inference/test/echo:abcdef0", CHAT])
    async def test_a_version_that_is_not_here_is_404(self, gate: Gateway, path: str) -> None:
        wish = body("test/echo:abcdef0") | {"input": "a"}
        assert (await gate.client.post(path, wish)).status == 404
        assert (await gate.client.post(f"{path}?version=abcdef0", wish)).status == 404

    async def test_schemas_and_versions_of_a_model(self, gate: Gateway) -> None:
        shown = (await gate.client.get("/models/test/echo/schema/openai-chat-completions")).json()
        assert "messages" in str(shown["schema_in"])
        assert (await gate.client.get("/models/test/echo/schema/none")).status == 404
        (version,) = (await gate.client.get("/models/test/echo/versions")).json()
        assert version["model_name"] == "test/echo"


class TestSmallRoutes:
    async def test_costs_are_told_to_who_paid_them(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body())
        id_ = answer.headers["x-request-id"]
        asked = {"requestIds": [id_, "Rnot", id_]}
        told = await gate.client.post("/v1/request-costs", asked)
        assert told.json() == {"requests": [{"requestId": id_, "costNanoUsd": 12_000}]}

    async def test_costs_of_another_token_are_those_of_nobody(self, gate: Gateway) -> None:
        asked = {"requestIds": [(await gate.client.post(CHAT, body())).headers["x-request-id"]]}
        _, secret = await gate.services.tokens.create(gate.account_id, "t", (INFERENCE_RUN,))
        other = Client(gate.client.app, token=secret)
        assert (await other.post("/v1/request-costs", asked)).json() == {"requests": []}
        own = {"requestIds": [(await other.post(CHAT, body())).headers["x-request-id"]]}
        assert len((await other.post("/v1/request-costs", own)).json()["requests"]) == 1
        assert len((await gate.client.post("/v1/request-costs", own)).json()["requests"]) == 1

    async def test_costs_are_told_to_a_member_of_his_own_tokens(self, gate: Gateway) -> None:
        person = await join(gate, "ann", "member")
        clients: list[Client] = []
        for name, owner in (("anns", person), ("ann", person), ("nobodys", None)):
            wish = TokenWish(name, (INFERENCE_RUN,), person_id=owner)
            async with gate.services.changes.writing() as change:
                made = await gate.services.tokens.create_in(change, gate.account_id, wish)
            clients.append(Client(gate.client.app, token=made[1]))
        ids = [(await one.post(CHAT, body())).headers["x-request-id"] for one in clients]
        told = await clients[0].post("/v1/request-costs", {"requestIds": ids})
        assert [one["requestId"] for one in told.json()["requests"]] == ids[:2]

    async def test_who_am_i(self, gate: Gateway) -> None:
        assert (await gate.client.get("/v1/me")).json()["is_admin"] is True
        _, secret = await gate.services.tokens.create(gate.account_id, "t", (INFERENCE_RUN,))
        other = Client(gate.client.app, token=secret)
        me = (await other.get("/v1/me?checklist=true")).json()
        assert (me["uid"], me["is_admin"]) == (gate.account_id, False)

    async def test_live_figures_count_what_was_served(self, gate: Gateway) -> None:
        before = (await gate.client.get("/v1/metrics/live")).json()
        assert (before["tokens_per_second"], before["time_to_first_token"]) == (0, None)
        await gate.client.post(CHAT, body())
        after = (await gate.client.get("/v1/metrics/live")).json()
        assert after["tokens_per_second"] == pytest.approx(4 / 60, abs=0.001)
        assert after["time_to_first_token"] >= 0

    async def test_the_command_line_is_welcome(self, gate: Gateway) -> None:
        told = (await Client(gate.client.app, token=None).get("/cli/version?version=0.6.0")).json()
        assert set(told) == {"min", "update", "latest"}

    async def test_tokens_of_a_prompt_are_counted_for_nothing(self, gate: Gateway) -> None:
        wish = {"model": "test/echo", "prompt": "one two one", "return_token_strs": True}
        told = (await gate.client.post("/v1/tokenize", wish)).json()
        assert (told["count"], told["max_model_len"]) == (3, 1000)
        assert told["tokens"][0] == told["tokens"][2]
        back = {"model": "test/echo", "tokens": told["tokens"]}
        answer = await gate.client.post("/v1/detokenize", back)
        assert answer.json() == {"prompt": "one two one"}
        chat = {"model": "test/echo", "messages": [{"role": "user", "content": "a b"}]}
        assert (await gate.client.post("/v1/tokenize", chat)).json()["count"] == 2
        assert await entries(gate) == []

    @pytest.mark.parametrize(
        ("wish", "param"),
        [
            ({"model": "test/echo"}, "prompt"),
            ({"model": "test/echo", "prompt": "a", "messages": []}, "prompt"),
            ({"model": "test/echo", "messages": [{"role": "nobody"}]}, "messages.0.role"),
            ({"model": "no/such", "prompt": "a"}, "model"),
        ],
    )
    async def test_what_cannot_be_counted_is_named(
        self, gate: Gateway, wish: dict[str, Any], param: str
    ) -> None:
        answer = await gate.client.post("/v1/tokenize", wish)
        assert answer.json()["error"]["param"] == param
        assert answer.status in (400, 404)


class TestEvents:
    """What the echo engine's markup becomes on the wire."""

    CALL = '<tool_call>\n{"name": "f", "arguments": {"x":1}}\n</tool_call>'
    TOOLS = [{"type": "function", "function": {"name": "f"}}]  # noqa: RUF012 a test's constant

    async def test_calls_stream_as_one_id_and_arguments_that_join(self, gate: Gateway) -> None:
        wish = body(text=f"look here\n{self.CALL}", tools=self.TOOLS, stream=True)
        chunks = (await gate.client.post(CHAT, wish)).events()
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
        assert [call.get("id") is not None for call in calls] == [True] + [False] * (len(calls) - 1)
        arguments = "".join(call["function"].get("arguments", "") for call in calls)
        assert msgspec.json.decode(arguments) == {"x": 1}
        assert "".join(delta.get("content") or "" for delta in deltas).strip() == "look here"
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"

    async def test_the_plain_answer_has_the_same_calls(self, gate: Gateway) -> None:
        answer = await gate.client.post(CHAT, body(text=self.CALL, tools=self.TOOLS))
        (choice,) = answer.json()["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert (call["function"]["name"], choice["finish_reason"]) == ("f", "tool_calls")
        assert choice["message"]["content"] is None
        # Without tools it is only text.
        answer = await gate.client.post(
            CHAT, body(text=self.CALL, tools=self.TOOLS, tool_choice="none")
        )
        assert "<tool_call>" in answer.json()["choices"][0]["message"]["content"]

    async def test_thinking_is_apart_and_counted(self, tmp_path: Path) -> None:
        async with gateway(tmp_path, echo_card(tags=("reasoning",))) as running:
            text = "<think> so it is </think> yes sir"
            answer = (await running.client.post(CHAT, body(text=text))).json()
            message = answer["choices"][0]["message"]
            assert message["reasoning_content"].strip() == "so it is"
            assert message["content"].strip() == "yes sir"
            assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 4
            chunks = (await running.client.post(CHAT, body(text=text, stream=True))).events()
            deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
            thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
            assert thought == message["reasoning_content"]

    async def test_logprobs_come_with_every_token_plain_and_streamed(self, gate: Gateway) -> None:
        wish = body(logprobs=True, top_logprobs=1, n=2)
        plain = (await gate.client.post(CHAT, wish)).json()
        listed = plain["choices"][1]["logprobs"]["content"]
        assert [one["token"] for one in listed] == ["one", " two", " three", " four"]
        chunks = (await gate.client.post(CHAT, wish | {"stream": True})).events()
        streamed: list[Any] = []
        for chunk in chunks:
            choice = chunk["choices"][0]
            if choice["index"] == 1 and choice.get("logprobs"):
                streamed += choice["logprobs"]["content"]
        assert streamed == listed

    async def test_completions_list_theirs_with_offsets(self, gate: Gateway) -> None:
        wish = {"model": "test/echo", "prompt": "one two", "logprobs": 1, "echo": True}
        choice = (await gate.client.post("/v1/completions", wish)).json()["choices"][0]
        assert choice["text"] == "one twoone two"
        assert choice["logprobs"]["text_offset"] == [0, 3, 7, 10]
