"""Money over HTTP: nobody spends what he has not, however many ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferd.access.caller import INFERENCE_RUN
from inferd.catalog.card import ModelCard
from inferd.catalog.card_price import CardPrice
from inferd.serving.replica import ReplicaFacts
from inferd.storage.rows import GrantRow
from tests.gateway import Client, Gateway, InProcessReplica, Response, echo_card, gateway, until
from tests.ledger import entries

CHAT = "/v1/chat/completions"
FIVE_CENTS = 50_000_000
DOLLAR = 10**9
BODY = {
    "model": "test/dear",
    "messages": [{"role": "user", "content": "one two"}],
    "max_tokens": 1,
}


def dear_card() -> ModelCard:
    """A token of output costs $0.05, and nothing else costs anything."""
    price = CardPrice(input="0", cached="0", output="50000")
    return echo_card("test/dear", slots=200, price=price)


@pytest.fixture
async def dear(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, dear_card()) as running:
        yield running


async def _token_with_a_dollar(dear: Gateway, budget: str) -> str:
    ledger, account_id = dear.services.ledger, dear.account_id
    row, secret = await dear.services.tokens.create(account_id, "t", (INFERENCE_RUN,))
    if budget == "token":
        await ledger.set_token_monthly_limit(account_id, row.id, DOLLAR)
    elif budget == "admin":
        await ledger.set_monthly_limit(account_id, 2 * DOLLAR)
        await ledger.set_monthly_limit(account_id, DOLLAR, by_admin=True)
    elif budget == "account":
        await ledger.set_monthly_limit(account_id, DOLLAR)
    else:
        await ledger.grant(GrantRow("grant", account_id, DOLLAR, "", "", 1))
    return secret


@pytest.mark.parametrize("budget", ["token", "account", "admin", "credit"])
async def test_a_dollar_admits_twenty_of_two_hundred_parallel_requests_of_five_cents(
    dear: Gateway, budget: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = dear.services.ledger
    secret = await _token_with_a_dollar(dear, budget)
    decided, load = asyncio.Event(), InProcessReplica.start
    lowest: list[int] = []
    refused: list[Response] = []

    async def held(replica: InProcessReplica) -> ReplicaFacts:
        await decided.wait()
        return await load(replica)

    def balance() -> int:
        finite = [purse for purse in ledger.in_memory() if purse.limit is not None]
        lowest.append(min([DOLLAR, *(purse.free for purse in finite)]))
        return lowest[-1]

    monkeypatch.setattr(InProcessReplica, "start", held)

    async def ask() -> Response:
        answer = await Client(dear.client.app, token=secret).post(CHAT, BODY)
        balance()
        if answer.status == 402:
            refused.append(answer)
        return answer

    asking = [asyncio.ensure_future(ask()) for _ in range(200)]
    await until(lambda: len(refused) == 180)
    assert balance() == 0
    assert ledger.outstanding_nanos(dear.account_id) == 20 * FIVE_CENTS
    decided.set()
    answers = await asyncio.gather(*asking)
    assert sorted(answer.status for answer in answers) == [200] * 20 + [402] * 180
    assert all("is $0; this request may cost up to $0.05" in r.body.decode() for r in refused)
    assert [entry.cost_nanos for entry in await entries(dear)] == [FIVE_CENTS] * 20
    assert (balance(), min(lowest), ledger.outstanding_nanos(dear.account_id)) == (0, 0, 0)


async def test_every_ending_gives_back_what_it_did_not_spend(dear: Gateway) -> None:
    ledger = dear.services.ledger
    await ledger.grant(GrantRow("grant", dear.account_id, DOLLAR, "", "", 1))
    texts = ["one", "echo:fail_after=1 two", "three four"]
    for text in texts:
        body = {**BODY, "messages": [{"role": "user", "content": text}], "max_tokens": 4}
        await dear.client.post(CHAT, body)
    spent = sum(entry.cost_nanos for entry in await entries(dear))
    assert 0 < spent < DOLLAR
    assert ledger.outstanding_nanos(dear.account_id) == 0
    assert ledger.balance_nanos(dear.account_id) == DOLLAR - spent


async def test_a_refusal_names_the_budget_and_what_is_left_of_it(dear: Gateway) -> None:
    row, secret = await dear.services.tokens.create(dear.account_id, "t", (INFERENCE_RUN,))
    await dear.services.ledger.set_token_monthly_limit(dear.account_id, row.id, 70_000_000)
    client = Client(dear.client.app, token=secret)
    assert (await client.post(CHAT, BODY)).status == 200
    answer = await client.post(CHAT, BODY)
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (402, "insufficient_balance")
    assert "The balance of the token's monthly limit of $0.07 is $0.02" in error["message"]
    # Another token of the account goes on.
    assert (await dear.client.post(CHAT, BODY)).status == 200
    blocked = await _blocked(dear, row.id, client)
    assert "limit of $0 is $0" in blocked.json()["error"]["message"]


async def _blocked(dear: Gateway, token_id: str, client: Client) -> Response:
    await dear.services.ledger.set_token_monthly_limit(dear.account_id, token_id, 0)
    answer = await client.post(CHAT, BODY)
    assert answer.status == 402
    return answer


async def test_a_request_that_is_refused_leaves_no_trace(dear: Gateway) -> None:
    await dear.services.ledger.grant(GrantRow("grant", dear.account_id, 1, "", "", 1))
    assert (await dear.client.post(CHAT, BODY)).status == 402
    assert await entries(dear) == []
    assert dear.flights == []
    assert dear.services.ledger.outstanding_nanos(dear.account_id) == 0
