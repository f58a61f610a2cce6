"""Sealed secrets open for their key and their owner, and for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.access.sealing import NONCE_BYTES, NotSealed, seal, unseal

KEY = bytes(range(32))


@given(st.binary(max_size=600), st.text(max_size=40))
def test_what_was_sealed_comes_back(secret: bytes, owner: str) -> None:
    assert unseal(KEY, owner, seal(KEY, owner, secret)) == secret


@given(st.binary(min_size=1, max_size=80), st.data())
def test_one_bit_changed_anywhere_opens_nothing(secret: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, "tok", secret))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(NotSealed):
        unseal(KEY, "tok", bytes(sealed))


@given(st.binary(max_size=200))
def test_what_never_was_sealed_opens_nothing(content: bytes) -> None:
    with pytest.raises(NotSealed):
        unseal(KEY, "tok", content)


def test_neither_another_key_nor_another_owner_opens_it() -> None:
    sealed = seal(KEY, "tok_a", b"secret")
    for key, owner in ((bytes(32), "tok_a"), (KEY, "tok_b"), (KEY, ""), (KEY[:-1], "tok_a")):
        with pytest.raises(NotSealed):
            unseal(key, owner, sealed)


def test_the_owner_and_what_follows_cannot_trade_bytes() -> None:
    sealed = seal(KEY, "tok", b"secret")
    with pytest.raises(NotSealed):
        unseal(KEY, "tok\x01", sealed[1:])


def test_the_same_secret_never_looks_the_same() -> None:
    secret = b"x" * 200
    sealed = {seal(KEY, "tok", secret) for _ in range(50)}
    assert len({one[1 : 1 + NONCE_BYTES] for one in sealed}) == 50
    assert len({one[1 + NONCE_BYTES : -32] for one in sealed}) == 50
    assert not [one for one in sealed if b"xxxx" in one]


def test_the_form_is_the_one_that_databases_hold() -> None:
    """A change of the construction needs a new version byte, or every token stops signing."""
    sealed = bytes.fromhex(
        "01000102030405060708090a0b0c0d0e0f5f5eb103d33e8a5bc317aa956d1e72c3f4a6b9748098"
        "8615e5fae605aca050087a1fc17f7be30c5142ef"
    )
    assert unseal(KEY, "tok", sealed) == b"ifd_secret"
