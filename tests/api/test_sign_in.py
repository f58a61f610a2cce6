"""People who sign in with a password, and their sessions."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from inferd.access import attempts
from inferd.access.caller import INFERENCE_RUN
from inferd.api.manage.sign_in_pages import local_path
from inferd.api.services import ApiOptions
from inferd.clock import ManualClock
from tests.gateway import Client, Gateway, Response, gateway

OURS = {"host": "inferd.test", "origin": "http://inferd.test"}
HOUR = 3600


@asynccontextmanager
async def house(
    tmp_path: Path, clock: ManualClock | None = None, **options: object
) -> AsyncGenerator[tuple[Gateway, str]]:
    """A gateway and its admin's password."""
    made = ApiOptions(**options)  # type: ignore[arg-type]
    async with gateway(tmp_path, options=made, clock=clock) as gate:
        told = await gate.client.post("/v1/admin/password", {"login": "admin"})
        assert told.status == 200
        yield gate, told.json()["password"]


def stranger(gate: Gateway, **headers: str) -> Client:
    return Client(gate.client.app, token=None, headers={**OURS, **headers})


async def sign_in(gate: Gateway, password: str, login: str = "admin") -> Response:
    return await stranger(gate).post("/v1/sign-in", {"login": login, "password": password})


def cookie_of(answer: Response) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


async def signed_in(gate: Gateway, password: str) -> Client:
    answer = await sign_in(gate, password)
    assert answer.status == 200
    return stranger(gate, cookie=cookie_of(answer))


