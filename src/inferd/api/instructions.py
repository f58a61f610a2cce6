"""What vectors or scores are for, in a caller's words: for models that were trained to be told."""

from __future__ import annotations

from inferd.catalog.card import ModelCard

INSTRUCTION_CHARACTERS_MAX = 4096


def instruction_for(card: ModelCard, *given: str | None) -> str | None:
    """The first instruction given, if the model has a place for one.

    Where it has none, the field is ignored: the contract lists it as an option of the task, and
    unknown fields of a model are ignored there (deepinfra-api 0, 3.3, 3.4). Clients send the same
    body to every model, and what they get is the model's own judgement either way.
    """
    if not any("{instruction}" in str(value) for value in card.options.values()):
        return None
    return next(filter(None, given), None)
