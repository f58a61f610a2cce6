"""Limits over the wire: what is allowed, what is refused and how, asking for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.accounts import join
from tests.gateway import Client, Gateway, echo_card, gateway
from tests.ledger import entries

CHAT = "/v1/openai/chat/completions"
MODEL = "test/echo"


def body(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path) as opened:
        yield opened


async def limit(running: Gateway, **fields: Any) -> Any:
    told = await running.client.call("PUT", "/v1/admin/limits", encoded(fields))
    assert told.status == 200, told.body
    return told.json()


def encoded(fields: dict[str, Any]) -> bytes:
    import msgspec

    return msgspec.json.encode(fields)


async def plain(running: Gateway) -> Client:
    """A client whose token may only compute."""
    _, client = await minted(running)
    return client


async def minted(running: Gateway) -> tuple[str, Client]:
    """A token that may only compute: its id, and a client that shows it."""
    told = (await running.client.post("/v1/api-tokens", {"name": "ci"})).json()
    return told["token_id"], replace(running.client, token=told["token"])


class TestRequestsPerMinute:
    async def test_the_third_of_two_is_refused_with_the_limits_name_and_the_time(
        self, running: Gateway
    ) -> None:
        await limit(running, account_id=running.account_id, model="*", requests_per_minute=2)
        for _ in range(2):
            assert (await running.client.post(CHAT, body(max_tokens=1))).status == 200
        refused = await running.client.post(CHAT, body(max_tokens=1))
        assert refused.status == 429
        error = refused.json()["error"]
        assert "2 requests per minute of this account on test/echo" in error["message"]
        assert error["code"] == "rate_limit_exceeded"
        assert 55 <= int(refused.headers["retry-after"]) <= 61
        anthropic = await running.client.post("/anthropic/v1/messages", {**body(), "max_tokens": 1})
        assert anthropic.status == 429
        assert anthropic.json()["error"]["type"] == "rate_limit_error"
        native = await running.client.post(f"/v1/inference/{MODEL}", {"input": "hi"})
        assert native.status == 429
        assert "requests per minute" in native.json()["detail"]["error"]

    async def test_a_call_that_is_refused_for_another_reason_consumes_nothing(
        self, running: Gateway
    ) -> None:
        await limit(running, account_id=running.account_id, requests_per_minute=1)
        # Refused by the engine before it did anything: over the context.
        long = await running.client.post(CHAT, body("w " * 3000, max_tokens=1))
        assert long.status == 400
        assert (await running.client.post(CHAT, body(max_tokens=1))).status == 200
        assert (await running.client.post(CHAT, body(max_tokens=1))).status == 429


class TestTokensPerMinute:
    async def test_what_was_not_used_is_free_again(self, running: Gateway) -> None:
        await limit(running, model=MODEL, tokens_per_minute=300)
        for _ in range(5):
            # Each may use 200 and more, and uses a few.
            answer = await running.client.post(CHAT, body(max_tokens=200))
            assert answer.status == 200, answer.body

    async def test_two_at_once_do_not_both_get_the_same_tokens(self, tmp_path: Path) -> None:
        card = echo_card(tags=("echo:token_ms=5",))
        async with gateway(tmp_path, card) as running:
            await limit(running, model=MODEL, tokens_per_minute=500)
            answers = await asyncio.gather(
                *(running.client.post(CHAT, body("w " * 20, max_tokens=250)) for _ in range(4))
            )
            assert sorted(answer.status for answer in answers) == [200, 429, 429, 429]
            refused = next(answer for answer in answers if answer.status == 429)
            message = refused.json()["error"]["message"]
            assert "500 tokens per minute of all accounts together on test/echo" in message

    async def test_what_can_never_fit_is_a_bad_request(self, running: Gateway) -> None:
        await limit(running, account_id="*", tokens_per_minute=50)
        answer = await running.client.post(CHAT, body(max_tokens=100))
        assert answer.status == 400
        assert answer.json()["error"]["param"] == "max_tokens"
        assert "can never fit" in answer.json()["error"]["message"]


class TestSetting:
    async def test_a_tokens_own_limit_and_its_removal(self, running: Gateway) -> None:
        token_id, client = await minted(running)
        told = await limit(running, token_id=token_id, requests_per_minute=1)
        assert told["account_id"] == running.account_id
        assert (await client.post(CHAT, body(max_tokens=1))).status == 200
        refused = await client.post(CHAT, body(max_tokens=1))
        assert "1 requests per minute of this token" in refused.json()["error"]["message"]
        assert (await running.client.post(CHAT, body(max_tokens=1))).status == 200
        await limit(running, token_id=token_id)
        assert (await client.post(CHAT, body(max_tokens=1))).status == 200
        listed = await running.client.get("/v1/admin/limits")
        assert listed.json() == {"limits": []}

    async def test_what_is_not_there_and_what_is_nonsense(self, running: Gateway) -> None:
        for fields, status in (
            ({"account_id": "acc_none", "requests_per_minute": 1}, 404),
            ({"token_id": "tok_none", "requests_per_minute": 1}, 404),
            ({"requests_per_minute": 0}, 422),
            ({"requests_per_minute": -1}, 422),
            ({"tokens_per_minute": 1.5}, 422),
            ({"model": "", "tokens_per_minute": 1}, 422),
            ({"request_per_minute": 1}, 422),
        ):
            answer = await running.client.call("PUT", "/v1/admin/limits", encoded(fields))
            assert answer.status == status, (fields, answer.body)

    async def test_an_accounts_admin_narrows_its_tokens_and_nothing_else(
        self, running: Gateway
    ) -> None:
        token_id, client = await minted(running)
        await limit(running, token_id="*", requests_per_minute=2)
        wide = {"token_id": token_id, "requests_per_minute": 1000}
        told = await running.client.call("PUT", "/v1/limits", encoded(wide))
        assert (told.status, told.json()["own"]) == (200, True)
        answers = [(await client.post(CHAT, body(max_tokens=1))).status for _ in range(3)]
        assert answers == [200, 200, 429], "the installation's limit is not replaced"
        own = {"account_id": running.account_id}
        for fields in (
            {"requests_per_minute": 1},
            {**own, "requests_per_minute": 1},
            {"model": MODEL, "requests_per_minute": 1},
            {"token_id": "*", "requests_per_minute": 1},
        ):
            answer = await running.client.call("PUT", "/v1/limits", encoded(fields))
            assert answer.status == 403, fields
        each = {**own, "token_id": "*", "requests_per_minute": 1}
        assert (await running.client.call("PUT", "/v1/limits", encoded(each))).status == 200

    async def test_who_may_only_compute_sets_nothing(self, running: Gateway) -> None:
        client = await plain(running)
        for path in ("/v1/admin/limits", "/v1/limits"):
            answer = await client.call("PUT", path, encoded({"requests_per_minute": 1}))
            assert answer.status == 403
        assert (await client.get("/v1/admin/limits")).status == 403
        assert (await client.get("/v1/admin/limit-requests")).status == 403


class TestWhatWasBefore:
    async def test_a_start_gives_no_limit_anew(self, tmp_path: Path) -> None:
        path = f"/v1/inference/{MODEL}"
        async with gateway(tmp_path) as first:
            await limit(first, account_id=first.account_id, requests_per_minute=3)
            await limit(first, model=MODEL, tokens_per_minute=1000)
            for _ in range(2):
                assert (await first.client.post(path, {"input": "a b"})).status == 200
            where = first.services.database.url
        async with gateway(tmp_path, where=where) as second:
            assert (await second.client.post(path, {"input": "a b"})).status == 200
            refused = await second.client.post(path, {"input": "a b"})
            assert refused.status == 429
            assert 50 <= int(refused.headers["retry-after"]) <= 61
            used = second.services.limits.live.counter((None, None, MODEL)).tokens
            assert used == sum(e.input_tokens + e.output_tokens for e in await entries(second))

    async def test_a_limit_counts_what_was_done_before_it_was_set(self, running: Gateway) -> None:
        assert (await running.client.post(CHAT, body(max_tokens=1))).status == 200
        await limit(running, account_id=running.account_id, requests_per_minute=2)
        assert (await running.client.post(CHAT, body(max_tokens=1))).status == 200
        # Setting it again counts nothing twice.
        await limit(running, account_id=running.account_id, requests_per_minute=3)
        assert (await running.client.post(CHAT, body(max_tokens=1))).status == 200
        assert (await running.client.post(CHAT, body(max_tokens=1))).status == 429


class TestAsking:
    async def test_the_default_is_two_hundred_at_once_on_each_model(self, running: Gateway) -> None:
        told = await running.client.get("/v1/me/rate_limit")
        assert told.json() == {
            "rate_limit": 200,
            "tpm_rate_limit": 1_000_000_000_000,
            "rpm_rate_limit": None,
            "limits": [],
        }

    async def test_the_least_limit_of_the_account_is_told(self, running: Gateway) -> None:
        for model, tokens in (("*", 9000), (None, 500), (MODEL, 7)):
            wish = {"account_id": running.account_id, "model": model}
            await limit(running, **wish, tokens_per_minute=tokens)
        told = (await running.client.get("/v1/me/rate_limit")).json()
        assert (told["rate_limit"], told["tpm_rate_limit"]) == (200, 500)

    async def test_a_token_is_told_no_limit_of_another_token(self, running: Gateway) -> None:
        mine, client = await minted(running)
        other = (await running.client.post("/v1/api-tokens", {"name": "other"})).json()["token_id"]
        await limit(running, account_id=running.account_id, requests_per_minute=9)
        for token_id in (mine, other, "*"):
            wish = {"account_id": running.account_id, "token_id": token_id}
            await limit(running, **wish, requests_per_minute=8)
        for shown, expected in (
            (client, {None, "*", mine}),
            (running.client, {None, "*", mine, other}),
        ):
            told = (await shown.get("/v1/me/rate_limit")).json()["limits"]
            assert {row["token_id"] for row in told} == expected

    async def test_a_member_is_told_the_limits_of_his_own_tokens(self, running: Gateway) -> None:
        person = await join(running, "ann", "member")
        made: list[Any] = []
        for name, scope, owner in (
            ("ann", "account:member", person),
            ("anns", "inference:run", person),
            ("nobodys", "inference:run", None),
        ):
            wish = {"name": name, "scopes": [scope], "person_id": owner}
            made.append((await running.client.post("/v1/api-tokens", wish)).json())
            await limit(running, token_id=made[-1]["token_id"], requests_per_minute=8)
        client = replace(running.client, token=made[0]["token"])
        told = (await client.get("/v1/me/rate_limit")).json()["limits"]
        assert {row["token_id"] for row in told} == {one["token_id"] for one in made[:2]}

    async def test_a_wish_is_granted_and_holds_at_once(self, running: Gateway) -> None:
        wish = {"rate_limit": 500, "tpm_rate_limit": 9000, "reason": "The fair is coming."}
        asked = await running.client.post("/v1/me/rate_limit/request", wish)
        assert (asked.status, asked.json()) == (200, {})
        again = await running.client.post("/v1/me/rate_limit/request", wish)
        assert again.status == 429
        listed = await running.client.get("/v1/admin/limit-requests?status=pending")
        (request,) = listed.json()["requests"]
        assert request["reason"] == "The fair is coming."
        path = f"/v1/admin/limit-requests/{request['id']}"
        granted = await running.client.post(path, {"grant": True, "answer": "Good luck."})
        assert granted.json()["status"] == "granted"
        told = (await running.client.get("/v1/me/rate_limit")).json()
        assert (told["rate_limit"], told["tpm_rate_limit"]) == (500, 9000)
        assert (await running.client.post(path, {"grant": False})).status == 404
        assert (await running.client.post("/v1/me/rate_limit/request", wish)).status == 200

    async def test_a_wish_that_is_rejected_changes_nothing(self, running: Gateway) -> None:
        await running.client.post("/v1/me/rate_limit/request", {"rate_limit": 9, "reason": "r"})
        listed = await running.client.get("/v1/admin/limit-requests")
        path = f"/v1/admin/limit-requests/{listed.json()['requests'][0]['id']}"
        rejected = await running.client.post(path, {"grant": False, "answer": "No."})
        assert rejected.json()["status"] == "rejected"
        assert (await running.client.get("/v1/me/rate_limit")).json()["rate_limit"] == 200

    async def test_a_long_reason_is_refused(self, running: Gateway) -> None:
        wish = {"rate_limit": 9, "reason": "r" * 2049}
        answer = await running.client.post("/v1/me/rate_limit/request", wish)
        assert answer.status == 422


async def test_nothing_is_in_flight_after_any_mix_of_endings(tmp_path: Path) -> None:
    cards = (
        echo_card("test/slow", tags=("echo:token_ms=2",), slots=4),
        echo_card("test/broken", tags=("echo:fail_after=2",), slots=4),
    )
    async with gateway(tmp_path, *cards) as running:
        await limit(running, account_id="*", model="*", requests_per_minute=100_000)

        async def one(number: int) -> None:
            gone = asyncio.Event()
            sent = asyncio.Event()
            call = asyncio.ensure_future(
                running.client.post(
                    CHAT,
                    {
                        **body("w " * (number % 40)),
                        "model": cards[number % 2].name,
                        "stream": bool(number % 3),
                        "max_tokens": 1 + number % 30,
                    },
                    gone=gone,
                    sent=sent,
                )
            )
            if number % 5 == 0:
                for _ in range(number % 37):
                    await asyncio.sleep(0)
                gone.set()
            await call

        await asyncio.gather(*(one(number) for number in range(300)))
        live = running.services.limits.live
        assert sum(counter.in_flight for counter in live.counters.values()) == 0
