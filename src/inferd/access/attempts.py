"""Wrong passwords are counted, on every gateway together, and guessing is made slow.

An attempt counts before it is checked, so that many at once are not one. The counts are in the
database, by keyed digests of what was tried and from where.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from inferd.clock import Clock
from inferd.errors import TooManyRequests
from inferd.storage import sign_in
from inferd.storage.database import Database

WINDOW_SECONDS = 15 * 60
PAIR_MAX = 10
"""Of one name from one address."""
NAME_MAX = 100
"""Of one name from everywhere."""
ADDRESS_MAX = 50
"""From one address with any names."""
_NS = 1_000_000_000


class Attempts:
    """Counts them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def count(self, login: str, address: str) -> None:
        """Count one. Raises TooManyRequests, which counts too."""
        now, wait = self._clock.unix_ns(), 0
        pair, name, from_address = _keys(login, address)
        async with self._database.writing() as connection:
            # The address first: who is over it fills the table with no more names.
            for key, most in ((from_address, ADDRESS_MAX), (pair, PAIR_MAX), (name, NAME_MAX)):
                until = now + WINDOW_SECONDS * _NS
                count, until = await sign_in.count_failure(connection, key, now, until)
                if count > most:
                    wait = until - now
                    break
        if wait:
            raise TooManyRequests(
                "Too many attempts to sign in; wait before the next one.",
                retry_after_seconds=wait / _NS,
            )

    async def succeeded(self, login: str, address: str) -> None:
        """The right password came: its name and address begin anew."""
        async with self._database.writing() as connection:
            await sign_in.forget_failures(connection, _keys(login, address)[:2])


def _keys(login: str, address: str) -> Sequence[bytes]:
    parts = (f"pair\n{login}\n{address}", f"name\n{login}", f"address\n{address}")
    return [
        blake2b(part.encode("utf-8", "surrogatepass"), digest_size=32).digest() for part in parts
    ]
