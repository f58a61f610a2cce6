"""Models that an account keeps up: paid by the minute, ahead, and never more than there was."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from inferd.admission.rent import Rent
from inferd.catalog.card_price import CardPrice
from inferd.clock import ManualClock
from inferd.metering.credit import budget
from inferd.metering.verify import verify
from inferd.serving.router import RouterOptions
from inferd.storage import accounts
from inferd.storage.checks import UPTIME_TOKEN
from inferd.storage.rows import AccountRow, EntryRow, GrantRow
from tests.gateway import Gateway, Response, echo_card, gateway
from tests.ledger import entries

CARD = echo_card(price=CardPrice(uptime_seconds="0.01", payer="acc_payer"))


class House:
    """A gateway whose model is paid by an account, with a clock to turn."""

    def __init__(self, gate: Gateway, clock: ManualClock) -> None:
        self.gate = gate
        self.clock = clock
        services = gate.services
        tasks = {CARD.name: CARD.task}
        self.rent = Rent(services.router, services.ledger, services.prices, tasks, clock)
        services.gate.with_rent(self.rent.check)

    async def call(self) -> Response:
        return await self.gate.client.post("/v1/inference/test/echo", {"input": "a b"})

    async def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.rent.look()

    async def paid(self) -> list[EntryRow]:
        return [row for row in await entries(self.gate) if row.token_id == UPTIME_TOKEN]


class Fleet:
    """A router that says how many replicas are up."""

    index: int | None = None

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas

    async def refresh(self) -> None:
        """It knows."""

    def snapshot(self) -> Any:
        """What is up."""
        return SimpleNamespace(models=[SimpleNamespace(model=CARD.name, replicas=self.replicas)])


class Fleets(House):
    """The same with as many replicas as a test says."""

    def __init__(self, place: House, replicas: int) -> None:
        super().__init__(place.gate, place.clock)
        services, self.fleet = place.gate.services, Fleet(replicas)
        # Of a router it is asked for replicas alone.
        router: Any = self.fleet
        tasks = {CARD.name: CARD.task}
        self.rent = Rent(router, services.ledger, services.prices, tasks, self.clock)
        services.gate.with_rent(self.rent.check)

    async def balance(self) -> int:
        """What the database says that is left."""
        services = self.gate.services
        found = await budget(services.database, "acc_payer", services.clock.unix_ns())
        assert found.balance_nanos is not None
        return found.balance_nanos


@asynccontextmanager
async def house(tmp_path: Path, credit_nanos: int | None = None) -> AsyncGenerator[House]:
    clock = ManualClock()
    options = RouterOptions(memory_bytes=1 << 30, idle_seconds=3600)
    async with gateway(tmp_path, CARD, clock=clock, router_options=options) as gate:
        async with gate.services.database.writing() as connection:
            await accounts.add(connection, AccountRow("acc_payer", "payer", 1, None))
        if credit_nanos is not None:
            await gate.services.ledger.grant(GrantRow("g", "acc_payer", credit_nanos, "", "", 1))
        yield House(gate, clock)


async def test_a_minute_is_booked_to_the_account_and_callers_pay_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as place:
        answer = await place.call()
        assert answer.json()["inference_status"]["cost"] == 0
        await place.rent.look()
        for _ in range(7):
            await place.wait(10)
        (minute,) = await place.paid()
        assert (minute.account_id, minute.quantity) == ("acc_payer", 60_000_000)
        assert minute.cost_nanos == 600_000_000
        await place.rent.close()
        last = (await place.paid())[-1]
        assert last.quantity == 10_000_000
        found = await verify(place.gate.services.database)
        assert (found.differences, found.entries) == ((), 3)
        told = await place.gate.client.get("/payment/usage/rent?account=acc_payer&from=0")
        assert told.json() == {"id_to_duration": {"test/echo": 70.0}}


async def test_a_model_that_is_down_costs_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as place:
        for _ in range(10):
            await place.wait(10)
        await place.rent.close()
        assert await place.paid() == []


async def test_who_cannot_pay_overshoots_nothing_and_the_model_is_not_called(
    tmp_path: Path,
) -> None:
    # A minute and two looks are set aside: 80 cents.
    async with house(tmp_path, credit_nanos=1_500_000_000) as place:
        assert (await place.call()).status == 200
        await place.rent.look()
        for _ in range(30):
            await place.wait(10)
        paid = sum(row.cost_nanos for row in await place.paid())
        assert paid == 1_200_000_000
        refused = await place.call()
        assert refused.status == 402
        assert b"keeps test/echo up cannot pay" in refused.body
        await place.gate.services.ledger.grant(
            GrantRow("g2", "acc_payer", 10_000_000_000, "", "", 1)
        )
        await place.wait(10)
        assert (await place.call()).status == 200
        await place.rent.close()


async def test_a_new_price_applies_from_the_next_look(tmp_path: Path) -> None:
    async with house(tmp_path) as place:
        await place.call()
        await place.rent.look()
        await place.wait(10)
        services = place.gate.services
        dearer = CardPrice(uptime_seconds="0.02", payer="acc_payer")
        async with services.changes.writing() as change:
            await services.prices.set(change.connection, CARD.name, dearer)
            change.touch("prices", CARD.name)
        await place.wait(10)
        await place.wait(10)
        await place.rent.close()
        costs = [(row.quantity, row.cost_nanos) for row in await place.paid()]
        assert costs == [(20_000_000, 200_000_000), (10_000_000, 200_000_000)]


CENTS_80 = 800_000_000


async def test_twelve_replicas_never_cost_more_than_there_is(tmp_path: Path) -> None:
    async with house(tmp_path, credit_nanos=CENTS_80) as place:
        place = Fleets(place, 12)
        for _ in range(10):
            await place.wait(10)
            assert await place.balance() >= 0
        assert (await place.call()).status == 402


async def test_replicas_that_come_within_a_minute_never_cost_more_than_there_is(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, credit_nanos=CENTS_80) as place:
        place = Fleets(place, 1)
        await place.rent.look()
        await place.wait(10)
        place.fleet.replicas = 12
        for _ in range(10):
            await place.wait(10)
            assert await place.balance() >= 0
        # What one replica was up before the others came.
        assert [row.quantity for row in await place.paid()] == [20_000_000]


async def test_a_look_that_comes_late_costs_no_more_than_was_set_aside(tmp_path: Path) -> None:
    async with house(tmp_path, credit_nanos=CENTS_80) as place:
        place = Fleets(place, 1)
        await place.rent.look()
        await place.wait(1000)
        assert await place.balance() == 0


async def test_every_replica_is_paid_for(tmp_path: Path) -> None:
    async with house(tmp_path) as place:
        place = Fleets(place, 2)
        await place.rent.look()
        await place.wait(10)
        place.fleet.replicas = 12
        await place.wait(10)
        for _ in range(6):
            await place.wait(10)
        assert [row.quantity for row in await place.paid()] == [40_000_000, 720_000_000]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE accounts SET suspended = 'a debt' WHERE id = 'acc_payer'", b"a debt"),
        ("UPDATE accounts SET deleted_unix_ns = 5 WHERE id = 'acc_payer'", b"was deleted"),
    ],
)
async def test_who_may_not_spend_any_more_pays_for_nothing_any_more(
    tmp_path: Path, change: str, said: bytes
) -> None:
    async with house(tmp_path, credit_nanos=100 * CENTS_80) as place:
        place = Fleets(place, 1)
        await place.rent.look()
        await place.wait(10)
        async with place.gate.services.database.writing() as connection:
            await connection.execute(text(change))
        for _ in range(20):
            await place.wait(10)
        assert [row.quantity for row in await place.paid()] == [10_000_000]
        refused = await place.call()
        assert refused.status == 402
        assert said in refused.body
        place.fleet.replicas = 0
        await place.wait(10)
        assert (await place.call()).status == 402


async def test_every_gateway_of_a_machine_refuses_for_a_payer_who_may_not_spend(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as place:
        place = Fleets(place, 1)
        place.fleet.index = 1
        await place.wait(10)
        assert (await place.call()).status == 200
        for reason, status in (("a debt", 402), (None, 200)):
            async with place.gate.services.database.writing() as connection:
                await accounts.suspend(connection, "acc_payer", reason)
            await place.wait(10)
            assert (await place.call()).status == status
        assert await place.paid() == []
