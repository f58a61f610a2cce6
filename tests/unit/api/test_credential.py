"""Every place where a client may put its token."""

from __future__ import annotations

import pytest

from inferd.api.credential import credential, is_from_own_page, own_origin, session_secret


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({b"authorization": b"Bearer abc"}, "abc"),
        ({b"authorization": b"bearer abc"}, "abc"),
        ({b"authorization": b"BEARER  abc "}, "abc"),
        ({b"x-api-key": b"abc"}, "abc"),
        ({b"xi-api-key": b"abc"}, "abc"),
        ({b"authorization": b"Bearer abc", b"x-api-key": b"other"}, "abc"),
        ({b"authorization": b"Basic abc"}, None),
        ({b"authorization": b"Bearer "}, None),
        ({b"authorization": b"Bearer"}, None),
        ({b"cookie": b"session=abc"}, None),
        ({}, None),
    ],
)
def test_the_secret_is_found_where_the_contract_puts_it(
    headers: dict[bytes, bytes], secret: str | None
) -> None:
    assert credential(headers) == secret


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({b"cookie": b"theme=dark; session=abc"}, "abc"),
        ({b"cookie": b"xsession=abc"}, None),
        ({b"cookie": b"session="}, None),
        ({b"cookie": b"session=abc", b"authorization": b"Basic x"}, None),
        ({b"cookie": b"session=abc", b"x-api-key": b""}, None),
        ({}, None),
    ],
)
def test_a_session_is_in_the_cookie_alone(headers: dict[bytes, bytes], secret: str | None) -> None:
    assert session_secret(headers) == secret


HOST = {b"host": b"h:1"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("proof", "own"),
    [
        ({b"origin": b"http://h:1"}, True),
        ({b"origin": b"https://h:1"}, True),
        ({b"sec-fetch-site": b"same-origin"}, True),
        ({b"sec-fetch-site": b"none"}, True),
        ({}, False),
        ({b"referer": b"http://h:1/"}, False),
        ({b"sec-fetch-site": b"same-site"}, False),
        ({b"sec-fetch-site": b"cross-site"}, False),
        ({b"origin": b"http://elsewhere"}, False),
        ({b"origin": b"http://h:1.elsewhere"}, False),
        ({b"origin": b"null"}, False),
        ({b"origin": b""}, False),
        ({b"origin": b"h:1"}, False),
        ({b"origin": b"http://elsewhere", b"sec-fetch-site": b"same-origin"}, False),
    ],
)
def test_a_cookie_changes_nothing_without_proof_of_our_own_page(
    method: str, proof: dict[bytes, bytes], own: bool
) -> None:
    assert is_from_own_page(method, {**HOST, **proof}) is own


def test_a_cookie_reads_on_a_plain_visit_and_not_for_another_sites_script() -> None:
    assert is_from_own_page("GET", HOST)
    assert is_from_own_page("GET", {**HOST, b"sec-fetch-site": b"cross-site"})
    assert not is_from_own_page("GET", {**HOST, b"origin": b"http://elsewhere"})


def test_over_tls_our_pages_come_over_tls_too() -> None:
    own = own_origin(None, HOST, secure=True)
    assert is_from_own_page("POST", {**HOST, b"origin": b"https://h:1"}, own)
    assert not is_from_own_page("POST", {**HOST, b"origin": b"http://h:1"}, own)
    assert own_origin(b"https://x", HOST, secure=True) == b"https://x"
    assert own_origin(None, HOST, secure=False) is None


def test_a_public_url_is_the_only_origin() -> None:
    ours = b"https://inferd.example"
    assert is_from_own_page("POST", {**HOST, b"origin": ours}, ours)
    assert not is_from_own_page("POST", {**HOST, b"origin": b"http://h:1"}, ours)
    assert not is_from_own_page("POST", {**HOST, b"origin": b"http://inferd.example"}, ours)
