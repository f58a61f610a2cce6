"""A24: scoped JWTs that somebody bent. Each is refused, bills nothing, says the same sentence."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferd.access.caller import INFERENCE_RUN
from inferd.errors import Unauthorized
from inferd.storage import accounts
from inferd.storage.rows import AccountRow
from tests.gateway import ADMIN_TOKEN, Client, Gateway, Response, gateway
from tests.jwts import b64, offline_jwt
from tests.ledger import entries

CHAT = "/v1/chat/completions"
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
NAME = "key"
YEAR = 366 * 86_400
ROUNDS = 300
FACTOR_MAX = 2.0
"""Of medians, taken in turns: noise of the machine; a look that was spared would be more."""


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path) as running:
        yield running


@pytest.fixture
async def secret(gate: Gateway) -> str:
    _, made = await gate.services.tokens.create(gate.account_id, NAME, (INFERENCE_RUN,))
    return made


async def ask(gate: Gateway, jwt: str) -> Response:
    return await Client(gate.client.app, token=jwt).post(CHAT, BODY)


def soon() -> int:
    return int(time.time()) + 3600


async def refused(gate: Gateway, *jwts: str) -> set[bytes]:
    """All of them, twice, so that nothing refused is remembered as good; what was said."""
    told: set[bytes] = set()
    for jwt in jwts * 2:
        answer = await ask(gate, jwt)
        assert answer.status == 401, jwt
        told.add(answer.body)
    assert await entries(gate) == []
    return told


class TestAlgorithm:
    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "hs256", "HS512", "RS256"])
    async def test_only_hs256_is_known(self, gate: Gateway, secret: str, alg: str) -> None:
        claims = {"exp": soon()}
        signed = offline_jwt(gate.account_id, NAME, secret, claims, alg=alg)
        unsigned = signed.rpartition(".")[0] + "."
        assert len(await refused(gate, signed, unsigned, unsigned.rstrip("."))) == 1

    @pytest.mark.parametrize("alg", [None, 0, ["HS256"], {"a": "HS256"}, True])
    async def test_an_algorithm_that_is_no_name(
        self, gate: Gateway, secret: str, alg: object
    ) -> None:
        head = {"alg": alg, "kid": _kid(gate.account_id, NAME)}
        await refused(gate, _signed(head, {"exp": soon()}, secret))

    async def test_no_key_of_the_headers_own_is_used(self, gate: Gateway, secret: str) -> None:
        """RS256 and HS256 mixed up, `jwk`, `jku`, `x5c`: there is one key, the token's."""
        public = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJ\n-----END PUBLIC KEY-----\n"
        key = base64.urlsafe_b64encode(public.encode()).decode()
        head = {
            "alg": "HS256",
            "kid": _kid(gate.account_id, NAME),
            "jwk": {"kty": "oct", "k": key},
            "jku": "http://127.0.0.1:1/keys",
            "x5c": [key],
        }
        await refused(gate, _signed(head, {"exp": soon()}, public))
        # The same header with the right signature works: what it names is not even looked at.
        assert (await ask(gate, _signed(head, {"exp": soon()}, secret))).status == 200

    async def test_an_extension_that_must_be_understood_is_not(
        self, gate: Gateway, secret: str
    ) -> None:
        jwt = offline_jwt(gate.account_id, NAME, secret, {"exp": soon()}, crit=["b64"], b64=False)
        await refused(gate, jwt)


class TestSignature:
    async def test_any_other_key_is_wrong(self, gate: Gateway, secret: str) -> None:
        keys = ["", secret[:-1], secret + " ", secret.lower(), "no secret", gate.account_id, NAME]
        row = (await gate.services.tokens.list(gate.account_id))[-1]
        keys += [row.digest.hex(), row.digest.decode("latin-1"), row.id, ADMIN_TOKEN]
        claims = {"exp": soon()}
        jwts = [offline_jwt(gate.account_id, NAME, key, claims) for key in keys]
        assert len(await refused(gate, *jwts)) == 1

    async def test_no_part_may_be_changed_or_left_out(self, gate: Gateway, secret: str) -> None:
        jwt = offline_jwt(gate.account_id, NAME, secret, {"exp": soon(), "spending_limit": 0})
        head, claims, signature = jwt.removeprefix("jwt:").split(".")
        richer = b64(json.dumps({"exp": soon() + 9}).encode())
        bent = [
            f"{head}.{richer}.{signature}",
            f"{head}.{claims}.",
            f"{head}.{claims}",
            f"{head}..{signature}",
            f".{claims}.{signature}",
            f"{head}.{claims}.{signature}.{signature}",
            f"{head}.{claims}.{signature[:-2]}",
            f"{head}.{claims}.{signature}AA",
            f"{head} .{claims}.{signature}",
            "..",
            ".",
            "",
            "é.é.é",
            "a" * 100_000,
            "." * 5_000,
        ]
        await refused(gate, *(f"jwt:{one}" for one in bent))
        assert (await ask(gate, jwt)).status == 402

    async def test_the_prefix_belongs_to_it(self, gate: Gateway, secret: str) -> None:
        jwt = offline_jwt(gate.account_id, NAME, secret, {"exp": soon()})
        await refused(gate, jwt.removeprefix("jwt:"), jwt.replace("jwt:", "JWT:", 1), f"jwt:{jwt}")


