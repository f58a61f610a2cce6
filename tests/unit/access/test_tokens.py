"""Tokens and their JWTs over time, over a change of the key, and over two gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferd.access.caller import INFERENCE_RUN, Caller
from inferd.access.changes import Changes
from inferd.access.known_callers import KnownCallers
from inferd.access.tokens import Tokens, TokenWish
from inferd.clock import ManualClock
from inferd.errors import BadRequest, NotFound, Unauthorized
from inferd.storage.database import Database, migrate
from tests.jwts import offline_jwt

OLD, NEW = b"o" * 32, b"n" * 32
NS = 1_000_000_000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    migrate(tmp_path / "inferd.db")
    opened = Database(tmp_path / "inferd.db")
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(database: Database, clock: ManualClock) -> Tokens:
    return Tokens(database, OLD, clock)


async def account_of(tokens: Tokens) -> str:
    return (await tokens.authenticate(await tokens.local_admin())).account_id


async def made(tokens: Tokens, clock: ManualClock, database: Database, seconds: int) -> str:
    """The secret of a token that lives so long."""
    wish = TokenWish("t", expires_unix_ns=clock.unix_ns() + seconds * NS)
    async with Changes(database, clock).writing() as change:
        _, secret = await tokens.create_in(change, await account_of(tokens), wish)
    return secret


class TestExpiry:
    async def test_a_token_ends_to_the_nanosecond_warm_or_cold(
        self, tokens: Tokens, clock: ManualClock, database: Database
    ) -> None:
        secret = await made(tokens, clock, database, 60)
        caller = await tokens.authenticate(secret)
        clock.advance(60 - 1e-6)
        assert tokens.known(secret) == caller
        clock.advance(1e-6)
        assert tokens.known(secret) is None
        with pytest.raises(Unauthorized, match="expired"):
            await tokens.authenticate(secret)

    async def test_a_jwt_ends_with_itself_or_with_its_token(
        self, tokens: Tokens, clock: ManualClock, database: Database
    ) -> None:
        secret = await made(tokens, clock, database, 60)
        uid, now = await account_of(tokens), clock.unix_ns() // NS
        short = offline_jwt(uid, "t", secret, {"exp": now + 30})
        long = offline_jwt(uid, "t", secret, {"exp": now + 90})
        for jwt in (short, long):
            await tokens.authenticate(jwt)
        clock.advance(30)
        assert tokens.known(short) is None
        assert tokens.known(long) is not None
        clock.advance(30)
        assert tokens.known(long) is None
        for jwt in (short, long):
            with pytest.raises(Unauthorized):
                await tokens.authenticate(jwt)

    async def test_a_jwt_that_was_shown_too_early_works_in_its_time(
        self, tokens: Tokens, clock: ManualClock, database: Database
    ) -> None:
        secret = await made(tokens, clock, database, 10**9)
        uid, now = await account_of(tokens), clock.unix_ns() // NS
        later = offline_jwt(uid, "t", secret, {"exp": now + 90, "nbf": now + 30})
        far = offline_jwt(uid, "t", secret, {"exp": now + 366 * 86_400 + 30})
        for jwt in (later, far):
            with pytest.raises(Unauthorized):
                await tokens.authenticate(jwt)
        clock.advance(30)
        for jwt in (later, far):
            await tokens.authenticate(jwt)


class TestKeys:
    async def test_after_a_change_of_the_key_tokens_and_jwts_work_and_move(
        self, tokens: Tokens, clock: ManualClock, database: Database
    ) -> None:
        uid = await account_of(tokens)
        _, secret = await tokens.create(uid, "t", (INFERENCE_RUN,))
        jwt = offline_jwt(uid, "t", secret, {"exp": clock.unix_ns() // NS + 60})
        await tokens.authenticate(jwt)
        both = Tokens(database, NEW, clock, retired_keys=(OLD,))
        await both.authenticate(jwt)
        assert (await both.authenticate(secret)).account_id == uid
        # It was used, so it lies under the new key alone now.
        after = Tokens(database, NEW, clock)
        await after.authenticate(secret)
        await after.authenticate(jwt)
        before = Tokens(database, OLD, clock)
        for credential in (secret, jwt):
            with pytest.raises(Unauthorized):
                await before.authenticate(credential)

    async def test_without_the_old_key_nothing_of_it_opens(
        self, tokens: Tokens, clock: ManualClock, database: Database
    ) -> None:
        uid = await account_of(tokens)
        row, secret = await tokens.create(uid, "t", (INFERENCE_RUN,))
        other = Tokens(database, NEW, clock)
        assert other.signing_secret(row) is None
        with pytest.raises(Unauthorized):
            await other.authenticate(secret)
        for key in (b"no secret", b"", b"None"):
            jwt = offline_jwt(uid, "t", key.decode(), {"exp": clock.unix_ns() // NS + 60})
            with pytest.raises(Unauthorized):
                await other.authenticate(jwt)

    async def test_neither_the_secret_nor_anything_to_check_guesses_lies_in_the_database(
        self, tokens: Tokens, tmp_path: Path
    ) -> None:
        _, secret = await tokens.create(await account_of(tokens), "t", (INFERENCE_RUN,))
        for file in tmp_path.glob("inferd.db*"):
            assert secret.encode() not in file.read_bytes()
            assert secret.partition("_")[2].encode() not in file.read_bytes()


class TestTwoGateways:
    async def test_what_one_revokes_the_other_forgets_with_the_news(
        self, tokens: Tokens, clock: ManualClock, database: Database
    ) -> None:
        """The news itself, and how fast it comes, is tested with the feed that carries it."""
        news = Changes(database, clock)
        other = Tokens(database, OLD, clock, changes=news)
        uid = await account_of(tokens)
        row, secret = await tokens.create(uid, "t", (INFERENCE_RUN,))
        jwt = offline_jwt(uid, "t", secret, {"exp": clock.unix_ns() // NS + 60})
        for credential in (secret, jwt):
            await other.authenticate(credential)
        await tokens.revoke(uid, row.id)
        await news.tell("token", row.id)
        for credential in (secret, jwt):
            assert other.known(credential) is None
            with pytest.raises(Unauthorized):
                await other.authenticate(credential)

    @pytest.mark.parametrize("kind", ["token", "account"])
    async def test_when_it_is_not_known_what_changed_all_is_read_again(
        self, tokens: Tokens, database: Database, clock: ManualClock, kind: str
    ) -> None:
        news = Changes(database, clock)
        other = Tokens(database, OLD, clock, changes=news)
        _, secret = await tokens.create(await account_of(tokens), "t", (INFERENCE_RUN,))
        await other.authenticate(secret)
        await news.tell(kind, None)
        assert other.known(secret) is None
        await other.authenticate(secret)

    async def test_a_token_that_was_refused_before_it_was_made_works_after_it(
        self, tokens: Tokens, database: Database, clock: ManualClock
    ) -> None:
        news = Changes(database, clock)
        other = Tokens(database, OLD, clock, changes=news)
        bootstrap = "bootstrap token of thirty-two characters"
        with pytest.raises(Unauthorized):
            await other.authenticate(bootstrap)
        await tokens.ensure_admin(bootstrap)
        await news.tell("token", "tok_new")
        await other.authenticate(bootstrap)

    async def test_both_may_start_with_the_same_bootstrap_token(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = Tokens(database, OLD, clock), Tokens(database, OLD, clock)
        bootstrap = "bootstrap token of thirty-two characters"
        listed = second.list

        async def late(account_id: str, person_id: str | None = None) -> object:
            """The other one comes between the look and the making."""
            found = await listed(account_id, person_id)
            monkeypatch.undo()
            await first.ensure_admin(bootstrap)
            return found

        monkeypatch.setattr(second, "list", late)
        await second.ensure_admin(bootstrap)
        assert len(await first.list(await account_of(first))) == 1
        await second.authenticate(bootstrap)


@pytest.mark.parametrize("character", ["\0", "\n", "\x7f", "\ufffd", "\U0001f600"])
async def test_no_character_of_an_id_breaks_a_database(
    database_url: str, tmp_path: Path, clock: ManualClock, character: str
) -> None:
    opened = Database(database_url, directory=tmp_path)
    tokens = Tokens(opened, OLD, clock)
    uid, claims = await account_of(tokens), {"exp": clock.unix_ns() // NS + 60}
    for account_id, name in ((uid + character, "t"), (uid, character), (character, character)):
        with pytest.raises(Unauthorized):
            await tokens.authenticate(offline_jwt(account_id, name, "wrong", claims))
        with pytest.raises((NotFound, BadRequest)):
            await tokens.get(account_id, name)
    await opened.close()


def test_the_longest_unused_caller_is_forgotten_first(clock: ManualClock) -> None:
    known = KnownCallers(clock, 2)
    for name in ("a", "b"):
        known.remember(name.encode(), Caller(name, name, name, frozenset()), known.epoch)
    assert known.get(b"a") is not None
    known.remember(b"c", Caller("c", "c", "c", frozenset()), known.epoch)
    assert [known.get(one) is not None for one in (b"a", b"b", b"c")] == [True, False, True]
