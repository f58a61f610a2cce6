"""Budgets of accounts and tokens, and credit, over the wire."""

from __future__ import annotations

import pytest

from inferd.access import audit
from inferd.access.caller import ACCOUNT_ADMIN, INFERENCE_RUN
from inferd.storage import accounts
from tests.api.test_payment import BODY, CHAT, fails, gate, member, other_account, token
from tests.gateway import Gateway
from tests.ledger import entries

__all__ = ["gate"]


class TestBudgets:
    async def test_monthly_limits_of_the_account_and_of_a_token(self, gate: Gateway) -> None:
        assert (await gate.client.get("/payment/config")).json() == {
            "limit": -1,
            "admin_limit": -1,
            "effective_limit": -1,
            "effective_limit_set_by": None,
        }
        mine, plain = await token(gate, gate.account_id, "plain")
        await plain.post(CHAT, BODY)
        told = await gate.client.post("/payment/key-limits", {"token_id": mine, "limit": 0})
        (one,) = [key for key in told.json() if key["token_id"] == mine]
        assert one["limit"] == 0
        assert one["spend"] == pytest.approx((await entries(gate))[0].cost_nanos / 1e9)
        assert (await plain.post(CHAT, BODY)).status == 402
        await gate.client.post("/payment/key-limits", {"token_id": mine, "limit": None})
        assert (await plain.post(CHAT, BODY)).status == 200
        told = await gate.client.post("/payment/config", {"limit": 0})
        assert (told.json()["limit"], told.json()["effective_limit_set_by"]) == (0, "account")
        assert (await plain.post(CHAT, BODY)).status == 402
        for given, kept in ((None, 0), (-5, -1)):
            told = await gate.client.post("/payment/config", {"limit": given})
            assert told.json()["limit"] == kept
        assert (await plain.post(CHAT, BODY)).status == 200
        assert (await plain.post("/payment/config", {"limit": 9})).status == 403
        assert [key["token_id"] for key in (await plain.get("/payment/key-limits")).json()] == [
            mine
        ]

    async def test_a_token_does_not_lift_its_own_limit(self, gate: Gateway) -> None:
        other = await other_account(gate)
        own_id, manager = await token(gate, other, "manager", ACCOUNT_ADMIN, INFERENCE_RUN)
        its_id, _ = await token(gate, other, "plain")
        for limit in (None, 5.0):
            wish = {"token_id": own_id, "limit": limit}
            assert (await manager.post("/payment/key-limits", wish)).status == 403
            wish = {"token_id": its_id, "limit": limit}
            assert (await manager.post("/payment/key-limits", wish)).status == 200

    async def test_an_account_cannot_lift_the_limit_that_an_admin_sets(self, gate: Gateway) -> None:
        other = await other_account(gate)
        _, manager = await token(gate, other, "manager", ACCOUNT_ADMIN, INFERENCE_RUN)
        path = f"/payment/config?account={other}"
        assert (await gate.client.post(path, {"limit": 0})).json()["admin_limit"] == 0
        refused = await manager.post(CHAT, BODY)
        assert refused.status == 402
        assert b"account's monthly limit of $0" in refused.body
        for mine, by in ((100, "admin"), (-1, "admin"), (0, "account")):
            told = (await manager.post("/payment/config", {"limit": mine})).json()
            assert told == {
                "limit": mine,
                "admin_limit": 0,
                "effective_limit": 0,
                "effective_limit_set_by": by,
            }
            assert (await manager.post(CHAT, BODY)).status == 402
        await manager.post("/payment/config", {"limit": 50})
        told = (await gate.client.post(path, {"limit": 70})).json()
        assert (told["limit"], told["admin_limit"], told["effective_limit"]) == (50, 70, 50)
        assert (await manager.post(CHAT, BODY)).status == 200
        assert (await gate.client.get("/payment/config")).json()["effective_limit"] == -1
        assert (
            '"account.admin_monthly_limit"'
            in (await gate.client.get("/v1/admin/audit")).body.decode()
        )

    async def test_another_accounts_limit_is_for_the_admin(self, gate: Gateway) -> None:
        other = await other_account(gate)
        _, manager = await token(gate, gate.account_id, "manager", ACCOUNT_ADMIN)
        path = f"/payment/config?account={other}"
        assert (await manager.get(path)).status == 403
        assert (await manager.post(path, {"limit": 1})).status == 403
        for unknown in ("nobody", "all"):
            nowhere = f"/payment/config?account={unknown}"
            assert (await gate.client.get(nowhere)).status == 404
            assert (await gate.client.post(nowhere, {"limit": 1})).status == 404

    async def test_a_member_is_told_no_limit_anywhere(self, gate: Gateway) -> None:
        await gate.client.post("/payment/config", {"limit": 9})
        ann = await member(gate, "ann", "ann's")
        assert (await ann.get("/payment/checklist")).json()["limit"] is None
        assert (await ann.get("/payment/config")).status == 403

    async def test_a_limit_whose_audit_row_cannot_be_written_is_not_set(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = await other_account(gate)
        mine, _ = await token(gate, gate.account_id, "plain")
        before = (await gate.client.get("/payment/config")).json()
        with monkeypatch.context() as patched:
            patched.setattr(audit, "write", fails)
            for path, body in (
                ("/payment/config", {"limit": 0}),
                (f"/payment/config?account={other}", {"limit": 0}),
                ("/payment/key-limits", {"token_id": mine, "limit": 0}),
            ):
                assert (await gate.client.post(path, body)).status == 503
        assert (await gate.client.get("/payment/config")).json() == before
        assert (await gate.client.get(f"/payment/config?account={other}")).json() == before
        keys = (await gate.client.get("/payment/key-limits")).json()
        assert {key["limit"] for key in keys} == {-1}

    async def test_credit_is_granted_once_for_each_id(self, gate: Gateway) -> None:
        await gate.client.post(CHAT, BODY)
        path = f"/v1/admin/accounts/{gate.account_id}/credit"
        for _ in range(2):
            told = await gate.client.post(path, {"usd": "12.5", "note": "welcome", "id": "po-1"})
            assert told.json()["balance_usd"] == "12.5"
        assert (await gate.client.post(path, {"usd": "1", "id": "po-1"})).status == 409
        await gate.client.post(CHAT, BODY)
        spent = (await entries(gate))[-1].cost_nanos
        assert (await gate.client.get(path)).json()["balance_nanos"] == 12_500_000_000 - spent
        told = await gate.client.post(path, {"usd": "-12.5"})
        assert told.json()["balance_nanos"] == -spent
        assert (await gate.client.post(CHAT, BODY)).status == 402
        found = (await gate.client.get("/payment/checklist")).json()
        assert (found["suspended"], found["suspend_reason"]) == (True, "balance")
        assert found["billing_type"] == "prepaid"
        assert '"account.credit"' in (await gate.client.get("/v1/admin/audit")).body.decode()

    async def test_a_first_grant_that_fails_cuts_nobody_off(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = await other_account(gate)
        await gate.client.post(CHAT, BODY)
        await gate.client.post(f"/v1/admin/accounts/{other}/credit", {"usd": "1", "id": "po-1"})
        path = f"/v1/admin/accounts/{gate.account_id}/credit"
        assert (await gate.client.post(path, {"usd": "5", "id": "po-1"})).status == 409
        with monkeypatch.context() as patched:
            patched.setattr(audit, "write", fails)
            assert (await gate.client.post(path, {"usd": "5"})).status == 503
        told = (await gate.client.get(path)).json()
        assert (told["credit_usd"], told["grants"]) == (None, [])
        assert (await gate.client.post(CHAT, BODY)).status == 200

    async def test_an_account_that_was_deleted_is_granted_nothing(self, gate: Gateway) -> None:
        other = await other_account(gate)
        async with gate.services.database.writing() as connection:
            await accounts.delete(connection, other, 5)
        told = await gate.client.post(f"/v1/admin/accounts/{other}/credit", {"usd": "5"})
        assert told.status == 404

    @pytest.mark.parametrize("usd", ["0", "NaN", "1e400", "0.0000000001", "", "ten"])
    async def test_a_wrong_amount_grants_nothing(self, gate: Gateway, usd: str) -> None:
        path = f"/v1/admin/accounts/{gate.account_id}/credit"
        assert (await gate.client.post(path, {"usd": usd})).status == 400
        assert (await gate.client.get(path)).json()["grants"] == []

    async def test_nobody_else_grants(self, gate: Gateway) -> None:
        _, manager = await token(gate, gate.account_id, "manager", ACCOUNT_ADMIN)
        path = f"/v1/admin/accounts/{gate.account_id}/credit"
        assert (await manager.post(path, {"usd": "5"})).status == 403
        nowhere = "/v1/admin/accounts/nobody/credit"
        assert (await gate.client.post(nowhere, {"usd": "5"})).status == 404
        assert (await gate.client.get(nowhere)).status == 404

    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "funds"), ("POST", "topup"), ("GET", "billing-portal"),
         ("POST", "payment-methods/setup"), ("POST", "deepstart/application")],
    )  # fmt: skip
    async def test_what_leads_to_a_card_says_who_grants_credit(
        self, gate: Gateway, method: str, path: str
    ) -> None:
        told = await gate.client.call(method, f"/payment/{path}", b"{}")
        assert (told.status, b"granted by an admin" in told.body) == (404, True)
