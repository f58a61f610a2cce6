"""docs/security.md names what the code says."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from inferd.access.fetches import ACCOUNT_FETCHES_MAX, ALL_FETCHES_MAX
from inferd.access.in_flight_bytes import ACCOUNT_BYTES_MAX, ALL_BYTES_MAX
from inferd.api import body, generation, multipart, protocol
from inferd.api.fetch_url import REDIRECTS_MAX
from inferd.api.services import ApiOptions
from inferd.api.table import ROUTES
from inferd.engines import grammar
from inferd.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_it_names_every_route_that_answers_without_a_token() -> None:
    section = PAGE.partition("## Routes without a token")[2].partition("Every other route")[0]
    for route in ROUTES:
        shown = f"`{route.method} {route.path.replace('{rest}', '{name}')}`"
        assert (shown in section) is (route.access in ("public", "catalogue")), shown


@pytest.mark.parametrize(
    "row",
    [
        f"{protocol.HEADER_BYTES_MAX >> 10} KiB, {protocol.HEADER_SECONDS_MAX} s",
        f"| {Settings().body_bytes_max // 10**6} MB (`body_bytes_max`)",
        f"{ACCOUNT_BYTES_MAX >> 20} MiB, {ALL_BYTES_MAX >> 20} MiB",
        f"| {ApiOptions().body_seconds_max:g} s |",
        f"gzip, {body.MEMBERS_MAX} members",
        f"{multipart.PARTS_MAX}, {multipart.HEAD_BYTES_MAX >> 10} KiB",
        f"| pipelined requests | {protocol.PIPELINED_MAX} |",
        f"| {generation.TOOLS_MAX}, 64 characters |",
        f"{grammar.SCHEMA_DEPTH_MAX} levels, {grammar.SCHEMA_NODES_MAX} parts",
        f"{grammar.PATTERN_CHARACTERS_MAX} characters, counts of 10 000 multiplied",
        f"{grammar.GRAMMAR_BYTES_MAX >> 10} KiB |",
        f"{Settings().concurrent_requests_max} (`concurrent_requests_max`)",
        f"{Settings().queue_size_max} (`queue_size_max`)",
        f"{Settings().queue_seconds_max:g} s (`queue_seconds_max`)",
        f"{Settings().stall_seconds:g} s (`stall_seconds`)",
        f"{Settings().media_bytes_max // 10**6} MB (`media_bytes_max`)",
        f"{Settings().media_seconds_max:g} s (`media_seconds_max`), {REDIRECTS_MAX} redirects",
        f"at once, of one account and of all | {ACCOUNT_FETCHES_MAX}, {ALL_FETCHES_MAX} |",
        f"{Settings().audio_seconds_max:g} s (`audio_seconds_max`)",
    ],
)
def test_its_limits_are_those_of_the_code(row: str) -> None:
    assert row in PAGE


def test_its_proofs_exist() -> None:
    named = [word.strip("`,.") for word in PAGE.partition("## Proofs")[2].split()]
    for name in (name for name in named if name.endswith(".py")):
        assert (ROOT / "tests" / "hostile" / Path(name).name).exists(), name


@pytest.mark.engine
def test_its_limits_of_media_are_those_of_the_workers() -> None:
    pictures = importlib.import_module("inferd.engines.decode_image")
    sound = importlib.import_module("inferd.engines.decode_audio")
    assert f"{pictures.SIDE_MIN} to {pictures.SIDE_MAX} pixels a side" in PAGE
    assert f"{pictures.PIXELS_MAX // 10**6} million in all" in PAGE
    assert (
        f"{pictures.SCANNED_PIXELS_MAX // 10**6:,} million in all scans".replace(",", " ") in PAGE
    )
    assert f"{sound.RATE_MIN} to {sound.RATE_MAX} Hz, {sound.CHANNELS_MAX} channels" in PAGE
    assert f"{sound.DECODE_SECONDS_MAX} s to decode" in PAGE
