"""Passwords: argon2id, computed beside the event loop, two at once at most.

argon2-cffi is in the extra `sign-in`; its defaults are the second choice of RFC 9106 (64 MiB).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import secrets
from typing import Any

from inferd.errors import BadRequest, Unavailable

CHARACTERS_MIN = 12
CHARACTERS_MAX = 256
AT_ONCE_MAX = 2
"""Each takes 64 MiB and a core for a twentieth of a second."""
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP_LETTERS = 5, 5

EXTRA_MISSING = (
    "Signing in with a password needs the extra `sign-in`: pip install 'inferd[sign-in]'."
)


def generated() -> str:
    """A new password of 125 random bits that can be read aloud."""
    groups = (
        "".join(secrets.choice(_LETTERS) for _ in range(_GROUP_LETTERS)) for _ in range(_GROUPS)
    )
    return "-".join(groups)


def check_new(password: str) -> None:
    """Raise BadRequest for one that is too short or too long."""
    if not CHARACTERS_MIN <= len(password) <= CHARACTERS_MAX:
        raise BadRequest(
            f"A password has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters.", param="password"
        )


class Hasher:
    """Makes and checks hashes."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_ONCE_MAX)
        # The library is optional, so it is loaded at the first use.
        self._library: Any = None
        self._nobodys = ""

    @staticmethod
    def is_installed() -> bool:
        """True if the extra is there."""
        return importlib.util.find_spec("argon2") is not None

    async def hash(self, password: str) -> str:
        """argon2id with its parameters and salt. Raises Unavailable without the extra."""
        async with self._turn:
            return await asyncio.to_thread(self._hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """True for the right password. Without a stored hash it takes as long, and is False."""
        async with self._turn:
            return await asyncio.to_thread(self._matches, stored, password)

    def _hash(self, password: str) -> str:
        return self._hasher().hash(password)

    def _matches(self, stored: str | None, password: str) -> bool:
        hasher = self._hasher()
        if stored is None and not self._nobodys:
            self._nobodys = hasher.hash(generated())
        try:
            right = hasher.verify(stored or self._nobodys, password)
        except (self._library.exceptions.VerificationError, self._library.exceptions.InvalidHash):
            return False
        return right and stored is not None

    def _hasher(self) -> Any:
        if not self.is_installed():
            raise Unavailable(EXTRA_MISSING)
        self._library = importlib.import_module("argon2")
        return self._library.PasswordHasher()
