"""Who asks, after authentication."""

from __future__ import annotations

import msgspec

INFERENCE_RUN = "inference:run"
ADMIN = "admin"


class Caller(msgspec.Struct, frozen=True):
    """The account that pays and the token that was shown."""

    account_id: str
    token_id: str
    token_name: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """True if the token carries the scope; admin carries all."""
        return scope in self.scopes or ADMIN in self.scopes
