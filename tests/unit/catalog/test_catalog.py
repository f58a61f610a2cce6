from __future__ import annotations

from pathlib import Path

import pytest

from inferd.catalog.card import read_card
from inferd.catalog.catalog import Catalog, load_catalog
from inferd.errors import BadRequest, ModelNotFound
from tests.unit.catalog.index_server import card_of
from tests.weights import SMOLLM2

DIGEST = "ab" * 32
CARD = """
name = "acme/tiny"
task = "text-generation"
engine = "xllamacpp"
context_length = 128
licence = "MIT"
summary = "A card."
free = true
"""


def _file(source: str, rest: str = f'sha256 = "{DIGEST}"', name: str = "m.gguf") -> str:
    head = f'[[files]]\nrole = "model"\nfile_name = "{name}"\n{rest}\n'
    return f"{CARD}{head}[files.source]\n{source}\n"


def _package(digest: str = DIGEST) -> str:
    return (
        f'kind = "package"\nwheels = [{{ requirement = "a==1", sha256 = "{digest}" }}]\n'
        'members = ["a/m.gguf"]'
    )


def test_the_starter_model_is_in_the_catalogue_with_a_price() -> None:
    card = load_catalog(None).get(SMOLLM2)
    assert (card.engine, card.context_length, card.licence) == ("xllamacpp", 8192, "Apache-2.0")
    rates = card.rates()
    assert rates[1] < rates[0] < rates[2]
    assert card.files[0].transform == "gguf-q4_0"


def test_the_packaged_catalogue_holds_no_echo_model() -> None:
    assert "echo" not in {card.engine for card in load_catalog(None).cards()}


def test_a_model_that_is_not_there_is_named_in_a_bounded_sentence() -> None:
    catalog = Catalog([card_of()])
    with pytest.raises(ModelNotFound, match="'acme/none' does not exist"):
        catalog.get("acme/none")
    with pytest.raises(ModelNotFound) as refusal:
        catalog.get("x" * 10_000)
    assert len(refusal.value.message) < 200
    assert refusal.value.param == "model"


def test_cards_come_in_the_order_of_their_names() -> None:
    catalog = Catalog([card_of(name="b/b"), card_of(name="a/c"), card_of(name="a/b")])
    assert [card.name for card in catalog.cards()] == ["a/b", "a/c", "b/b"]


def test_a_users_card_is_added_or_replaces_the_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CARD)
    (tmp_path / "smol.toml").write_text(CARD.replace("acme/tiny", SMOLLM2))
    (tmp_path / "notes.txt").write_text("no card")
    catalog = load_catalog(tmp_path)
    assert catalog.get("acme/tiny").context_length == 128
    assert catalog.get(SMOLLM2).summary == "A card."


def test_a_folder_of_cards_that_is_not_there_adds_none(tmp_path: Path) -> None:
    assert load_catalog(tmp_path / "none").cards() == load_catalog(None).cards()


def test_two_cards_of_one_name_stop_the_start_with_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(CARD)
    (tmp_path / "b.toml").write_text(CARD)
    with pytest.raises(BadRequest, match=r"a\.toml and b\.toml are both cards of acme/tiny"):
        load_catalog(tmp_path)


BROKEN = {
    "no toml": "name = ",
    "binary": "\x00",
    "an unknown key": CARD + 'colour = "red"\n',
    "a missing key": CARD.replace('licence = "MIT"\n', ""),
    "an unknown task": CARD.replace("text-generation", "juggling"),
    "a name with a path": CARD.replace("acme/tiny", "../../etc/passwd"),
    "a reserved owner": CARD.replace("acme/tiny", "deploy/tiny"),
    "no price": CARD.replace("free = true\n", ""),
    "a negative price": CARD + '[price]\ninput = "-1"\noutput = "1"\n',
    "a price in words": CARD + '[price]\ninput = "cheap"\noutput = "1"\n',
    "no context": CARD.replace("128", "0"),
    "a model server without its address": CARD.replace("xllamacpp", "model_server"),
    "a file with a path": _file(_package(), name="../m.gguf"),
    "a package without digest": _file(_package(), rest=""),
    "a digest that is a path": _file(_package(), rest='sha256 = "../../../../etc/passwd"'),
    "a wheel's digest that is a path": _file(_package("../" * 20 + "etc")),
    "no wheels": _file('kind = "package"\nwheels = []\nmembers = ["a"]'),
    "no members": _file(_package().replace('"a/m.gguf"', "")),
    "a relative path": _file('kind = "path"\npath = "m.gguf"', rest=""),
    "a transform without digest": _file(
        'kind = "path"\npath = "/m.gguf"', rest='transform = "gguf-q4_0"'
    ),
    "an unknown transform": _file(_package(), rest='transform = "rm"'),
    "one role twice": _file(_package()) + _file(_package()).removeprefix(CARD),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_card_stops_the_start_with_its_file_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "wrong.toml").write_text(BROKEN[name])
    with pytest.raises(BadRequest, match=r"wrong\.toml is not valid"):
        load_catalog(tmp_path)


@pytest.mark.parametrize(
    "text", [CARD, _file(_package()), _file('kind = "path"\npath = "/m.gguf"', rest="")]
)
def test_a_good_card_is_read(text: str) -> None:
    assert read_card(text.encode(), origin="good.toml").name == "acme/tiny"


def test_a_card_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").mkdir()
    with pytest.raises(BadRequest, match=r"wrong\.toml cannot be read"):
        load_catalog(tmp_path)


def test_a_huge_card_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(CARD + "# " + "x" * (1 << 20))
    with pytest.raises(BadRequest, match=r"wrong\.toml is over"):
        load_catalog(tmp_path)
