"""Kills a gateway with -9 at a named point of reserve → run → settle → tell.

    python -m tests.unit.metering.crash_points FOLDER POINT…

For each point a process of its own serves requests over FOLDER/POINT/inferd.db and writes what its
client saw complete into FOLDER/POINT/seen. The processes are forks of this one: importing takes
longer than dying.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferd.admission.gate import Gate
from inferd.api.exchange import Exchange
from inferd.api.idempotency import IdempotencyKeys
from inferd.metering.ledger import Ledger
from inferd.storage import ledger_writer
from inferd.storage.journal import Journal
from inferd.storage.ledger_writer import LedgerWriter
from inferd.storage.rows import GrantRow, Reserve, Settle
from tests.gateway import Gateway, InProcessReplica, Response, gateway

CHAT = "/v1/chat/completions"
CREDIT = 10**9
REQUESTS = 6
DIES_AT = 4
"""Of the requests, this one meets the point."""
BODY = {"model": "test/echo", "messages": [{"role": "user", "content": "one two three"}]}


class Dice:
    """Counts how often the point was met, and dies in time."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, *_: object) -> None:
        """Die, when it is time."""
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


Patch = Callable[[Dice], None]


def _before(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> Patch:
    def patch(die: Dice) -> None:
        real = getattr(owner, name)

        def dying(*args: Any, **options: Any) -> Any:
            if when(*args):
                die()
            return real(*args, **options)

        setattr(owner, name, dying)

    return patch


def _after(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> Patch:
    def patch(die: Dice) -> None:
        real = getattr(owner, name)

        def dying(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            if when(*args):
                die()
            return result

        setattr(owner, name, dying)

    return patch


def _after_async(owner: Any, name: str) -> Patch:
    def patch(die: Dice) -> None:
        real = getattr(owner, name)

        async def dying(*args: Any, **options: Any) -> Any:
            result = await real(*args, **options)
            die()
            return result

        setattr(owner, name, dying)

    return patch


def _in_run(event: int) -> Patch:
    """While the engine computes: after so many of its events."""

    def patch(die: Dice) -> None:
        real = InProcessReplica.run

        async def dying(*args: Any) -> Any:
            seen = 0
            async for found in real(*args):
                yield found
                seen += 1
                if seen == event:
                    die()

        InProcessReplica.run = dying  # type: ignore[method-assign]

    return patch


def _has(kind: type) -> Callable[..., bool]:
    """True if one of the writes that are about to be committed is of the kind."""

    def met(_: Any, writes: list[Any]) -> bool:
        return any(isinstance(write, kind) for write in writes)

    return met


def _is(kind: type) -> Callable[..., bool]:
    def met(_: Any, write: Any) -> bool:
        return isinstance(write, kind)

    return met


POINTS: dict[str, Patch] = {
    "before-admission": _before(Gate, "admit"),
    "reserved-in-memory": _before(LedgerWriter, "submit", _is(Reserve)),
    "reservation-queued": _after(LedgerWriter, "submit", _is(Reserve)),
    "reservation-committed": _after(LedgerWriter, "_commit", _has(Reserve)),
    "admitted": _after_async(Gate, "admit"),
    "computing-begins": _in_run(1),
    "computing": _in_run(3),
    "before-settling": _before(Ledger, "settle"),
    "settled-in-memory": _before(LedgerWriter, "submit", _is(Settle)),
    "settlement-queued": _after(LedgerWriter, "submit", _is(Settle)),
    "before-the-transaction": _before(LedgerWriter, "_commit", _has(Settle)),
    "entry-inserted": _after(ledger_writer, "_apply", _is(Settle)),
    "before-the-commit": _after(ledger_writer, "_apply_all", _has(Settle)),
    "committed-not-told": _after(LedgerWriter, "_commit", _has(Settle)),
    "told-not-answered": _before(Exchange, "respond"),
    "answered": _after_async(Exchange, "respond"),
    "key-claimed": _after_async(IdempotencyKeys, "replayed"),
    "answer-kept": _after_async(IdempotencyKeys, "keep"),
    "journal-written": _after(Journal, "append", _has(Settle)),
    "journal-replayed": _before(Journal, "clear"),
}


def _breaks_the_database(point: str, running: Gateway) -> None:
    """For the journal's points: the database takes nothing for a while."""
    if not point.startswith("journal"):
        return
    failing = {"left": 2}
    real = LedgerWriter._write  # pyright: ignore[reportPrivateUsage]

    def write(self: LedgerWriter, writes: Any) -> Any:
        if failing["left"] and any(isinstance(one, Settle) for one in writes):
            failing["left"] -= 1
            raise sqlite3.OperationalError("the test broke it")
        return real(self, writes)

    LedgerWriter._write = write  # type: ignore[method-assign]  # pyright: ignore


async def ask(running: Gateway, point: str, number: int) -> Response:
    """One of the requests, with its key: every other one streams."""
    streams = number % 2 == 1 and point not in ("answered", "told-not-answered")
    key = {"idempotency-key": f"key-{number}"}
    return await running.client.post(CHAT, {**BODY, "stream": streams}, headers=key)


async def _serve(folder: Path, point: str) -> None:
    async with gateway(folder) as running:
        ledger = running.services.ledger
        await ledger.grant(GrantRow("grant", running.account_id, CREDIT, "", "", 1))
        assert (await running.client.post(CHAT, BODY)).status == 200
        _breaks_the_database(point, running)
        POINTS[point](Dice(1 if point.startswith("journal") else DIES_AT))
        for number in range(REQUESTS):
            answer = await ask(running, point, number)
            if answer.status == 200:
                with (folder / "seen").open("a") as seen:
                    seen.write(answer.headers["x-request-id"] + "\n")
    os._exit(0)


def main(folder: Path, points: list[str]) -> None:
    """Play them one after the other."""
    for point in points:
        own = folder / point
        own.mkdir()
        shutil.copy2(folder / "inferd.db", own)
        child = os.fork()
        if child == 0:
            asyncio.run(_serve(own, point))
        _, status = os.waitpid(child, 0)
        (own / "status").write_text(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
