"""What several gateways count together, on Valkey: one atomic script, one round trip a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inferd.storage.valkey import Valkey

SCRIPT = Path(__file__).with_name("shared_counts.lua").read_text()


class Asked(NamedTuple):
    """One counter of a request: its name and what it may reach; None: anything."""

    name: str
    bounds: tuple[int | None, int | None, int | None]
    """Requests in flight, requests and tokens of the window."""


class SharedCounts:
    """The counts of one installation, seen from one gateway.

    Every call is sent at once and answers with a list; its first word says what became of it.
    """

    def __init__(self, valkey: Valkey, prefix: str, gateway: str) -> None:
        self._valkey = valkey
        # One hash tag: all keys of an installation lie on one node of a cluster.
        self._prefix = f"{{{prefix}}}"
        self._gateway = gateway
        self.session = ""
        """Calls of an earlier session that arrive late are ignored."""

    def enter(self, asked: Sequence[Asked], tokens: int, said: str) -> asyncio.Future[list[Any]]:
        """`said`: "1" if this gateway says yes by itself where counts are not shared."""
        bounds = [-1 if bound is None else bound for each in asked for bound in each.bounds]
        return self._run("enter", [each.name for each in asked], tokens, said, *bounds)

    def change(
        self, names: Iterable[str], tick: int, change: tuple[int, int, int]
    ) -> asyncio.Future[list[Any]]:
        """Add to requests in flight, and to requests and tokens of an entry."""
        return self._run("change", names, tick, *change)

    def join(self, known: Iterable[str], *, unreported: bool) -> asyncio.Future[list[Any]]:
        """Begin a session; what this gateway holds is said next, by `seed`."""
        return self._run("join", (), int(unreported), *known)

    def seed(
        self, name: str, in_flight: int, entries: Iterable[tuple[int, int, int]]
    ) -> asyncio.Future[list[Any]]:
        """Replace all that this gateway holds of a counter: tick, requests, tokens."""
        flat = [number for entry in entries for number in entry]
        return self._run("seed", (name,), in_flight, *flat)

    def beat(self) -> asyncio.Future[list[Any]]:
        """Say that this gateway lives."""
        return self._run("beat", ())

    def leave(self) -> asyncio.Future[list[Any]]:
        """End the session: nothing of this gateway is in flight any more."""
        return self._run("leave", ())

    def _run(
        self, step: str, names: Iterable[str], *arguments: str | int
    ) -> asyncio.Future[list[Any]]:
        keys = [f"{self._prefix}gateways", f"{self._prefix}beats"]
        for name in names:
            keys += [f"{self._prefix}{part}:{name}" for part in ("running", "held", "ticks")]
        return self._valkey.run(keys, step, self._gateway, self.session, *arguments)
