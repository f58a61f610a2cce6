"""Prices over the wire: set, planned, given back, shown in every variant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.catalog.card import ModelCard
from inferd.catalog.card_price import CardPrice
from inferd.tasks.base import TaskName
from tests.gateway import Client, Gateway, echo_card, gateway
from tests.ledger import entries

ADMIN = "/v1/admin/prices"
NATIVE = "/v1/inference/test/echo"
FAR = "2199-01-01T00:00:00Z"


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path) as running:
        yield running


async def cost_of_a_call(gate: Gateway) -> int:
    answer = await gate.client.post(NATIVE, {"input": "a b"})
    assert answer.status == 200
    return round(answer.json()["inference_status"]["cost"] * 1e9)


async def test_a_price_applies_to_the_next_call_and_history_keeps_its_own(gate: Gateway) -> None:
    before = await cost_of_a_call(gate)
    price = {"input": "10", "cached": "5", "output": "20"}
    told = await gate.client.post(ADMIN, {"model": "test/echo", "price": price})
    (shown,) = told.json()["prices"]
    assert (shown["state"], shown["source"], shown["valid_to"]) == ("current", "admin", None)
    assert [(line["unit"], line["usd_per_million"]) for line in shown["lines"]] == [
        ("input_tokens", "10"),
        ("cached_tokens", "5"),
        ("output_tokens", "20"),
    ]
    assert await cost_of_a_call(gate) == 10 * before
    assert [row.cost_nanos for row in await entries(gate)] == [before, 10 * before]
    verified = await gate.client.post("/v1/usage/verify", {})
    assert verified.json()["differences"] == []
    (listed,) = (await gate.client.get("/models/list")).json()
    assert listed["pricing"]["cents_per_input_token"] == pytest.approx(1e-3)
    versions = (await gate.client.get(f"{ADMIN}/test/echo")).json()["prices"]
    assert [one["state"] for one in versions] == ["past", "current"]


@pytest.mark.parametrize("price", [{}, {"priority": "2"}, {"input": "0", "output": "0"}])
async def test_a_model_is_free_only_when_that_is_said(gate: Gateway, price: dict[str, str]) -> None:
    before = await cost_of_a_call(gate)
    body = {"model": "test/echo", "price": price}
    told = await gate.client.post(ADMIN, body)
    assert (told.status, b'free\\": true' in told.body) == (400, True)
    assert await cost_of_a_call(gate) == before
    assert (await gate.client.post(ADMIN, {**body, "free": True})).status == 200
    assert await cost_of_a_call(gate) == 0


async def test_what_quotes_a_rate_is_not_free(gate: Gateway) -> None:
    body = {"model": "test/echo", "price": {"compute_seconds": "1"}, "free": True}
    assert (await gate.client.post(ADMIN, body)).status == 400


async def test_a_planned_price_does_not_apply_yet(gate: Gateway) -> None:
    before = await cost_of_a_call(gate)
    body = {"model": "test/echo", "price": {"input": "10"}, "valid_from": FAR}
    told = (await gate.client.post(ADMIN, body)).json()["prices"]
    assert [one["state"] for one in told] == ["current", "planned"]
    assert told[0]["valid_to"] == told[1]["valid_from"] == FAR
    assert await cost_of_a_call(gate) == before
    reset = await gate.client.call("DELETE", f"{ADMIN}/test/echo", b"")
    assert [one["source"] for one in reset.json()["prices"]] == ["card"]
    versions = (await gate.client.get(f"{ADMIN}/test/echo")).json()["prices"]
    assert [one["state"] for one in versions] == ["past", "withdrawn", "current"]


async def test_a_discount_and_its_end_are_shown_and_paid(gate: Gateway) -> None:
    before = await cost_of_a_call(gate)
    price = {"input": "1", "cached": "0.5", "output": "2", "discount": "0.5", "discount_ends": FAR}
    told = await gate.client.post(ADMIN, {"model": "test/echo", "price": price})
    assert [one["discount"] for one in told.json()["prices"]] == ["0.5", None]
    assert await cost_of_a_call(gate) == before // 2
    shown = (await gate.client.get("/models/test/echo")).json()["pricing"]
    assert (shown["discount"], shown["discount_ends_at"]) == (0.5, 7_226_582_400)
    listed = (await gate.client.get("/v1/models?filter=with_meta")).json()["data"][0]
    assert listed["metadata"]["discount"] == 0.5


async def test_a_tier_that_the_admin_sets_is_paid(gate: Gateway) -> None:
    await gate.client.post(ADMIN, {"model": "test/echo", "price": {"input": "1", "flex": "0.5"}})
    body = {"model": "test/echo", "messages": [{"role": "user", "content": "a b"}]}
    answer = await gate.client.post("/v1/chat/completions", {**body, "service_tier": "flex"})
    assert answer.json()["service_tier"] == "flex"
    (entry,) = await entries(gate)
    assert entry.tier == "flex"
    assert entry.cost_nanos == round(entry.input_tokens * 1000 * 0.5)


async def test_a_language_model_may_cost_by_the_second(gate: Gateway) -> None:
    price = {"compute_seconds": "1"}
    await gate.client.post(ADMIN, {"model": "test/echo", "price": price})
    answer = (await gate.client.post(NATIVE, {"input": "a b"})).json()
    (entry,) = await entries(gate)
    assert entry.unit == "compute_seconds"
    assert entry.cost_nanos == entry.quantity * 1000
    assert round(answer["inference_status"]["cost"] * 1e9) == entry.cost_nanos
    assert (await gate.client.post("/v1/usage/verify", {})).json()["differences"] == []


WRONG: list[tuple[dict[str, Any], int]] = [
    ({"model": "test/echo", "price": {"input": "-1"}}, 400),
    ({"model": "test/echo", "price": {"input": "NaN"}}, 400),
    ({"model": "test/echo", "price": {"input": "0.0000000001"}}, 400),
    ({"model": "test/echo", "price": {"input": "1e30"}}, 400),
    ({"model": "test/echo", "price": {"input": 1}}, 422),
    ({"model": "test/echo", "price": {"image_units": "1"}}, 400),
    ({"model": "test/echo", "price": {"compute_seconds": "x"}}, 400),
    ({"model": "test/echo", "price": {"flex": "0"}}, 400),
    ({"model": "test/echo", "price": {"discount": "1.1"}}, 400),
    ({"model": "test/echo", "price": {"input": "1", "discount_ends": FAR}}, 400),
    ({"model": "test/echo", "price": {"uptime_seconds": "1"}}, 400),
    ({"model": "test/echo", "price": {"uptime_seconds": "1", "payer": "nobody"}}, 400),
    ({"model": "test/echo", "price": {"inptu": "1"}}, 422),
    ({"model": "test/echo", "price": {}, "valid_from": "2020-01-01T00:00:00Z"}, 400),
    ({"model": "test/echo", "price": {}, "valid_from": "tomorrow"}, 422),
    ({"model": "test/echo", "price": {}, "valid_from": "2199-01-01T00:00:00"}, 422),
    ({"model": "test/none", "price": {}}, 404),
    ({"model": "test/echo"}, 422),
]


@pytest.mark.parametrize(("body", "status"), WRONG)
async def test_a_wrong_price_changes_nothing(
    gate: Gateway, body: dict[str, Any], status: int
) -> None:
    before = (await gate.client.get(f"{ADMIN}/test/echo")).body
    assert (await gate.client.post(ADMIN, body)).status == status
    assert (await gate.client.get(f"{ADMIN}/test/echo")).body == before


async def test_only_the_installations_admin_sets_prices(gate: Gateway) -> None:
    made = (await gate.client.post("/v1/api-tokens", {"name": "plain"})).json()
    client = Client(gate.client.app, token=made["token"])
    body = {"model": "test/echo", "price": {"input": "0"}}
    assert (await client.post(ADMIN, body)).status == 403
    assert (await client.get(ADMIN)).status == 403


async def test_who_set_a_price_is_written_down(gate: Gateway) -> None:
    await gate.client.post(ADMIN, {"model": "test/echo", "price": {"input": "3"}})
    rows = (await gate.client.get("/v1/admin/audit")).json()
    assert '"price.set"' in (await gate.client.get("/v1/admin/audit")).body.decode(), rows


def priced(name: str, task: TaskName, **quoted: str) -> ModelCard:
    options = {"default_width": 512, "default_height": 512, "steps": 4}
    return echo_card(
        f"t/{name}", task=task, price=msgspec.convert(quoted, CardPrice), options=options
    )


VARIANTS: list[tuple[ModelCard, str, str, float]] = [
    (priced("a", "text-generation", input="1"), "tokens", "cents_per_input_token", 1e-4),
    (priced("b", "embeddings", input="1"), "input_tokens", "cents_per_input_token", 1e-4),
    (
        priced("c", "automatic-speech-recognition", input_seconds="0.01"),
        "input_length",
        "cents_per_input_sec",
        1,
    ),
    (
        priced("d", "text-to-speech", input_characters="10"),
        "input_character_length",
        "cents_per_input_chars",
        1e-3,
    ),
    (
        priced("e", "text-to-video", output_seconds="0.02"),
        "output_length",
        "cents_per_output_sec",
        2,
    ),
    (priced("f", "text-to-video", frame_units="0.03"), "frame_units", "cents_per_frame_unit", 3),
    (priced("g", "text-to-image", image_units="0.04"), "image_units", "cents_per_image_unit", 4),
    (priced("h", "image-classification", compute_seconds="0.05"), "time", "cents_per_sec", 5),
    (
        priced("i", "text-generation", uptime_seconds="0.06", payer="acc"),
        "uptime",
        "cents_per_sec",
        6,
    ),
]


async def test_every_variant_is_shown(tmp_path: Path) -> None:
    async with gateway(tmp_path, *(card for card, *_ in VARIANTS)) as gate:
        listed = {m["model_name"]: m for m in (await gate.client.get("/models/list")).json()}
        for card, kind, name, cents in VARIANTS:
            shown = listed[card.name]["pricing"]
            assert (shown["type"], shown[name]) == (kind, pytest.approx(cents))
            assert {"discount", "discount_ends_at", "short", "full", "table"} <= set(shown)
            # deepctl reads it of everything but models that are billed by time.
            assert kind == "time" or isinstance(shown["cents_per_output_token"], float)
        picture = listed["t/g"]["pricing"]
        assert (picture["default_width"], picture["default_iterations"]) == (512, 4)
        assert picture["default_price_cents"] == pytest.approx(1)
        tokens = listed["t/a"]["pricing"]
        assert tokens["rate_per_input_token_cache_write"] is None