class TestSigningIn:
    async def test_gives_a_cookie_that_scripts_and_other_sites_cannot_use(
        self, tmp_path: Path
    ) -> None:
        async with house(tmp_path) as (gate, password):
            answer = await sign_in(gate, password)
            assert answer.json()["accounts"][0]["name"] == "admin"
            attributes = answer.headers["set-cookie"].split("; ")[1:]
            assert attributes == ["Path=/", "Max-Age=604800", "HttpOnly", "SameSite=Lax"]

    async def test_marks_the_cookie_secure_where_browsers_come_over_tls(
        self, tmp_path: Path
    ) -> None:
        async with house(tmp_path, public_url="https://inferd.test") as (gate, password):
            client = stranger(gate, origin="https://inferd.test")
            answer = await client.post("/v1/sign-in", {"login": "admin", "password": password})
            assert answer.headers["set-cookie"].endswith("; Secure")

    @pytest.mark.parametrize(
        ("login", "password"),
        [("admin", "wrong"), ("nobody", "wrong"), ("", ""), ("admin", ""), ("admin\x00", "x")],
    )
    async def test_refuses_wrong_ones_in_the_same_words(
        self, tmp_path: Path, login: str, password: str
    ) -> None:
        async with house(tmp_path) as (gate, _):
            answer = await sign_in(gate, password, login)
            assert answer.status == 401
            assert answer.json()["detail"]["error"] == "The name or the password is wrong."
            assert "set-cookie" not in answer.headers

    async def test_ignores_the_case_of_the_name(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            assert (await sign_in(gate, password, " Admin ")).status == 200

    async def test_works_as_hard_for_an_unknown_name(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, _):
            clock = gate.services.clock
            await sign_in(gate, "wrong", "nobody")
            taken: dict[str, list[float]] = {"admin": [], "nobody": []}
            for _round in range(3):
                for login, seconds in taken.items():
                    began = clock.seconds()
                    assert (await sign_in(gate, "wrong", login)).status == 401
                    seconds.append(clock.seconds() - began)
            assert min(taken["nobody"]) > min(taken["admin"]) / 3

    async def test_is_refused_from_another_sites_page(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            theirs = stranger(gate, origin="http://evil.test")
            body = {"login": "admin", "password": password}
            assert (await theirs.post("/v1/sign-in", body)).status == 403
            form = f"login=admin&password={password}".encode()
            assert (await theirs.post("/sign-in", form)).status == 403

    async def test_keeps_no_secret_in_the_database(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            secret = cookie_of(await sign_in(gate, password)).partition("=")[2]
            connection = sqlite3.connect(gate.database_path)
            dump = "\n".join(connection.iterdump())
            connection.close()
            assert password not in dump
            assert secret not in dump
            assert "$argon2id$" in dump


class TestGuessing:
    async def test_is_stopped_for_the_name_and_address(self, tmp_path: Path) -> None:
        async with house(tmp_path, ManualClock()) as (gate, password):
            for _ in range(attempts.PAIR_MAX):
                assert (await sign_in(gate, "wrong")).status == 401
            refused = await sign_in(gate, password)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) == attempts.WINDOW_SECONDS

    async def test_all_at_once_is_stopped_too(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, _):
            tries = (sign_in(gate, f"wrong{n}") for n in range(attempts.PAIR_MAX + 6))
            statuses = [answer.status for answer in await asyncio.gather(*tries)]
            assert sorted(statuses) == [401] * attempts.PAIR_MAX + [429] * 6

    async def test_goes_on_after_the_window(self, tmp_path: Path) -> None:
        clock = ManualClock()
        async with house(tmp_path, clock) as (gate, password):
            for _ in range(attempts.PAIR_MAX + 1):
                await sign_in(gate, "wrong")
            clock.advance(attempts.WINDOW_SECONDS)
            assert (await sign_in(gate, password)).status == 200

    async def test_begins_anew_after_the_right_password(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            for _ in range(2):
                for _attempt in range(attempts.PAIR_MAX - 1):
                    assert (await sign_in(gate, "wrong")).status == 401
                assert (await sign_in(gate, password)).status == 200

    async def test_other_names_from_one_address_is_stopped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attempts, "ADDRESS_MAX", 3)
        async with house(tmp_path) as (gate, password):
            for n in range(3):
                assert (await sign_in(gate, "wrong", f"name{n}")).status == 401
            assert (await sign_in(gate, password)).status == 429


class TestASession:
    async def test_carries_what_its_person_may(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            client = await signed_in(gate, password)
            assert (await client.get("/v1/status")).status == 200
            body = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}]}
            assert (await client.post("/v1/chat/completions", body)).status == 200

    async def test_is_not_taken_from_a_header(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            secret = cookie_of(await sign_in(gate, password)).partition("=")[2]
            for header in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
                assert (await stranger(gate).get("/v1/session", headers=header)).status == 401

    async def test_and_no_token_is_taken_from_the_cookie(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, _):
            cookie = f"session={gate.client.token}"
            assert (await stranger(gate, cookie=cookie).get("/v1/me")).status == 401

    async def test_changes_nothing_without_proof_of_our_own_page(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            cookie = cookie_of(await sign_in(gate, password))
            bare = Client(gate.client.app, token=None, headers={"cookie": cookie, "host": "h"})
            for headers in ({}, {"origin": "http://evil"}, {"sec-fetch-site": "cross-site"}):
                answer = await bare.post("/v1/sign-out", {}, headers=headers)
                assert answer.status == 403, headers
            assert (await bare.get("/v1/session")).status == 200
            proof = {"sec-fetch-site": "same-origin"}
            assert (await bare.post("/v1/sign-out", {}, headers=proof)).status == 200

    async def test_ends_with_sign_out_at_once(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            client = await signed_in(gate, password)
            gone = await client.post("/v1/sign-out", {})
            assert "Max-Age=0" in gone.headers["set-cookie"]
            assert (await client.get("/v1/session")).status == 401

    async def test_ends_when_it_is_not_used(self, tmp_path: Path) -> None:
        clock = ManualClock()
        async with house(tmp_path, clock, session_idle_seconds=2 * HOUR) as (gate, password):
            client = await signed_in(gate, password)
            for _ in range(5):
                clock.advance(1.9 * HOUR)
                assert (await client.get("/v1/session")).status == 200
            clock.advance(2 * HOUR)
            assert (await client.get("/v1/session")).status == 401

    async def test_ends_after_its_longest_time_though_it_is_used(self, tmp_path: Path) -> None:
        clock = ManualClock()
        limits = {"session_idle_seconds": 2.0 * HOUR, "session_seconds_max": 3.0 * HOUR}
        async with house(tmp_path, clock, **limits) as (gate, password):
            client = await signed_in(gate, password)
            for _ in range(2):
                clock.advance(1.4 * HOUR)
                assert (await client.get("/v1/session")).status == 200
            clock.advance(0.3 * HOUR)
            assert (await client.get("/v1/session")).status == 401

    async def test_is_listed_and_ended_from_another_browser(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            here, there = await signed_in(gate, password), await signed_in(gate, password)
            shown = (await here.get("/v1/sessions")).json()["sessions"]
            assert [session["current"] for session in shown].count(True) == 1
            other = next(session for session in shown if not session["current"])
            path = f"/v1/sessions/{other['session_id']}"
            assert (await here.call("DELETE", path, b"")).status == 200
            assert (await here.call("DELETE", path, b"")).status == 404
            assert (await there.get("/v1/session")).status == 401
            assert (await here.get("/v1/session")).status == 200

    async def test_is_for_people_not_for_tokens(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, _):
            assert (await gate.client.get("/v1/session")).status == 403
            assert (await gate.client.get("/v1/sessions")).status == 403

    async def test_replaces_the_one_of_the_same_browser(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            first = await signed_in(gate, password)
            body = {"login": "admin", "password": password}
            second = await first.post("/v1/sign-in", body)
            assert (await first.get("/v1/session")).status == 401
            again = stranger(gate, cookie=cookie_of(second))
            assert (await again.get("/v1/session")).status == 200


class TestAPassword:
    async def test_is_changed_with_the_current_one_and_ends_other_sessions(
        self, tmp_path: Path
    ) -> None:
        async with house(tmp_path) as (gate, old):
            here, there = await signed_in(gate, old), await signed_in(gate, old)
            new = "correct horse battery"
            put = {"current": old, "new": new}
            assert (await here.call("PUT", "/v1/password", encoded(put))).status == 200
            assert (await here.get("/v1/session")).status == 200
            assert (await there.get("/v1/session")).status == 401
            assert (await sign_in(gate, old)).status == 401
            assert (await sign_in(gate, new)).status == 200

    async def test_is_not_changed_without_it(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, old):
            client = await signed_in(gate, old)
            wrong = encoded({"current": "wrong", "new": "correct horse battery"})
            assert (await client.call("PUT", "/v1/password", wrong)).status == 401
            short = encoded({"current": old, "new": "short"})
            assert (await client.call("PUT", "/v1/password", short)).status == 400
            assert (await sign_in(gate, old)).status == 200

    async def test_is_made_anew_by_an_admin_alone(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, old):
            _, secret = await gate.services.tokens.create(
                gate.account_id, "inference", (INFERENCE_RUN,)
            )
            weak = Client(gate.client.app, token=secret)
            assert (await weak.post("/v1/admin/password", {"login": "admin"})).status == 403
            there = await signed_in(gate, old)
            new = (await gate.client.post("/v1/admin/password", {"login": "admin"})).json()
            assert (await there.get("/v1/session")).status == 401
            assert (await sign_in(gate, old)).status == 401
            assert (await sign_in(gate, new["password"])).status == 200
            unknown = await gate.client.post("/v1/admin/password", {"login": "nobody"})
            assert unknown.status == 404


def encoded(body: object) -> bytes:
    return msgspec.json.encode(body)


class TestTheForm:
    async def test_signs_in_and_leads_back(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            page = await stranger(gate).get("/sign-in?return_to=/docs")
            assert page.status == 200
            assert b'value="/docs"' in page.body
            assert "script" not in page.headers["content-security-policy"]
            form = f"login=admin&password={password}&return_to=%2Fdocs".encode()
            answer = await stranger(gate).post("/sign-in", form)
            assert answer.status == 303
            assert answer.headers["location"] == "/docs"
            client = stranger(gate, cookie=cookie_of(answer))
            assert b"You are signed in" in (await client.get("/sign-in")).body
            assert (await client.post("/sign-out", b"")).status == 303
            assert (await client.get("/v1/session")).status == 401

    async def test_says_what_is_wrong(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, _):
            answer = await stranger(gate).post("/sign-in", b"login=admin&password=x")
            assert answer.status == 401
            assert b"The name or the password is wrong." in answer.body

    @pytest.mark.parametrize(
        "target",
        [
            "//evil",
            "https://evil",
            "/\\evil",
            "/a\r\nset-cookie: x=1",
            "evil",
            "/" + "a" * 600,
            "/\tevil",
            "/é",
            "",
            "javascript:alert(1)",
        ],
    )
    def test_leads_nowhere_else(self, target: str) -> None:
        assert local_path(target) == "/sign-in"

    async def test_repeats_no_markup(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, _):
            page = await stranger(gate).get("/sign-in?return_to=/%22%3E%3Cscript%3Ealert(1)")
            assert b"<script" not in page.body


class TestACommandLineTool:
    LOGIN_ID = "0123456789abcdef0123456789abcdef"

    async def test_gets_a_token_once_the_person_says_yes(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            asked = asyncio.ensure_future(
                stranger(gate).get(f"/github/cli/login?login_id={self.LOGIN_ID}")
            )
            page = await stranger(gate).get(f"/github/login?login_id={self.LOGIN_ID}")
            assert page.status == 303
            assert page.headers["location"].startswith("/sign-in?return_to=%2Fgithub%2Flogin")
            client = await signed_in(gate, password)
            page = await client.get(f"/github/login?login_id={self.LOGIN_ID}")
            assert self.LOGIN_ID.encode() in page.body
            form = f"login_id={self.LOGIN_ID}".encode()
            assert (await client.post("/command/sign-in", form)).status == 200
            secret = (await asked).json()["access_token"]
            assert (await Client(gate.client.app, token=secret).get("/v1/me")).status == 200

    async def test_gets_none_by_another_sites_form(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, password):
            client = await signed_in(gate, password)
            form = f"login_id={self.LOGIN_ID}".encode()
            theirs = {"origin": "http://evil.test"}
            answer = await client.post("/command/sign-in", form, headers=theirs)
            assert answer.status == 403

    async def test_needs_an_id_that_cannot_be_guessed(self, tmp_path: Path) -> None:
        async with house(tmp_path) as (gate, _):
            assert (await stranger(gate).get("/github/cli/login?login_id=1")).status == 400


async def test_what_is_done_leaves_audit_rows(tmp_path: Path) -> None:
    async with house(tmp_path) as (gate, password):
        client = await signed_in(gate, password)
        put = encoded({"current": password, "new": "correct horse battery"})
        await client.call("PUT", "/v1/password", put)
        rows = (await gate.client.get("/v1/admin/audit")).json()["rows"]
        actions = [row["action"] for row in rows]
        assert actions[:3] == ["password.change", "session.begin", "password.reset"]
        assert rows[0]["person_id"] == rows[1]["person_id"] is not None
        assert password not in str(rows)
        page = (await gate.client.get("/v1/admin/audit?limit=1")).json()
        assert page["rows"] == rows[:1]
        older = await gate.client.get(f"/v1/admin/audit?limit=1&before={page['next']}")
        assert older.json()["rows"] == rows[1:2]
