"""Idempotency-Key: sent again, a call is billed once and answered the same."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.access.caller import INFERENCE_RUN
from inferd.api import idempotency
from inferd.errors import Unavailable
from inferd.storage import accounts
from inferd.storage import idempotency as stored
from inferd.storage.rows import AccountRow
from tests.gateway import Client, Gateway, InProcessReplica, Response, echo_card, gateway, until
from tests.ledger import entries

CHAT = "/v1/chat/completions"
KEY = {"idempotency-key": "order-1"}
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "one two three"}]}


def body(text: str = "one two three", **fields: Any) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    cards = (
        echo_card(),
        echo_card("test/embeddings", task="embeddings"),
        echo_card("test/image", task="text-to-image", price=None, free=True),
        echo_card("test/speech", task="text-to-speech", price=None, free=True),
    )
    async with gateway(tmp_path, *cards) as running:
        yield running


def rows(gate: Gateway) -> list[tuple[str, int | None]]:
    connection = sqlite3.connect(gate.database_path)
    found = connection.execute("SELECT key, status FROM idempotency ORDER BY key").fetchall()
    connection.close()
    return found


async def twice(gate: Gateway, path: str, body: Any) -> tuple[Response, Response]:
    first = await gate.client.post(path, body, headers=KEY)
    again = await gate.client.post(path, body, headers=KEY)
    assert first.status == 200, first.body
    assert len(await entries(gate)) == 1
    return first, again


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, BODY),
        (CHAT, {**BODY, "stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/completions", {"model": "test/echo", "prompt": "one two"}),
        ("/v1/inference/test/echo", {"input": "one two"}),
        ("/v1/inference/test/echo", {"input": "one two", "stream": True}),
        ("/v1/responses", {"model": "test/echo", "input": "one two"}),
        ("/anthropic/v1/messages", {**BODY, "max_tokens": 5}),
        ("/v1/embeddings", {"model": "test/embeddings", "input": "one"}),
        ("/v1/images/generations", {"model": "test/image", "prompt": "a", "size": "64x64"}),
        ("/v1/audio/speech", {"model": "test/speech", "input": "one", "voice": "echo"}),
    ],
    ids=[
        "chat",
        "stream",
        "completion",
        "native",
        "native-stream",
        "response",
        "message",
        "embed",
        "image",
        "speech",
    ],
)
async def test_a_call_that_is_sent_again_is_answered_the_same_and_billed_once(
    gate: Gateway, path: str, body: dict[str, Any]
) -> None:
    first, again = await twice(gate, path, body)
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers.pop("idempotent-replayed") == "true"
    again.headers.pop("content-length")
    assert again.headers == {k: v for k, v in first.headers.items() if k != "content-length"}
    assert "idempotent-replayed" not in first.headers
    assert len(gate.flights) == 1


async def test_without_a_key_or_with_another_every_call_is_billed(gate: Gateway) -> None:
    for headers in ({}, {}, KEY, {"idempotency-key": "order-2"}):
        assert (await gate.client.post(CHAT, BODY, headers=headers)).status == 200
    assert len(await entries(gate)) == 4


async def test_the_same_key_for_another_request_is_refused(gate: Gateway) -> None:
    await gate.client.post(CHAT, BODY, headers=KEY)
    other = await gate.client.post(CHAT, body("four"), headers=KEY)
    assert (other.status, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    elsewhere = await gate.client.post("/v1/openai/chat/completions", BODY, headers=KEY)
    assert elsewhere.status == 422
    assert len(await entries(gate)) == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "t\u00fcr", "a\tb"])
async def test_a_key_that_is_none_is_refused(gate: Gateway, key: str) -> None:
    answer = await gate.client.post(CHAT, BODY, headers={"idempotency-key": key})
    assert (answer.status, await entries(gate)) == (400, [])


async def test_while_the_first_runs_the_second_is_told_to_ask_again(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = asyncio.Event(), InProcessReplica.start

    async def held(replica: InProcessReplica) -> object:
        await loaded.wait()
        return await load(replica)

    monkeypatch.setattr(InProcessReplica, "start", held)
    first = asyncio.ensure_future(gate.client.post(CHAT, BODY, headers=KEY))
    await until(lambda: len(rows(gate)) == 1)
    second = await gate.client.post(CHAT, BODY, headers=KEY)
    assert (second.status, second.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert second.headers["retry-after"] == "1"
    loaded.set()
    assert (await gate.client.post(CHAT, BODY, headers=KEY)).status in (200, 409)
    answered = await first
    assert (await gate.client.post(CHAT, BODY, headers=KEY)).body == answered.body
    assert len(await entries(gate)) == 1


async def test_of_many_at_once_one_runs(gate: Gateway) -> None:
    answers = await asyncio.gather(*(gate.client.post(CHAT, BODY, headers=KEY) for _ in range(20)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert len({answer.body for answer in answers if answer.status == 200}) == 1
    assert len(await entries(gate)) == 1


async def test_a_client_that_leaves_may_come_back_for_the_answer(gate: Gateway) -> None:
    gone, sent = asyncio.Event(), asyncio.Event()
    words = body("w " * 50 + "echo:token_ms=2", stream=True)
    leaving = asyncio.ensure_future(
        gate.client.call(
            "POST",
            CHAT,
            msgspec.json.encode(words),
            headers=KEY,
            gone=gone,
            sent=sent,
        )
    )
    await sent.wait()
    gone.set()
    await leaving
    again = await gate.client.post(CHAT, words, headers=KEY)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body.endswith(b"data: [DONE]\n\n")
    (entry,) = await entries(gate)
    assert (entry.status, entry.output_tokens) == ("succeeded", 51)


class TestFailures:
    async def test_what_failed_and_cost_nothing_runs_anew(self, gate: Gateway) -> None:
        await gate.services.ledger.set_credit(gate.account_id, 0)
        assert (await gate.client.post(CHAT, BODY, headers=KEY)).status == 402
        assert rows(gate) == []
        await gate.services.ledger.set_credit(gate.account_id, 10**9)
        assert (await gate.client.post(CHAT, BODY, headers=KEY)).status == 200

    async def test_a_wrong_body_does_not_use_the_key_up(self, gate: Gateway) -> None:
        assert (await gate.client.post(CHAT, {"model": 1}, headers=KEY)).status == 400
        assert (await gate.client.post(CHAT, BODY, headers=KEY)).status == 200

    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_failed_and_was_billed_is_answered_again(
        self, gate: Gateway, stream: bool
    ) -> None:
        failing = body("echo:fail_after=2 two three", stream=stream)
        first = await gate.client.post(CHAT, failing, headers=KEY)
        (entry,) = await entries(gate)
        assert (entry.status, entry.cost_nanos > 0) == ("failed", True)
        again = await gate.client.post(CHAT, failing, headers=KEY)
        assert (again.status, again.body) == (first.status, first.body)
        assert len(await entries(gate)) == 1


class TestWhoMay:
    async def test_accounts_do_not_share_keys(self, gate: Gateway) -> None:
        stranger = AccountRow("acc_stranger", "stranger", 1, None)
        async with gate.services.database.writing() as connection:
            await accounts.add(connection, stranger)
        _, secret = await gate.services.tokens.create(stranger.id, "t", (INFERENCE_RUN,))
        first = await gate.client.post(CHAT, BODY, headers=KEY)
        other = await Client(gate.client.app, token=secret).post(CHAT, BODY, headers=KEY)
        assert other.status == 200
        assert other.json()["id"] != first.json()["id"]
        assert len(await entries(gate)) == 2

    async def test_a_token_that_may_not_call_is_not_answered_either(self, gate: Gateway) -> None:
        await gate.client.post(CHAT, BODY, headers=KEY)
        _, secret = await gate.services.tokens.create(gate.account_id, "t", ())
        other = await Client(gate.client.app, token=secret).post(CHAT, BODY, headers=KEY)
        assert other.status == 403


class TestBounds:
    async def test_an_answer_that_is_too_large_is_not_kept_and_not_billed_again(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idempotency, "BODY_BYTES_MAX", 10)
        first, again = await twice(gate, CHAT, BODY)
        assert (again.status, again.json()["error"]["code"]) == (409, "idempotent_answer_not_kept")
        assert first.headers["x-request-id"] in again.json()["error"]["message"]

    async def test_a_day_later_the_key_is_new(self, gate: Gateway) -> None:
        await gate.client.post(CHAT, BODY, headers=KEY)
        connection = sqlite3.connect(gate.database_path)
        day_ns = idempotency.KEPT_SECONDS * 10**9
        connection.execute(
            "UPDATE idempotency SET created_unix_ns = created_unix_ns - ?", (day_ns,)
        )
        connection.commit()
        connection.close()
        assert (await gate.client.post(CHAT, body("four"), headers=KEY)).status == 200
        assert len(await entries(gate)) == 2

    async def test_old_calls_are_forgotten_and_the_oldest_answers_dropped(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = gate.services.idempotency
        monkeypatch.setattr(idempotency, "ACCOUNT_BYTES_MAX", 1)
        for number in range(3):
            headers = {"idempotency-key": f"k{number}"}
            await gate.client.post(CHAT, BODY, headers=headers)
        await keys._sweep()  # pyright: ignore[reportPrivateUsage]
        async with gate.services.database.reading() as connection:
            ((_, count, nbytes),) = await stored.sizes(connection)
        assert (count, nbytes) == (3, 0)
        again = await gate.client.post(CHAT, BODY, headers={"idempotency-key": "k0"})
        assert again.status == 409
        monkeypatch.setattr(idempotency, "KEPT_SECONDS", -10)
        await keys._sweep()  # pyright: ignore[reportPrivateUsage]
        assert rows(gate) == []


class TestACrash:
    async def _die(self, gate: Gateway) -> None:
        """As if another process began: nothing of the old one's memory is left."""
        gate.services.ledger.epoch_unix_ns += 1
        gate.services.idempotency._running.clear()  # pyright: ignore[reportPrivateUsage]

    async def test_billed_but_not_answered_it_is_computed_again_for_nothing(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = type(gate.services.idempotency)

        async def dies(*_: object, **__: object) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as patched:
            patched.setattr(keys, "keep", dies)
            patched.setattr(keys, "forget", dies)
            with pytest.raises(asyncio.CancelledError):
                await gate.client.post(CHAT, BODY, headers=KEY)
        await self._die(gate)
        (entry,) = await entries(gate)
        again = await gate.client.post(CHAT, BODY, headers=KEY)
        assert again.status == 200
        assert again.headers["x-request-id"] == entry.request_id
        assert again.json()["choices"][0]["message"]["content"] == "one two three"
        third = await gate.client.post(CHAT, BODY, headers=KEY)
        assert third.body == again.body
        assert await entries(gate) == [entry]
        assert gate.services.ledger.outstanding_nanos(gate.account_id) == 0

    async def test_died_before_it_was_billed_it_begins_anew(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def dies(*_: object, **__: object) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as patched:
            patched.setattr(type(gate.services.gate), "admit", dies)
            patched.setattr(type(gate.services.idempotency), "forget", dies)
            with pytest.raises(asyncio.CancelledError):
                await gate.client.post(CHAT, BODY, headers=KEY)
        await self._die(gate)
        assert (await gate.client.post(CHAT, BODY, headers=KEY)).status == 200
        assert len(await entries(gate)) == 1

    async def test_an_answer_that_could_not_be_stored_is_computed_again_for_nothing(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: object) -> None:
            raise Unavailable("The database is away.")

        with monkeypatch.context() as patched:
            patched.setattr(stored, "keep", away)
            assert (await gate.client.post(CHAT, BODY, headers=KEY)).status == 200
        assert (await gate.client.post(CHAT, BODY, headers=KEY)).status == 200
        assert len(await entries(gate)) == 1
