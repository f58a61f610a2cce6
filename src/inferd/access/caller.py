"""Who asks, after authentication."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

import msgspec

from inferd.errors import Forbidden, PaymentRequired

INFERENCE_RUN = "inference:run"
"""Compute, and fetch what was computed."""
MEMBER = "account:member"
"""Manage one's own tokens of the account."""
ACCOUNT_ADMIN = "account:admin"
"""Manage the account: everybody's tokens, members, limits."""
ADMIN = "admin"
"""Manage the installation; carries every other scope."""

Network = IPv4Network | IPv6Network


class Caller(msgspec.Struct, frozen=True):
    """The account that pays and the credential that was shown."""

    account_id: str
    token_id: str
    token_name: str
    scopes: frozenset[str]
    models: frozenset[str] | None = None
    """Models that may be called; None: any."""
    networks: tuple[Network, ...] | None = None
    """Where requests may come from; None: anywhere."""
    expires_unix_ns: int | None = None
    jwt_id: str | None = None
    """A scoped JWT's name, of its spending counter; None: the caller has no JWT."""
    jwt_limit_nanos: int | None = None
    person_id: str | None = None
    """Whose credential it is; None: the account's."""
    suspended: str | None = None
    """Why the account may not spend at the moment; None: it may."""

    def may(self, scope: str) -> bool:
        """True if a scope of the caller is it or carries it."""
        scopes = self.scopes
        if scope in scopes or ADMIN in scopes:
            return True
        return scope == MEMBER and ACCOUNT_ADMIN in scopes

    def require_scope(self, scope: str) -> None:
        """Raise Forbidden without it."""
        if not self.may(scope):
            raise Forbidden(f"This token lacks the scope {scope!r}.")

    def require_funds(self) -> None:
        """Raise PaymentRequired if the account is suspended."""
        if self.suspended is not None:
            raise PaymentRequired(f"The account is suspended: {self.suspended}")

    def require_model(self, model: str) -> None:
        """Raise Forbidden if the caller is restricted to other models."""
        if self.models is not None and model not in self.models:
            raise Forbidden(f"This token may not call the model {model}.", param="model")

    def require_address(self, address: str) -> None:
        """Raise Forbidden if requests may not come from there."""
        if self.networks is not None and not self._from(address):
            raise Forbidden("This token may not be used from this address.")

    def _from(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        # A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d.
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self.networks or ())
