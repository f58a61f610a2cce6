"""Every place where a client may put its token."""

from __future__ import annotations

import pytest

from inferd.api.credential import credential, from_foreign_site


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({b"authorization": b"Bearer abc"}, "abc"),
        ({b"authorization": b"bearer abc"}, "abc"),
        ({b"authorization": b"BEARER  abc "}, "abc"),
        ({b"x-api-key": b"abc"}, "abc"),
        ({b"xi-api-key": b"abc"}, "abc"),
        ({b"cookie": b"theme=dark; session=abc"}, "abc"),
        ({b"authorization": b"Bearer abc", b"x-api-key": b"other"}, "abc"),
        ({b"authorization": b"Basic abc"}, None),
        ({b"authorization": b"Bearer "}, None),
        ({b"authorization": b"Bearer"}, None),
        ({b"cookie": b"xsession=abc"}, None),
        ({}, None),
    ],
)
def test_the_secret_is_found_where_the_contract_puts_it(
    headers: dict[bytes, bytes], secret: str | None
) -> None:
    assert credential(headers) == secret


def test_a_cookie_from_another_sites_page_is_not_trusted() -> None:
    ours = {b"cookie": b"session=a", b"host": b"h:1", b"origin": b"http://h:1"}
    theirs = {**ours, b"origin": b"http://elsewhere"}
    assert not from_foreign_site(ours)
    assert from_foreign_site(theirs)
    assert not from_foreign_site({**theirs, b"authorization": b"Bearer a"})
