"""Callers that were seen before, so that a warm request reads no database. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from inferd.access.caller import Caller
from inferd.clock import Clock


class KnownCallers:
    """Digest of a credential → its caller; the longest unused goes first."""

    def __init__(self, clock: Clock, size_max: int) -> None:
        self._clock = clock
        self._size_max = size_max
        self._callers: OrderedDict[bytes, Caller] = OrderedDict()
        self.epoch = 0
        """Moves whenever something is forgotten: what was read before is not remembered after."""

    def get(self, digest: bytes) -> Caller | None:
        """The caller, unless he is unknown or has expired."""
        caller = self._callers.get(digest)
        if caller is None:
            return None
        if caller.expires_unix_ns is not None and caller.expires_unix_ns <= self._clock.unix_ns():
            del self._callers[digest]
            return None
        self._callers.move_to_end(digest)
        return caller

    def remember(self, digest: bytes, caller: Caller, epoch: int) -> None:
        """Keep what was read in an epoch; nothing if something was forgotten since."""
        if epoch != self.epoch:
            return
        self._callers[digest] = caller
        if len(self._callers) > self._size_max:
            self._callers.popitem(last=False)

    def forget(self, which: Callable[[Caller], bool]) -> None:
        """Drop those."""
        self.epoch += 1
        for digest in [known for known, caller in self._callers.items() if which(caller)]:
            del self._callers[digest]

    def __len__(self) -> int:
        return len(self._callers)
