"""Payment routes, usage as CSV, invoices: exact sums, and each sees what is his."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.access.caller import ACCOUNT_ADMIN, INFERENCE_RUN, MEMBER
from inferd.access.tokens import TokenWish
from inferd.catalog.card_price import CardPrice
from inferd.errors import Unavailable
from inferd.metering.periods import Month, month_at
from inferd.storage import accounts, people
from inferd.storage.rows import AccountRow, MemberRow, PersonRow
from tests.gateway import Client, Gateway, echo_card, gateway
from tests.ledger import entries
from tests.unit.storage.test_ledger_writer import entry

CHAT = "/v1/chat/completions"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "a b c"}]}
CARDS = (
    echo_card(price=CardPrice(input="1", cached="0.5", output="2", flex="0.8")),
    echo_card("test/other", price=CardPrice(input="0.0123", output="3.3")),
)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, *CARDS) as running:
        yield running


async def token(gate: Gateway, account_id: str, name: str, *scopes: str) -> tuple[str, Client]:
    row, secret = await gate.services.tokens.create(account_id, name, scopes or (INFERENCE_RUN,))
    return row.id, Client(gate.client.app, token=secret)


async def other_account(gate: Gateway) -> str:
    async with gate.services.database.writing() as connection:
        await accounts.add(connection, AccountRow("acc_other", "other", 1, None))
    return "acc_other"


async def member(gate: Gateway, person: str, name: str) -> Client:
    """A client through a token of a person who is a member of the account."""
    async with gate.services.changes.writing() as change:
        row = PersonRow(
            id=f"per_{person}",
            email=None,
            email_verified=False,
            name=person,
            picture=None,
            created_unix_ns=1,
        )
        if await people.by_id(change.connection, row.id) is None:
            await people.add(change.connection, row)
            joined = MemberRow(gate.account_id, row.id, "member", 1)
            await people.join(change.connection, joined)
        wish = TokenWish(name, (INFERENCE_RUN, MEMBER), person_id=row.id)
        _, secret = await gate.services.tokens.create_in(change, gate.account_id, wish)
    return Client(gate.client.app, token=secret)


async def book(gate: Gateway, number: int, **changes: Any) -> None:
    """Book an entry as the ledger's writer does, at the price that applies."""
    price = gate.services.prices.current("test/echo")
    row = entry(number, account_id=gate.account_id, model="test/echo", price_id=price.id)
    await gate.services.ledger.settle(msgspec.structs.replace(row, **changes))


async def fails(*_: object) -> None:
    """What stands for a database that goes away."""
    raise Unavailable("It is away.")


def at(year: int, month: int, day: int) -> int:
    return round(datetime(year, month, day, 12, tzinfo=UTC).timestamp()) * 10**9


class TestTags:
    async def test_header_and_metadata_are_summed_and_the_body_wins(self, gate: Gateway) -> None:
        await gate.client.post(CHAT, BODY, headers={"x-inferd-tag": "shop"})
        body = {**BODY, "metadata": {"tag": "search", "other": "x"}}
        await gate.client.post(CHAT, body, headers={"x-inferd-tag": "shop"})
        await gate.client.post(CHAT, BODY)
        native = {"input": "a b"}
        headers = {"x-inferd-tag": "shop"}
        await gate.client.post("/v1/inference/test/echo", native, headers=headers)
        assert [row.tag for row in await entries(gate)] == ["shop", "search", None, "shop"]
        report = (await gate.client.get("/v1/usage?by=tag")).json()
        assert {row["key"]: row["requests"] for row in report["rows"]} == {
            "": 1,
            "search": 1,
            "shop": 2,
        }

    @pytest.mark.parametrize("tag", ["a" * 65, "=cmd()", "é", "a\tb", " a", "a,b"])
    async def test_a_wrong_tag_is_refused_before_anything_is_done(
        self, gate: Gateway, tag: str
    ) -> None:
        told = await gate.client.post(CHAT, BODY, headers={"x-inferd-tag": tag})
        assert (told.status, told.json()["error"]["param"]) == (400, "x-inferd-tag")
        told = await gate.client.post(CHAT, {**BODY, "metadata": {"tag": tag}})
        assert (told.status, told.json()["error"]["param"]) == (400, "metadata.tag")
        assert await entries(gate) == []


