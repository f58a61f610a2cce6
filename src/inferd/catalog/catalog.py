"""Which models exist: the packaged cards and the user's own, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from inferd.catalog.card import ModelCard, read_card
from inferd.errors import BadRequest, ModelNotFound

_NAME_LENGTH_SHOWN = 100
VERSION_CHARACTERS_MIN = 7
"""Of a hash, as in git."""
_CARD_BYTES_MAX = 1 << 20


class Catalog:
    """Model cards by name. Does not change after it is made."""

    def __init__(self, cards: Iterable[ModelCard]) -> None:
        self._cards = {card.name: card for card in sorted(cards, key=lambda card: card.name)}

    def get(self, name: str) -> ModelCard:
        """The card of a model. ModelNotFound when there is none."""
        card = self._cards.get(name)
        if card is None:
            shown = name if len(name) <= _NAME_LENGTH_SHOWN else name[:_NAME_LENGTH_SHOWN] + "…"
            raise ModelNotFound(f"The model {shown!r} does not exist here.", param="model")
        return card

    def serving(self, name: str, version: str = "") -> ModelCard:
        """The card that answers for a name: `owner/name`, `owner/name:version`, a replaced one.

        ModelNotFound also for a version that is not here.
        """
        if not version:
            name, _, version = name.partition(":")
        card = self.get(name)
        known = card.version()
        if version and not (len(version) >= VERSION_CHARACTERS_MIN and known.startswith(version)):
            raise ModelNotFound(f"The model {name} has no such version here.", param="model")
        seen = {card.name}
        while card.replaced_by is not None and card.replaced_by not in seen:
            seen.add(card.replaced_by)
            card = self.get(card.replaced_by)
        return card

    def cards(self) -> tuple[ModelCard, ...]:
        """All cards, by name."""
        return tuple(self._cards.values())


def load_catalog(extra_dir: Path | None) -> Catalog:
    """Read the packaged cards, then the `*.toml` of `extra_dir`, which replace them by name.

    BadRequest with the name of the file when a card is not valid, or two of the user's cards
    have one name.
    """
    packaged = {card.name: card for card in _packaged()}
    origins: dict[str, str] = {}
    for origin, card in _own(extra_dir):
        if card.name in origins:
            raise BadRequest(f"{origins[card.name]} and {origin} are both cards of {card.name}.")
        origins[card.name] = origin
        packaged[card.name] = card
    return Catalog(packaged.values())


def _packaged() -> Iterator[ModelCard]:
    for entry in files("inferd.catalog").joinpath("cards").iterdir():
        if entry.name.endswith(".toml"):
            yield read_card(entry.read_bytes(), origin=entry.name)


def _own(folder: Path | None) -> Iterator[tuple[str, ModelCard]]:
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.glob("*.toml")):
        try:
            if path.stat().st_size > _CARD_BYTES_MAX:
                raise BadRequest(f"The model card {path.name} is over {_CARD_BYTES_MAX} bytes.")
            text = path.read_bytes()
        except OSError as error:
            raise BadRequest(
                f"The model card {path.name} cannot be read: {error.strerror}."
            ) from error
        yield path.name, read_card(text, origin=path.name)
