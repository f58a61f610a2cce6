"""Two callers: neither is taken for the other, and no clock tells which key is nearly right."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from inferd.access.caller import INFERENCE_RUN, Caller
from inferd.admission.work import Order, Work
from inferd.errors import Unauthorized
from inferd.storage import accounts
from inferd.storage.rows import AccountRow
from inferd.tasks.text_generation import TextGenerationRequest
from tests.gateway import ADMIN_TOKEN, Client, Gateway, gateway
from tests.hostile.attack import BASES, CHAT, COMPLETIONS, COSTS, MESSAGES, NATIVE, RESPONSES
from tests.ledger import entries

ROUNDS = 400
FACTOR_MAX = 3.0
"""How many times longer one kind of miss may take: it is noise, a byte more right is not."""


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path) as running:
        yield running


async def _medians_seconds(*kinds: Callable[[int], Awaitable[None]]) -> list[float]:
    """Of each kind of miss; they take turns, so that a slow moment meets them all."""
    times: list[list[float]] = [[] for _ in kinds]
    for number in range(ROUNDS):
        for found, miss in zip(times, kinds, strict=True):
            began = time.perf_counter()
            await miss(number)
            found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in times]


async def test_a_nearly_right_token_is_refused_no_later_than_a_wrong_one(gate: Gateway) -> None:
    tokens = gate.services.tokens
    _, secret = await tokens.create(gate.account_id, "t", (INFERENCE_RUN,))

    def miss(base: str, keep: int) -> Callable[[int], Awaitable[None]]:
        async def ask(number: int) -> None:
            shown = base[:keep] + f"{number:06d}".rjust(len(base) - keep, "x")[: len(base) - keep]
            with pytest.raises(Unauthorized):
                await tokens.authenticate(shown)

        return ask

    kinds = [miss(secret, len(secret) - 6), miss("y" * len(secret), 0), miss(secret, 4)]
    medians = await _medians_seconds(*kinds)
    assert max(medians) < min(medians) * FACTOR_MAX


async def test_a_revoked_token_is_refused_no_later_than_an_unknown_one(gate: Gateway) -> None:
    tokens = gate.services.tokens
    row, revoked = await tokens.create(gate.account_id, "t", (INFERENCE_RUN,))
    await tokens.revoke(gate.account_id, row.id)

    def asks(secret: str) -> Callable[[int], Awaitable[None]]:
        async def ask(_: int) -> None:
            with pytest.raises(Unauthorized):
                await tokens.authenticate(secret)

        return ask

    medians = await _medians_seconds(asks(revoked), asks("x" * len(revoked)))
    assert max(medians) < min(medians) * FACTOR_MAX


async def test_refusals_say_the_same_whatever_was_nearly_right(gate: Gateway) -> None:
    tokens = gate.services.tokens
    row, revoked = await tokens.create(gate.account_id, "t", (INFERENCE_RUN,))
    await tokens.revoke(gate.account_id, row.id)
    told: set[bytes] = set()
    for secret in (revoked, "unknown", revoked[:-1], revoked + "x", ADMIN_TOKEN[:-1], "a" * 600):
        answer = await Client(gate.client.app, token=secret).get("/v1/usage")
        assert answer.status == 401
        told.add(answer.body)
    assert len(told) == 1


async def test_tokens_that_share_a_beginning_pay_each_for_himself(gate: Gateway) -> None:
    made = [
        await gate.services.tokens.create(gate.account_id, f"t{number}", (INFERENCE_RUN,))
        for number in range(8)
    ]
    path = NATIVE.replace("test/model", "test/echo")
    for round_ in range(2):
        for _, secret in made:
            answer = await Client(gate.client.app, token=secret).post(path, BASES[NATIVE])
            assert answer.status == 200, round_
    paid = [entry.token_id for entry in await entries(gate)]
    assert sorted(paid) == sorted([row.id for row, _ in made] * 2)


async def test_each_account_has_cached_prompts_and_costs_of_its_own(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No field of a body changes whose cached prompts may be reused, nor whose costs are told."""
    stranger = AccountRow("acc_stranger", "stranger", 1, None)
    async with gate.services.database.writing() as connection:
        await accounts.add(connection, stranger)
    _, secret = await gate.services.tokens.create(stranger.id, "t", (INFERENCE_RUN,))
    scopes: list[str] = []
    admit = gate.services.gate.admit

    async def seen(caller: Caller, order: Order) -> Work:
        assert isinstance(order.request, TextGenerationRequest)
        scopes.append(order.request.cache_scope)
        return await admit(caller, order)

    monkeypatch.setattr(gate.services.gate, "admit", seen)
    foreign = {"cache_scope": gate.account_id, "user": gate.account_id, "cache_key": "x"}
    ids: list[str] = []
    for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES, NATIVE):
        body = {**BASES[path], **foreign}
        if "model" in body:
            body["model"] = "test/echo"
        theirs = Client(gate.client.app, token=secret)
        answer = await theirs.post(path.replace("test/model", "test/echo"), body)
        assert answer.status == 200, answer.body
        ids.append(answer.headers["x-request-id"])
    assert scopes == [stranger.id] * 5
    own = await Client(gate.client.app, token=secret).post(COSTS, {"requestIds": ids})
    assert [one["costNanoUsd"] > 0 for one in own.json()["requests"]] == [True] * 5
    told = await gate.client.post(COSTS, {"requestIds": ids})
    assert all(not one.get("costNanoUsd") for one in told.json()["requests"])
    for path in ("/v1/usage", "/v1/usage?by=end_user"):
        assert (await gate.client.get(path)).json()["rows"] == []


