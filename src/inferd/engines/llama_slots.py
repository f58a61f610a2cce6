"""Which slot of a llama.cpp server a request gets, so that prompt prefixes stay within an account.

llama.cpp reuses whatever a slot computed last. A slot is therefore given to whom it served last,
if it is free; anybody else starts on it without reuse.
"""

from __future__ import annotations

import msgspec


class Slot(msgspec.Struct, frozen=True):
    """A slot for one choice."""

    index: int
    reuse: bool
    """The prefix that lies in it belongs to the same scope."""


class LlamaSlots:
    """All slots of one server."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        """Least recently used first."""
        self._scopes: list[str | None] = [None] * count

    @property
    def free(self) -> int:
        """How many can be taken."""
        return len(self._free)

    def take(self, scope: str, count: int) -> list[Slot]:
        """Take `count` slots. As many must be free."""
        return [self._take_one(scope) for _ in range(count)]

    def _take_one(self, scope: str) -> Slot:
        index = next(
            (index for index in reversed(self._free) if self._scopes[index] == scope), None
        )
        if index is None:
            index = next((i for i in self._free if self._scopes[i] is None), self._free[0])
            self._free.remove(index)
            self._scopes[index] = scope
            return Slot(index, reuse=False)
        self._free.remove(index)
        return Slot(index, reuse=True)

    def give_back(self, slots: list[Slot]) -> None:
        """Free them; what they computed stays for the same scope."""
        self._free.extend(slot.index for slot in slots)