class TestKid:
    @pytest.mark.parametrize(
        "kid",
        [
            "",
            ":",
            "::",
            "a",
            "../../../../etc/passwd:a2V5",
            "/dev/null:a2V5",
            "' OR 1=1 --:a2V5",
            "acc' UNION SELECT * FROM tokens --:a2V5",
            "acc\x00:a2V5",
            "acc:a2V5\x00",
            "acc:not base64!",
            "acc:////",
            "acc:_-8=",
            "acc:a2V",
            "acc:" + "A" * 6000,
            "%2e%2e%2f:a2V5",
            "*:*",
            "null:a2V5",
        ],
    )
    async def test_it_is_a_name_and_never_more(self, gate: Gateway, secret: str, kid: str) -> None:
        claims = {"exp": soon()}
        jwts = [
            _signed({"alg": "HS256", "kid": kid}, claims, key) for key in (secret, "", "no secret")
        ]
        told = await refused(gate, *jwts)
        assert len(told) == 1
        assert (await gate.client.get("/v1/me")).status == 200

    async def test_sql_in_the_tokens_name(self, gate: Gateway, secret: str) -> None:
        names = ["key' OR '1'='1", "key'--", "%", "_ey", "key\x00", "KEY", " key", "key "]
        claims = {"exp": soon()}
        await refused(gate, *(offline_jwt(gate.account_id, n, secret, claims) for n in names))

    async def test_a_uid_may_hold_colons(self, gate: Gateway) -> None:
        """It is split from the right: DeepInfra's own look like di:1000000000000."""
        uid = "di:1000000000000"
        async with gate.services.database.writing() as connection:
            await accounts.add(connection, AccountRow(uid, "di", 1, None))
        _, secret = await gate.services.tokens.create(uid, NAME, (INFERENCE_RUN,))
        assert (await ask(gate, offline_jwt(uid, NAME, secret, {"exp": soon()}))).status == 200

    async def test_one_accounts_key_opens_nothing_of_anothers(
        self, gate: Gateway, secret: str
    ) -> None:
        made = await gate.client.post("/v1/admin/accounts", {"display_name": "other"})
        other = made.json()["account"]["uid"]
        await gate.services.tokens.create(other, NAME, (INFERENCE_RUN,))
        claims = {"exp": soon()}
        await refused(gate, offline_jwt(other, NAME, secret, claims))
        await refused(gate, offline_jwt(gate.account_id, NAME, secret, {**claims, "sub": other}))


class TestClaims:
    @pytest.mark.parametrize(
        "claims",
        [
            b'{"exp": 1e309}',
            b'{"exp": -1}',
            b'{"exp": NaN}',
            b'{"exp": Infinity}',
            b'{"exp": null}',
            b'{"exp": "9999999999"}',
            b'{"exp": true}',
            b'{"exp": []}',
            b'{"exp": 99999999999999999999999999999999}',
            b'{"exp": 1e300}',
            b"{}",
            b"[]",
            b"null",
            b"",
            b"\xff",
            b'{"exp": 9999999999',
            b"[" * 100_000,
        ],
    )
    async def test_an_end_that_is_none(self, gate: Gateway, secret: str, claims: bytes) -> None:
        await refused(gate, offline_jwt(gate.account_id, NAME, secret, claims))

    @pytest.mark.parametrize("seconds", [-1, 0, -YEAR, YEAR + 86_400, 10 * YEAR])
    async def test_expired_and_far_future(self, gate: Gateway, secret: str, seconds: int) -> None:
        claims = {"exp": int(time.time()) + seconds}
        await refused(gate, offline_jwt(gate.account_id, NAME, secret, claims))

    @pytest.mark.parametrize(
        "limit",
        [
            "-1",
            "-0.000000001",
            "1e309",
            "1e99999999999",
            "NaN",
            '"NaN"',
            '"sNaN"',
            '"-Infinity"',
            '"inf"',
            "true",
            "[]",
            "{}",
            '""',
            '"1; drop"',
            "1e10",
        ],
    )
    async def test_a_spending_limit_that_is_no_amount(
        self, gate: Gateway, secret: str, limit: str
    ) -> None:
        claims = b'{"exp": %d, "spending_limit": %s}' % (soon(), limit.encode())
        await refused(gate, offline_jwt(gate.account_id, NAME, secret, claims))

    @pytest.mark.parametrize("limit", ["1e-400", "0", "0.0000000001", '"0"'])
    async def test_a_limit_below_a_nano_dollar_is_nothing(
        self, gate: Gateway, secret: str, limit: str
    ) -> None:
        claims = b'{"exp": %d, "spending_limit": %s}' % (soon(), limit.encode())
        answer = await ask(gate, offline_jwt(gate.account_id, NAME, secret, claims))
        assert answer.status == 402

    @pytest.mark.parametrize(
        "models",
        [[], "", "test/ech", ["test/ech*"], "*", ["TEST/ECHO"], ["a/b"], "test/echo\x00"],
    )
    async def test_a_model_outside(self, gate: Gateway, secret: str, models: object) -> None:
        for claim in ("model", "models"):
            claims = {"exp": soon(), claim: models}
            answer = await ask(gate, offline_jwt(gate.account_id, NAME, secret, claims))
            assert answer.status == 403, (claim, models)

    async def test_of_two_claims_what_stands_in_both(self, gate: Gateway, secret: str) -> None:
        claims = {"exp": soon(), "model": "test/echo", "models": ["a/b"]}
        jwt = offline_jwt(gate.account_id, NAME, secret, claims)
        assert (await ask(gate, jwt)).status == 403

    async def test_scopes_cannot_be_claimed(self, gate: Gateway) -> None:
        """Not even by a JWT of an admin's token."""
        uid, bootstrap = gate.account_id, ADMIN_TOKEN
        claims = {"exp": soon(), "scopes": ["admin"], "scope": "admin", "is_admin": True}
        jwt = offline_jwt(uid, "bootstrap", bootstrap, claims)
        assert (await ask(gate, jwt)).status == 200
        for path in ("/v1/me", "/v1/api-tokens", "/metrics", "/v1/admin/accounts"):
            assert (await Client(gate.client.app, token=jwt).get(path)).status == 403

    async def test_not_before(self, gate: Gateway, secret: str) -> None:
        claims = {"exp": soon() + 60, "nbf": soon()}
        await refused(gate, offline_jwt(gate.account_id, NAME, secret, claims))


