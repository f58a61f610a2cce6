"""Identifiers: prefixed and sorting by time, but for the shapes that the contract fixes."""

from __future__ import annotations

import os
import secrets
import time

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_POOL_BYTES = 4096


class _RandomPool:
    """Random bytes bought in bulk: one system call serves 240 ids instead of one."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._bytes, self._at = b"", 0

    def take(self, count: int) -> int:
        if self._at + count > len(self._bytes):
            self._bytes, self._at = os.urandom(_POOL_BYTES), 0
        start, self._at = self._at, self._at + count
        return int.from_bytes(self._bytes[start : self._at], "big")


_pool = _RandomPool()


def base62(number: int, width: int) -> str:
    """Write the lowest `width` base-62 digits of `number`, most significant first."""
    digits: list[str] = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def request_id() -> str:
    """`R` and 23 base-62 characters: the shape of DeepInfra's request ids."""
    # 18 bytes carry 144 bits, 23 base-62 digits carry 137.
    return "R" + base62(_pool.take(18), 23)


def tool_call_id() -> str:
    """`call_` and 24 base-62 characters."""
    return "call_" + base62(_pool.take(18), 24)


def sortable(prefix: str) -> str:
    """`prefix_` + 8 digits of milliseconds + 12 random ones: sorts by time of creation."""
    return f"{prefix}_{base62(time.time_ns() // 1_000_000, 8)}{base62(_pool.take(9), 12)}"


def secret(prefix: str) -> str:
    """An API token: prefix and 32 random bytes as 43 base-62 characters."""
    return f"{prefix}_{base62(int.from_bytes(secrets.token_bytes(32), 'big'), 43)}"
