"""ids, money, errors: the leaves that everything stands on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd import errors, ids
from inferd.money import nanos_from_usd, usd, usd_text


def test_request_ids_have_deepinfras_shape_and_do_not_repeat() -> None:
    made = [ids.request_id() for _ in range(5000)]
    assert all(re.fullmatch(r"R[0-9A-Za-z]{23}", one) for one in made)
    assert len(set(made)) == len(made)


def test_sortable_ids_sort_by_time_of_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    milliseconds = iter(range(1_800_000_000_000, 1_800_000_100_000, 997))
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(milliseconds) * 1_000_000)
    made = [ids.sortable("tok") for _ in range(60)]
    assert made == sorted(made)


def test_secrets_carry_32_random_bytes() -> None:
    made = {ids.secret("ifd") for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"ifd_[0-9A-Za-z]{43}", one) for one in made)


@pytest.mark.parametrize(
    ("quoted", "nanos"),
    [("0.02", 20_000_000), ("1", 10**9), ("0.000000001", 1), ("-2.5", -25 * 10**8)],
)
def test_quoted_dollars_are_exact(quoted: str, nanos: int) -> None:
    assert nanos_from_usd(quoted) == nanos


@pytest.mark.parametrize("quoted", ["0.0000000001", "NaN", "inf", "1e400000", "two", ""])
def test_amounts_that_are_not_whole_nano_dollars_are_refused(quoted: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        nanos_from_usd(quoted)


@given(st.integers(-(10**18), 10**18))
def test_dollars_for_people_read_back_to_the_same_amount(nanos: int) -> None:
    assert nanos_from_usd(usd_text(nanos).replace("$", "")) == nanos


def test_dollars_for_bodies_are_the_nearest_float() -> None:
    assert usd(114_000) == 0.000114


def test_every_error_code_is_its_own_so_that_an_error_survives_a_process_border() -> None:
    def below(root: type[errors.InferdError]) -> list[type[errors.InferdError]]:
        return [root, *(leaf for child in root.__subclasses__() for leaf in below(child))]

    ours = [one for one in below(errors.InferdError) if one.__module__ == errors.__name__]
    assert sorted(one.code for one in ours) == sorted(errors.BY_CODE)
    assert all(errors.BY_CODE[one.code] is one for one in ours)
