"""One key for all gateways of an installation: each brings it, the database knows its print.

Under another key no token would be found, so a gateway that has another one does not start.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from inferd.access.installation import KEY_BYTES, KEY_FILE, InstallationKeys
from inferd.errors import Unavailable
from inferd.storage import installation
from inferd.storage.database import Database

_NAME = "key"


def fingerprint(key: bytes) -> str:
    """Names a key without telling it."""
    return blake2b(b"inferd installation", key=key, digest_size=16).hexdigest()


def adopt(root: Path, given: Path) -> None:
    """Use the key of a file, such as a mounted secret. Raises Unavailable for a second key."""
    try:
        key = given.expanduser().read_bytes()
    except OSError as error:
        raise Unavailable(f"installation_key_file cannot be read: {error.strerror}.") from error
    if len(key) != KEY_BYTES:
        raise Unavailable(f"installation_key_file holds {len(key)} bytes, not {KEY_BYTES}.")
    path = root / KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.read_bytes() != key:
            raise Unavailable(
                f"{KEY_FILE} in {root} and installation_key_file are two keys: tokens that lie "
                "under the first would be lost. Remove the wrong one."
            ) from None
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        os.fsync(descriptor)


async def check(database: Database, keys: InstallationKeys) -> None:
    """Raises Unavailable if the gateways of this database have another key."""
    ours = fingerprint(keys.current)
    async with database.writing() as connection:
        theirs = await installation.first(connection, _NAME, ours)
        if theirs in map(fingerprint, keys.retired):
            # We have the new key, and the one that it replaced.
            await installation.replace(connection, _NAME, ours)
        elif theirs != ours:
            raise Unavailable(
                "The database belongs to an installation with another key. Copy secret.key from "
                "one of its gateways, or point INFERD_INSTALLATION_KEY_FILE at it."
            )


async def replaced(database: Database, key: bytes) -> None:
    """The installation has this key from now on."""
    async with database.writing() as connection:
        await installation.replace(connection, _NAME, fingerprint(key))
