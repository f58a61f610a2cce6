"""Models that an account keeps up: paid by the minute, ahead, and never more than there was."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from inferd.admission.rent import Rent
from inferd.catalog.card_price import CardPrice
from inferd.clock import ManualClock
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