class TestUsage:
    async def test_csv_has_the_same_rows_and_exact_money(self, gate: Gateway) -> None:
        await gate.client.post(CHAT, {**BODY, "user": "=HYPERLINK(1)"})
        told = await gate.client.get("/v1/usage?by=end_user", headers={"accept": "text/csv"})
        assert told.headers["content-type"].startswith("text/csv")
        (row,) = list(csv.DictReader(io.StringIO(told.body.decode())))
        (booked,) = await entries(gate)
        assert row["end_user"] == "'=HYPERLINK(1)"
        assert int(row["cost_nanos"]) == booked.cost_nanos
        assert row["cost_usd"] == f"{booked.cost_nanos / 1e9:.9f}".rstrip("0")
        again = await gate.client.get("/v1/usage?by=end_user&format=csv")
        assert again.body == told.body

    async def test_each_sees_what_is_his(self, gate: Gateway) -> None:
        strange = await other_account(gate)
        mine, plain = await token(gate, gate.account_id, "plain")
        _, manager = await token(gate, gate.account_id, "manager", ACCOUNT_ADMIN, INFERENCE_RUN)
        theirs, stranger = await token(gate, strange, "theirs")
        for client in (plain, manager, stranger, gate.client):
            assert (await client.post(CHAT, BODY)).status == 200

        async def seen(client: Client, query: str = "") -> set[str]:
            told = await client.get(f"/v1/usage?by=token{query}")
            assert told.status == 200, told.body
            return {row["name"] for row in told.json()["rows"]}

        assert await seen(plain) == {"plain"}
        assert await seen(plain, f"&token={theirs}") == set()
        assert len(await seen(manager)) == 3
        assert "theirs" not in await seen(manager)
        assert await seen(stranger) == {"theirs"}
        assert len(await seen(gate.client, "&account=all")) == 4
        assert await seen(gate.client, f"&account={strange}") == {"theirs"}
        for client in (plain, manager, stranger):
            for query in ("account=all", f"account={strange if client is plain else 'x'}"):
                assert (await client.get(f"/v1/usage?{query}")).status == 403
        assert (await stranger.get(f"/payment/usage/id/{mine}")).status == 404
        assert (await plain.get(f"/payment/usage/id/{theirs}")).status == 404

    async def test_a_member_sees_what_his_tokens_used_and_no_more(self, gate: Gateway) -> None:
        ann = await member(gate, "ann", "ann's first")
        bob = await member(gate, "bob", "bob's")
        second = await member(gate, "ann", "ann's second")
        for client in (ann, bob, second, gate.client):
            assert (await client.post(CHAT, BODY)).status == 200
        rows = (await ann.get("/v1/usage?by=token")).json()["rows"]
        assert {row["name"] for row in rows} == {"ann's first", "ann's second"}
        (month,) = (await second.get("/payment/usage")).json()["months"]
        assert month["total_cost_nanos"] == sum(row["cost_nanos"] for row in rows)
        keys = (await ann.get("/payment/key-limits")).json()
        assert {key["name"] for key in keys} == {"ann's first", "ann's second"}
        for path in ("/payment/invoices", "/v1/usage?account=all"):
            assert (await ann.get(path)).status == 403

    @pytest.mark.parametrize(
        "query",
        ["month=2026-13", "month=11", "limit=0", "format=xml", "from=-1", "by=end_user&tag=x"],
    )
    async def test_a_wrong_query_is_refused(self, gate: Gateway, query: str) -> None:
        assert (await gate.client.get(f"/v1/usage?{query}")).status == 400


class TestMonths:
    async def test_months_items_and_totals(self, gate: Gateway) -> None:
        # 4 fresh, 1 cached, 2 out at $1, $0.50, $2 per million.
        paid = {"input_tokens": 5, "cached_tokens": 1, "output_tokens": 2, "cost_nanos": 8_500}
        await book(gate, 1, settled_unix_ns=at(2026, 1, 31), **paid)
        await book(gate, 2, settled_unix_ns=at(2026, 2, 1), **paid)
        await book(gate, 3, settled_unix_ns=at(2026, 2, 28), **paid)
        told = (await gate.client.get("/payment/usage?from=2026.01&to=2026.02")).json()
        assert told["initial_month"] == "2026.01"
        assert [month["period"] for month in told["months"]] == ["2026.01", "2026.02"]
        february = told["months"][1]
        assert february["invoice_id"] == "2026-02"
        assert february["total_cost_nanos"] == 17_000
        assert sum(item["cost_nanos"] for item in february["items"]) == 17_000
        assert {item["unit"]: item["units"] for item in february["items"]} == {
            "input_tokens": 8,
            "cached_tokens": 2,
            "output_tokens": 4,
        }
        assert {item["pricing_type"] for item in february["items"]} == {"tokens"}
        first = february["items"][0]
        assert first["model"]["provider"] == "test"
        assert first["rate"] == pytest.approx(1e-4)
        assert february["interval"] == {"fr": 1_769_904_000_000, "to": 1_772_323_199_999}

    async def test_the_running_month_is_not_final(self, gate: Gateway) -> None:
        await gate.client.post(CHAT, BODY)
        for query in ("", "?from=current", "?from=current-1&to=current", "?from=1700000000"):
            told = (await gate.client.get(f"/payment/usage{query}")).json()
            assert [month["invoice_id"] for month in told["months"]] == ["NOT_FINAL"]

    @pytest.mark.parametrize(
        "query", ["from=2026.13", "from=current-x", "from=current&to=current-1", "from=1.5",
                  "from=9999999999999999", "from=0"]
    )  # fmt: skip
    async def test_a_wrong_month_is_refused(self, gate: Gateway, query: str) -> None:
        assert (await gate.client.get(f"/payment/usage?{query}")).status == 400

    async def test_tokens_apart_and_alone(self, gate: Gateway) -> None:
        mine, plain = await token(gate, gate.account_id, "plain")
        await plain.post(CHAT, BODY)
        await gate.client.post(CHAT, BODY)
        (month,) = (await gate.client.get("/payment/usage/tokens")).json()["months"]
        assert len({item["token_id"] for item in month["items"]}) == 2
        (alone,) = (await gate.client.get(f"/payment/usage/id/{mine}")).json()["months"]
        assert alone["total_cost_nanos"] * 2 == month["total_cost_nanos"]
        assert (await gate.client.get("/payment/usage/secret-of-somebody")).status == 410
        assert (await gate.client.get("/payment/usage/rent")).json() == {"id_to_duration": {}}


