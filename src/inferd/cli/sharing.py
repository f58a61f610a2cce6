"""What gateways share beyond the database: limits, and news of what changed."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from hashlib import blake2b

from inferd.access.changes import Changes
from inferd.access.follow_changes import FollowChanges
from inferd.access.limits import Limits
from inferd.access.shared_limits import SharedLimits
from inferd.clock import Clock
from inferd.settings import Settings
from inferd.storage.database import Database
from inferd.storage.shared_counts import SCRIPT
from inferd.storage.valkey import Valkey


class Sharing:
    """Made before anything is remembered; what it opens closes with the stack."""

    def __init__(self, stack: AsyncExitStack, settings: Settings, key: bytes) -> None:
        self._stack = stack
        self._settings = settings
        # Installations may share a server; nobody learns the key from a name.
        self._prefix = f"inferd:{blake2b(b'valkey', key=key, digest_size=8).hexdigest()}"
        self._valkey: Valkey | None = None

    async def follow(self, changes: Changes, database: Database) -> None:
        """Hear what other gateways change, within a second."""
        if self._settings.valkey_url:
            self._valkey = Valkey(self._settings.valkey_url, SCRIPT)
            await self._valkey.open()
            self._stack.push_async_callback(self._valkey.close)
        if self._valkey is None and not self._settings.is_clustered:
            return
        channel, name = f"{self._prefix}:changes", secrets.token_hex(4)
        following = FollowChanges(changes, database, self._valkey, channel, name)
        await following.open()
        self._stack.push_async_callback(following.close)

    async def limits(self, clock: Clock) -> Limits:
        """The limits of this gateway, or of all."""
        concurrent = self._settings.concurrent_requests_max
        if self._valkey is None:
            return Limits(clock, concurrent)
        limits = SharedLimits(
            clock,
            self._valkey,
            self._prefix,
            concurrent_requests=concurrent,
            gateways=self._settings.workers,
        )
        await limits.open()
        self._stack.push_async_callback(limits.close)
        return limits
