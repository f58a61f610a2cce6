"""The database goes away under load: what callers see meanwhile, and what is billed afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import httpx

from inferd.catalog.card_price import CardPrice
from tests.books import Books
from tests.e2e.steps import CHAT, body, card, eventually
from tests.process import TOKEN, InferdProcess, serving
from tests.servers import PostgresServer, ValkeyServer

DOLLAR = 10**9
CENT = 10**7
"""What each request costs."""
CLIENTS = 6
NOBODY = "nobody"
"""Stands for tokens that do not exist."""


class Outage:
    """A server on a database of its own, under load from three kinds of callers."""

    def __init__(self, server: InferdProcess, books: Books, database: PostgresServer) -> None:
        self.server = server
        self.books = books
        self.database = database
        self.statuses: dict[str, Counter[int]] = {}
        """Caller → status → times."""
        self.complete: set[str] = set()
        """Requests whose whole answer was seen."""
        self._budget = ""
        self._stop = asyncio.Event()

    async def begin(self) -> None:
        """Make the token with a dollar, and let every gateway know it."""
        async with self.server.client() as client:
            made = await client.post("/v1/api-tokens", json={"name": "b", "monthly_limit": 1})
            self._budget = made.json()["token"]
        await asyncio.gather(*(self._ask(self._budget, once=True) for _ in range(4)))

    @asynccontextmanager
    async def load(self) -> AsyncGenerator[None]:
        """Ask all the time, with a token that has no limit, one that has a dollar, and none."""
        callers = [TOKEN] * CLIENTS + [self._budget] * 2 + [NOBODY]
        tasks = [asyncio.ensure_future(self._ask(caller)) for caller in callers]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)
            self._stop.clear()

    def known(self, of: str = TOKEN) -> Counter[int]:
        """What a caller was answered since the last `forget`."""
        return self.statuses.get(of, Counter())

    @property
    def budgeted(self) -> Counter[int]:
        """What the caller with a dollar was answered."""
        return self.known(self._budget)

    @property
    def unknown(self) -> Counter[int]:
        """What a token was answered that nobody knows."""
        return self.known(NOBODY)

    def forget(self) -> None:
        """Count anew."""
        self.statuses = {}

    async def answered(self, times: int, caller: str = TOKEN) -> None:
        """Wait until a caller has been answered so often."""
        async with asyncio.timeout(30):
            while sum(self.known(caller).values()) < times:
                await asyncio.sleep(0.01)

    async def _ask(self, caller: str, *, once: bool = False) -> None:
        headers = {"authorization": f"Bearer {caller}"}
        async with httpx.AsyncClient(
            base_url=self.server.url, headers=headers, timeout=30
        ) as client:
            while not self._stop.is_set():
                if caller == NOBODY:
                    # A new one each time, since gateways remember whom they refused.
                    client.headers["authorization"] = f"Bearer {token_hex(20)}"
                answer = await client.post(CHAT, json=body("t/dear", max_tokens=1))
                counted = self.statuses.setdefault(caller, Counter())
                counted[answer.status_code] += 1
                if answer.status_code == 200:
                    self.complete.add(answer.headers["x-request-id"])
                if once:
                    return
                # A caller that is refused comes back soon, and not at once.
                await asyncio.sleep(0.02 if answer.status_code == 200 else 0.1)

    async def check_books(self) -> None:
        """Whatever was answered is billed once, and nobody spent more than he may."""

        async def replayed() -> bool:
            return not list(self.books.directory.rglob("ledger.journal"))

        await eventually(replayed)
        rows = await self.books.rows()
        ids = [row.request_id for row in rows]
        assert len(ids) == len(set(ids))
        assert self.complete <= set(ids)
        assert {row.cost_nanos for row in rows if row.status == "succeeded"} == {CENT}
        spent = await self.books.ask("SELECT spent_nanos FROM purses WHERE key LIKE 'token:%'")
        assert sum(nanos for (nanos,) in spent) == CENT * len(rows)
        limited = "SELECT SUM(cost_nanos) FROM entries JOIN tokens ON tokens.id = token_id"
        ((total,),) = await self.books.ask(f"{limited} WHERE tokens.name = 'b'")
        assert total <= DOLLAR
        assert not list(self.books.directory.rglob("ledger.refused"))
        async with self.server.client() as client:
            found = (await client.post("/v1/usage/verify")).json()
        assert found["differences"] == []


@asynccontextmanager
async def outage(
    folder: Path, valkey: ValkeyServer, *, workers: int, drive: Callable[[], PostgresServer]
) -> AsyncGenerator[Outage]:
    """A server, ready to lose its database."""
    database = drive()
    try:
        database.start()
        url = await database.migrated()
        price = CardPrice(input="0", cached="0", output="10000")
        dear = card("t/dear", slots=32, price=price)
        settings = {"database_url": url, "valkey_url": valkey.url, "workers": workers}
        async with serving(folder, dear, **settings) as server:
            made = Outage(server, Books(url, folder, database), database)
            await made.begin()
            yield made
    finally:
        database.close()