class TestInvoices:
    async def fill(self, gate: Gateway) -> None:
        for number, (month, day) in enumerate([(1, 3), (1, 9), (2, 1), (3, 31)]):
            usage = {"input_tokens": 3, "cached_tokens": 0, "output_tokens": 1}
            await book(gate, number, settled_unix_ns=at(2026, month, day), cost_nanos=5_000,
                       **usage)  # fmt: skip

    async def test_the_list_pages_from_the_newest(self, gate: Gateway) -> None:
        await self.fill(gate)
        seen: list[str] = []
        query = "limit=3"
        while True:
            page = (await gate.client.get(f"/payment/invoices?{query}")).json()
            seen += [one["period"] for one in page["invoices"]]
            if not page["has_more"]:
                break
            query = f"limit=3&starting_after={page['next_cursor']}"
        assert seen[-3:] == ["2026.03", "2026.02", "2026.01"]
        assert seen == sorted(set(seen), reverse=True)
        assert page["invoices"][-1]["total_nanos"] == 10_000
        assert page["invoices"][-1]["status"] == "open"
        none = (await gate.client.get("/payment/invoices?invoice_type=topup")).json()
        assert none == {"invoices": [], "has_more": False, "next_cursor": None}

    async def test_lines_and_rounding_are_the_total_to_the_nano_dollar(self, gate: Gateway) -> None:
        for number in range(7):
            body = {**BODY, "model": "test/other", "user": str(number)}
            assert (await gate.client.post(CHAT, body)).status == 200
        await gate.client.post(CHAT, {**BODY, "service_tier": "flex"})
        month = datetime.now(UTC).strftime("%Y-%m")
        found = (await gate.client.get(f"/payment/invoices/{month}?format=json")).json()
        booked = sum(row.cost_nanos for row in await entries(gate))
        assert found["total_nanos"] == booked
        lines = sum(line["cost_nanos"] for line in found["lines"])
        assert lines + found["rounding_nanos"] == booked
        assert (found["id"], found["final"], found["requests"]) == ("NOT_FINAL", False, 8)
        assert {line["multiplier"] for line in found["lines"] if line["tier"] == "flex"} == {"0.8"}

    async def test_the_page_shows_it_without_scripts(self, gate: Gateway) -> None:
        await self.fill(gate)
        told = await gate.client.get("/payment/invoices/2026-01")
        page = told.body.decode()
        policy = told.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "<script" not in page
        assert "test/echo" in page
        assert "January 2026" in page
        assert "$0.00001" in page
        assert "NOT FINAL" not in page
        running = await gate.client.get(f"/payment/invoices/{datetime.now(UTC):%Y-%m}")
        assert b"NOT FINAL" in running.body

    async def test_names_are_text_not_markup(self, gate: Gateway) -> None:
        async with gate.services.database.writing() as connection:
            await accounts.add(connection, AccountRow("acc_x", "<script>x</script>", 1, None))
        told = await gate.client.get("/payment/invoices/2026-01?account=acc_x")
        assert b"<script>" not in told.body
        assert b"&lt;script&gt;" in told.body

    @pytest.mark.parametrize("form", ["html", "json"])
    async def test_what_there_is_no_invoice_of_is_404(self, gate: Gateway, form: str) -> None:
        now = month_at(int(time.time()))
        for month, account, status in (
            (now, "nope", 404),
            (now.plus(1), gate.account_id, 404),
            (now, gate.account_id, 200),
            (now, "all", 200),
            (Month(1999, 1), gate.account_id, 200),
        ):
            path = f"/payment/invoices/{month}?account={account}&format={form}"
            assert (await gate.client.get(path)).status == status, path

    async def test_invoices_are_for_those_who_manage_the_account(self, gate: Gateway) -> None:
        _, plain = await token(gate, gate.account_id, "plain")
        _, manager = await token(gate, gate.account_id, "manager", ACCOUNT_ADMIN)
        await other_account(gate)
        assert (await plain.get("/payment/invoices")).status == 403
        assert (await plain.get("/payment/invoices/2026-01")).status == 403
        assert (await manager.get("/payment/invoices/2026-01")).status == 200
        assert (await manager.get("/payment/invoices/2026-01?account=acc_other")).status == 403
        assert (await gate.client.get("/payment/invoices/2026-1")).status == 404