async def test_a_token_and_the_same_with_white_space_are_one_caller_or_none(gate: Gateway) -> None:
    _, secret = await gate.services.tokens.create(gate.account_id, "t", (INFERENCE_RUN,))
    for shown in (f"{secret}\u00a0", f"{secret}\u200b".encode().decode("latin-1"), secret.upper()):
        headers = {"authorization": f"Bearer {shown}"}
        answer = await Client(gate.client.app, token=None).get("/v1/usage", headers=headers)
        assert answer.status == 401


async def test_who_shows_two_tokens_is_the_one_in_the_authorization_header(gate: Gateway) -> None:
    """Otherwise a proxy that sets one header could be overruled with another."""
    _, secret = await gate.services.tokens.create(gate.account_id, "t", (INFERENCE_RUN,))
    headers = {"authorization": f"Bearer {secret}", "x-api-key": ADMIN_TOKEN}
    answer = await Client(gate.client.app, token=None).get("/v1/status", headers=headers)
    assert answer.status == 403
    headers = {"authorization": "Bearer wrong", "x-api-key": ADMIN_TOKEN}
    answer = await Client(gate.client.app, token=None).get("/v1/status", headers=headers)
    assert answer.status == 401


async def test_no_secret_comes_back_in_any_answer_of_the_account(gate: Gateway) -> None:
    made = await gate.client.post("/v1/api-tokens", {"name": "ci"})
    secret = made.json()["token"]
    path = f"/v1/api-tokens/id/{made.json()['token_id']}"
    for asked in ("/v1/api-tokens", path, "/v1/usage?by=token", "/v1/status", "/metrics"):
        told = (await gate.client.get(asked)).body.decode()
        assert secret not in told
        assert ADMIN_TOKEN not in told
        assert secret[4:20] not in told


@pytest.mark.parametrize("name", ["", "n" * 101, 1, None, ["x"], {"x": 1}])
async def test_a_token_of_a_strange_name_is_not_made(gate: Gateway, name: object) -> None:
    assert (await gate.client.post("/v1/api-tokens", {"name": name})).status == 422


@pytest.mark.parametrize(
    "scopes", [["root"], ["admin", "root"], "admin", [1], [["admin"]], {"admin": True}]
)
async def test_a_token_of_a_strange_scope_is_not_made(gate: Gateway, scopes: object) -> None:
    body = msgspec.json.encode({"name": "t", "scopes": scopes})
    assert (await gate.client.post("/v1/api-tokens", body)).status == 422


async def test_a_token_of_no_scopes_may_do_nothing_more_than_infer(gate: Gateway) -> None:
    made = (await gate.client.post("/v1/api-tokens", {"name": "t", "scopes": []})).json()
    answer = await Client(gate.client.app, token=made["token"]).get("/v1/status")
    assert answer.status == 403
