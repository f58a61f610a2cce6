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
        self._keys = [""] * count

    @property
    def free(self) -> int:
        """How many can be taken."""
        return len(self._free)

    def take(self, scope: str, count: int, key: str = "") -> list[Slot]:
        """Take `count` slots. As many must be free. `key`: who shares a prefix within a scope."""
        return [self._take_one(scope, key) for _ in range(count)]

    def _take_one(self, scope: str, key: str) -> Slot:
        mine = [index for index in reversed(self._free) if self._scopes[index] == scope]
        if key:
            alike = [index for index in mine if self._keys[index] == key]
            # A slot of another key is worth more to that key than to this one, while others are
            # free: its prefix would be lost.
            mine = alike or [index for index in mine if not self._keys[index]]
        unused = [index for index in self._free if self._scopes[index] is None]
        index = (mine or unused or self._free)[0]
        reuse = self._scopes[index] == scope
        self._free.remove(index)
        self._scopes[index], self._keys[index] = scope, key
        return Slot(index, reuse=reuse)

    def give_back(self, slots: list[Slot]) -> None:
        """Free them; what they computed stays for the same scope."""
        self._free.extend(slot.index for slot in slots)