async def test_how_long_a_refusal_takes_does_not_tell_which_tokens_exist(
    gate: Gateway, secret: str
) -> None:
    """A22: an unknown account, an unknown name and a wrong signature cost the same."""
    tokens = gate.services.tokens

    async def seconds(uid: str, name: str, number: int) -> float:
        jwt = offline_jwt(uid, name, f"wrong {number}", {"exp": soon()})
        began = time.perf_counter()
        with pytest.raises(Unauthorized):
            await tokens.authenticate(jwt)
        return time.perf_counter() - began

    kinds = [
        ("acc_nobody0000000000000000", NAME),
        (gate.account_id, "k_y"),
        (gate.account_id, NAME),
    ]
    times: list[list[float]] = [[], [], []]
    for number in range(ROUNDS):
        for found, (uid, name) in zip(times, kinds, strict=True):
            found.append(await seconds(uid, name, number))
    medians = [statistics.median(found) for found in times]
    assert max(medians) < min(medians) * FACTOR_MAX


async def test_a_refusal_is_the_same_work_whichever_tokens_exist(
    gate: Gateway, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without a clock: looks into the database, and digests."""
    work: list[str] = []
    digest, reading = hmac.digest, gate.services.database.reading

    def counted(key: bytes, content: bytes, name: str) -> bytes:
        work.append(name)
        return digest(key, content, name)

    def looked() -> Any:
        work.append("look")
        return reading()

    monkeypatch.setattr("hmac.digest", counted)
    monkeypatch.setattr(gate.services.database, "reading", looked)
    uid, seen = gate.account_id, list[list[str]]()
    for account_id, name in (("acc_" + "0" * 20, NAME), (uid, "k_y"), (uid, NAME)):
        jwt = offline_jwt(account_id, name, "wrong", {"exp": soon()})
        work.clear()
        with pytest.raises(Unauthorized):
            await gate.services.tokens.authenticate(jwt)
        seen.append(list(work))
    assert {"look", "sha256", "sha512"} <= set(seen[0])
    assert seen[0] == seen[1] == seen[2]


async def test_a_flood_of_jwts_does_not_push_tokens_out_of_memory(
    gate: Gateway, secret: str
) -> None:
    """Each holder of a token may make as many as he likes."""
    tokens = gate.services.tokens
    caller = await tokens.authenticate(secret)
    for number in range(12_000):
        claims = {"exp": soon(), "jti": str(number)}
        jwt = offline_jwt(gate.account_id, NAME, secret, claims)
        if number < 20:
            assert (await tokens.authenticate(jwt)).jwt_id is not None
        else:
            known = tokens._jwts  # pyright: ignore[reportPrivateUsage]
            known.remember(hashlib.sha256(jwt.encode()).digest(), caller, known.epoch)
    assert tokens.known(secret) == caller
    assert len(tokens._jwts) == 10_000  # pyright: ignore[reportPrivateUsage]


def _kid(uid: str, name: str) -> str:
    return f"{uid}:{base64.b64encode(name.encode()).decode()}"


def _signed(head: dict[str, Any], claims: dict[str, Any], key: str) -> str:
    signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    signature = hmac.new(key.encode(), signed.encode(), hashlib.sha256).digest()
    return f"jwt:{signed}.{b64(signature)}"
