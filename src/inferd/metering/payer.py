"""Who pays: everybody whose budget a request is taken from."""

from __future__ import annotations

import msgspec


class Payer(msgspec.Struct, frozen=True):
    """An account through one of its tokens, perhaps narrowed by a scoped JWT."""

    account_id: str
    token_id: str
    jwt_id: str | None = None
    """Names the JWT's spending counter; None: there is no JWT."""
    jwt_limit_nanos: int | None = None
    """What may be spent with the JWT; None: no limit of its own."""
