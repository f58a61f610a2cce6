"""Native calls that are answered by a webhook: at once `queued`, later delivered, billed once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.api.address import read_networks
from inferd.api.services import ApiOptions
from inferd.errors import TooManyRequests, Unavailable
from inferd.jobs import webhook_calls as calls
from inferd.serving.replica import Flight
from inferd.serving.router import Ask
from inferd.storage import webhook_calls
from inferd.storage.database import AsyncConnection
from inferd.storage.rollups import View
from inferd.storage.webhook_calls import CallRow
from inferd.tasks.every import Event
from tests.accounts import another_account
from tests.gateway import Gateway, Response, echo_card, gateway
from tests.ledger import entries
from tests.receiver import Delivered, Receiver, receiver

ECHO = "/v1/inference/test/echo"
DELIVERIES = "/v1/webhooks/deliveries"
OPTIONS = ApiOptions(private_webhooks=read_networks("127.0.0.0/8"))
EMBEDDER = echo_card("test/embedder", task="embeddings")
BROKEN = echo_card("test/broken", tags=("echo:fail_after=1",))
SLOW = echo_card("test/slow", tags=("echo:token_ms=5",))
ROOMY = echo_card("test/roomy", context_length=1_000_000)
CARDS = (echo_card(), EMBEDDER, BROKEN, SLOW, ROOMY)


@asynccontextmanager
async def opened(folder: Path, where: str | None = None) -> AsyncGenerator[Gateway]:
    """A gateway over a new database, or over the one that another has left."""
    async with gateway(folder, *CARDS, options=OPTIONS, where=where) as gate:
        gate.services.deliveries.delays_seconds = (0.01, 0.01, 0.01)
        yield gate


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with opened(tmp_path) as running:
        yield running


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


async def asked(gate: Gateway, hook: Receiver, path: str = ECHO, **fields: Any) -> Response:
    body = {"input": "one two three", "webhook": hook.url, **fields}
    return await gate.client.post(path, body)


async def delivery(gate: Gateway, request_id: str, wanted: str) -> dict[str, Any]:
    """Wait until a delivery has come to this."""
    async with asyncio.timeout(20):
        while True:
            told = (await gate.client.get(f"{DELIVERIES}/{request_id}")).json()
            if told["delivery"]["delivery"] == wanted:
                return told
            await asyncio.sleep(0.005)


def is_signed(came: Delivered, secret: str) -> bool:
    key = b64decode(secret.removeprefix("whsec_"))
    signed = f"{came.headers['webhook-id']}.{came.headers['webhook-timestamp']}.".encode()
    expected = b64encode(hmac.new(key, signed + came.body, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in came.headers["webhook-signature"].split(" ")


class TestSuccess:
    async def test_a_call_is_queued_at_once_and_its_answer_delivered_and_billed_once(
        self, gate: Gateway, hook: Receiver
    ) -> None:
        answer = await asked(gate, hook)
        assert answer.status == 200
        queued = answer.json()
        assert queued["inference_status"]["status"] == "queued"
        came = (await hook.next()).json()
        plain = (await gate.client.post(ECHO, {"input": "one two three"})).json()
        assert came["request_id"] == queued["request_id"]
        assert came["inference_status"]["status"] == "succeeded"
        assert came["results"] == plain["results"]
        (first, second) = await entries(gate)
        assert first.request_id == queued["request_id"]
        assert first.cost_nanos == second.cost_nanos > 0
        assert came["inference_status"]["cost"] == plain["inference_status"]["cost"]
        told = await delivery(gate, queued["request_id"], "delivered")
        assert told["answer"] == came
        assert [attempt["status"] for attempt in told["delivery"]["attempts"]] == [200]

    async def test_a_task_without_results_says_its_fields_in_both_places(
        self, gate: Gateway, hook: Receiver
    ) -> None:
        await asked(gate, hook, "/v1/inference/test/embedder", inputs=["a", "b"])
        came = (await hook.next()).json()
        assert len(came["embeddings"]) == 2
        assert came["results"]["embeddings"] == came["embeddings"]

    async def test_a_form_is_computed_as_it_came(self, gate: Gateway, hook: Receiver) -> None:
        fields = (("input", "one two"), ("webhook", hook.url), ("max_new_tokens", "1"))
        form = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields
        )
        kind = {"content-type": "multipart/form-data; boundary=b"}
        answer = await gate.client.post(ECHO, f"{form}--b--\r\n".encode(), headers=kind)
        assert answer.json()["inference_status"]["status"] == "queued"
        assert (await hook.next()).json()["num_tokens"] == 1

    @pytest.mark.parametrize("key", ["webhook", "web\\u0068ook"])
    async def test_a_long_body_is_computed_as_it_came(
        self, gate: Gateway, hook: Receiver, key: str
    ) -> None:
        # Longer than what is decoded in the loop, in whichever way its key is written.
        body = f'{{"input": "{"one " * 200_000}", "max_new_tokens": 1, "{key}": "{hook.url}"}}'
        answer = await gate.client.post("/v1/inference/test/roomy", body.encode())
        assert answer.json()["inference_status"]["status"] == "queued"
        assert (await hook.next()).json()["num_input_tokens"] == 200_000

    async def test_a_delivery_is_signed_as_standard_webhooks_are(
        self, gate: Gateway, hook: Receiver
    ) -> None:
        secret = (await gate.client.get("/v1/webhooks/secret")).json()["secret"]
        request_id = (await asked(gate, hook)).json()["request_id"]
        came = await hook.next()
        assert came.headers["webhook-id"] == f"msg_{request_id}"
        assert came.headers["content-type"] == "application/json"
        assert is_signed(came, secret)
        came.body += b" "
        assert not is_signed(came, secret)

    async def test_tags_and_tiers_of_headers_count(self, gate: Gateway, hook: Receiver) -> None:
        body = {"input": "one", "webhook": hook.url}
        await gate.client.post(ECHO, body, headers={"x-inferd-tag": "team-7"})
        await hook.next()
        assert [entry.tag for entry in await entries(gate)] == ["team-7"]

    async def test_a_key_queues_once(self, gate: Gateway, hook: Receiver) -> None:
        body = {"input": "one", "webhook": hook.url}
        first, second = [
            await gate.client.post(ECHO, body, headers={"idempotency-key": "k"}) for _ in range(2)
        ]
        assert second.json() == first.json()
        await hook.next()
        await delivery(gate, first.json()["request_id"], "delivered")
        assert hook.came.empty()
        assert len(await entries(gate)) == 1


class TestFailure:
    async def test_a_call_that_fails_is_told_as_failed(self, gate: Gateway, hook: Receiver) -> None:
        answer = await asked(gate, hook, "/v1/inference/test/broken")
        came = (await hook.next()).json()
        assert came["request_id"] == answer.json()["request_id"]
        assert came["inference_status"] == {
            "status": "failed",
            "runtime_ms": 0,
            "cost": 0.0,
            "tokens_generated": None,
            "tokens_input": None,
        }
        assert came["detail"]["error"]
        told = await delivery(gate, came["request_id"], "delivered")
        assert told["delivery"]["status"] == "failed"

    @pytest.mark.parametrize("status", [500, 404, 302, 0])
    async def test_it_is_sent_again_under_its_id_until_it_arrives(
        self, gate: Gateway, hook: Receiver, status: int
    ) -> None:
        hook.statuses = [status, status]
        request_id = (await asked(gate, hook)).json()["request_id"]
        came = [await hook.next() for _ in range(3)]
        assert {one.headers["webhook-id"] for one in came} == {f"msg_{request_id}"}
        assert len({one.body for one in came}) == 1
        told = await delivery(gate, request_id, "delivered")
        assert [one["status"] for one in told["delivery"]["attempts"]] == [status, status, 200]
        assert len(await entries(gate)) == 1

    async def test_it_gives_up_after_its_attempts_and_may_be_sent_again(
        self, gate: Gateway, hook: Receiver
    ) -> None:
        hook.statuses = [500] * 4
        request_id = (await asked(gate, hook)).json()["request_id"]
        told = await delivery(gate, request_id, "failed")
        assert len(told["delivery"]["attempts"]) == 4
        assert told["delivery"]["next_attempt_at"] is None
        again = await gate.client.post(f"{DELIVERIES}/{request_id}/resend")
        assert again.json()["delivery"] == "pending"
        told = await delivery(gate, request_id, "delivered")
        assert len(told["delivery"]["attempts"]) == 5

    async def test_a_receiver_that_is_gone_is_not_asked_again(
        self, gate: Gateway, hook: Receiver
    ) -> None:
        hook.statuses = [410]
        request_id = (await asked(gate, hook)).json()["request_id"]
        told = await delivery(gate, request_id, "failed")
        assert [one["status"] for one in told["delivery"]["attempts"]] == [410]

    async def test_a_private_address_is_told_and_never_called(self, tmp_path: Path) -> None:
        async with receiver() as hook, gateway(tmp_path) as gate:
            gate.services.deliveries.delays_seconds = ()
            request_id = (await asked(gate, hook)).json()["request_id"]
            told = await delivery(gate, request_id, "failed")
            (attempt,) = told["delivery"]["attempts"]
            assert attempt["status"] == 0
            assert "public address" in attempt["error"]
            assert hook.came.empty()


class TestBadLuck:
    async def test_what_is_booked_as_failed_is_not_tried_again(
        self, gate: Gateway, hook: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "BUSY", frozenset({500}))
        monkeypatch.setattr(calls, "AGAIN_SECONDS", (0.0,) * 3)
        await asked(gate, hook, "/v1/inference/test/broken")
        assert (await hook.next()).json()["inference_status"]["status"] == "failed"
        assert len(gate.flights) == 1

    async def test_a_model_that_has_no_room_is_tried_again(
        self, gate: Gateway, hook: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "AGAIN_SECONDS", (0.001,) * 10_000)
        router, tries = gate.services.router, 0
        run = router.run

        def shed(ask: Ask, flight: Flight) -> AsyncGenerator[Event]:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise TooManyRequests("Model busy, retry later.", retry_after_seconds=1)
            return run(ask, flight)

        monkeypatch.setattr(router, "run", shed)
        await asked(gate, hook)
        assert (await hook.next()).json()["inference_status"]["status"] == "succeeded"
        assert (tries, len(await entries(gate))) == (3, 1)

    async def test_an_answer_waits_for_the_database(
        self, gate: Gateway, hook: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "KEEP_SECONDS", 0.001)
        save, refused = webhook_calls.save, 0

        async def away(connection: AsyncConnection, row: CallRow) -> None:
            nonlocal refused
            refused += 1
            if refused <= 5:
                raise Unavailable("The database cannot be reached at the moment.")
            await save(connection, row)

        monkeypatch.setattr(webhook_calls, "save", away)
        await asked(gate, hook)
        assert (await hook.next()).json()["inference_status"]["status"] == "succeeded"
        assert len(await entries(gate)) == 1

    async def test_a_delivery_that_cannot_be_noted_is_not_sent_in_a_storm(
        self, gate: Gateway, hook: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noted = asyncio.Event()

        async def full(connection: AsyncConnection, row: CallRow) -> None:
            noted.set()
            raise Unavailable("The disk is full.")

        monkeypatch.setattr(webhook_calls, "save_attempt", full)
        await asked(gate, hook)
        await hook.next()
        await noted.wait()
        for _ in range(200):
            gate.services.deliveries.look()
            await asyncio.sleep(0.001)
        assert hook.came.empty()

    async def test_what_is_sent_again_meanwhile_keeps_its_log(
        self, gate: Gateway, hook: Receiver
    ) -> None:
        request_id = (await asked(gate, hook)).json()["request_id"]
        await hook.next()
        told = await delivery(gate, request_id, "delivered")
        async with gate.services.database.reading() as connection:
            row = await webhook_calls.get(connection, request_id, View(gate.account_id))
        assert row is not None
        # As it was read before its attempt was noted.
        await gate.services.deliveries.resend(msgspec.structs.replace(row, attempts=b"\x90"))
        await hook.next()
        async with asyncio.timeout(20):
            while len(told["delivery"]["attempts"]) < 2:
                told = await delivery(gate, request_id, "delivered")


class TestRefusals:
    """Whatever is refused is refused at once, and leaves nothing."""

    @pytest.mark.parametrize(
        "webhook", ["ftp://x.example/", "http://user@x.example/", "nonsense", "http://good\\@x/"]
    )
    async def test_a_strange_url(self, gate: Gateway, webhook: str) -> None:
        answer = await gate.client.post(ECHO, {"input": "one", "webhook": webhook})
        assert answer.status == 400
        assert (await gate.client.get(DELIVERIES)).json() == {"deliveries": []}

    async def test_a_stream(self, gate: Gateway, hook: Receiver) -> None:
        answer = await asked(gate, hook, stream=True)
        assert answer.status == 400
        assert "stream" in answer.json()["detail"]["error"]

    async def test_a_body_that_is_wrong(self, gate: Gateway, hook: Receiver) -> None:
        assert (await asked(gate, hook, max_new_tokens=-1)).status == 422

    async def test_no_money(self, gate: Gateway, hook: Receiver) -> None:
        await gate.services.ledger.set_credit(gate.account_id, 1)
        assert (await asked(gate, hook)).status == 402
        assert (await gate.client.get(DELIVERIES)).json() == {"deliveries": []}
        assert gate.services.ledger.outstanding_nanos(gate.account_id) == 0

    async def test_openai_routes_know_no_webhook(self, gate: Gateway, hook: Receiver) -> None:
        chat = {"model": "test/echo", "messages": [{"role": "user", "content": "one"}]}
        answer = await gate.client.post("/v1/chat/completions", {**chat, "webhook": hook.url})
        assert answer.json()["choices"]

    async def test_another_account_sees_nothing(
        self, gate: Gateway, hook: Receiver, tmp_path: Path
    ) -> None:
        request_id = (await asked(gate, hook)).json()["request_id"]
        await hook.next()
        _, secret = await another_account(tmp_path, "another", gate.services.database.url)
        foreign = {"authorization": f"Bearer {secret}"}
        for method, path in (("GET", ""), ("POST", "/resend")):
            where = f"{DELIVERIES}/{request_id}{path}"
            answer = await gate.client.call(method, where, b"", headers=foreign)
            assert answer.status == 404
        listed = await gate.client.get(DELIVERIES, headers=foreign)
        assert listed.json() == {"deliveries": []}
