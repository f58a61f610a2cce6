"""What is kept of an API token's secret: a keyed digest to find it, and itself, sealed.

The digest is BLAKE2b, keyed with the installation's key. A fast hash is enough: the secret is 32
random bytes, nothing to guess; the key makes a stolen database useless for checking guesses. The
sealed secret is what scoped JWTs are verified with.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from inferd.access.sealing import NotSealed, seal, unseal
from inferd.storage.rows import TokenRow


class TokenSecrets(msgspec.Struct, frozen=True):
    """The installation's key, and those that it replaced."""

    key: bytes
    retired: tuple[bytes, ...] = ()
    """Tokens under these still open, and move to the key when they are used."""

    def digest(self, secret: str) -> bytes:
        """What a token is found by."""
        return _digest(self.key, secret)

    def retired_digests(self, secret: str) -> list[bytes]:
        """What a token of an earlier key is found by."""
        return [_digest(key, secret) for key in self.retired]

    def seal(self, token_id: str, secret: str) -> bytes:
        """The secret for the database."""
        return seal(self.key, token_id, _bytes(secret))

    def unseal(self, row: TokenRow) -> bytes | None:
        """The secret of a row; None if it never was sealed, or under a key that is gone."""
        if row.sealed is None:
            return None
        for key in (self.key, *self.retired):
            try:
                return unseal(key, row.id, row.sealed)
            except NotSealed:
                continue
        return None

    def is_current(self, row: TokenRow) -> bool:
        """True if the row's secret is sealed under the key."""
        if row.sealed is None:
            return False
        try:
            unseal(self.key, row.id, row.sealed)
        except NotSealed:
            return False
        return True


def _digest(key: bytes, secret: str) -> bytes:
    # hmac.digest would let go of the interpreter lock for a microsecond of work.
    return blake2b(_bytes(secret), key=key, digest_size=32).digest()


def _bytes(secret: str) -> bytes:
    return secret.encode("utf-8", "surrogatepass")
