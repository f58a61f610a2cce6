"""Which scopes a role carries, and which a caller may hand on."""

from __future__ import annotations

from inferd.access.caller import ACCOUNT_ADMIN, ADMIN, INFERENCE_RUN, MEMBER, Caller
from inferd.storage.rows import Role

ADMIN_ACCOUNT = "admin"
"""The name of the account that the first start makes; its admins manage the installation."""

SCOPES = (INFERENCE_RUN, MEMBER, ACCOUNT_ADMIN, ADMIN)
_MEMBER = frozenset({INFERENCE_RUN, MEMBER})
_ADMIN = _MEMBER | {ACCOUNT_ADMIN}
_OPERATOR = _ADMIN | {ADMIN}


def scopes_of(role: Role, account_name: str) -> frozenset[str]:
    """What a person may in an account where he has this role."""
    if role == "member":
        return _MEMBER
    return _OPERATOR if account_name == ADMIN_ACCOUNT else _ADMIN


def grantable(caller: Caller) -> frozenset[str]:
    """What the caller may give to a token."""
    if caller.may(ADMIN):
        return _OPERATOR
    if caller.may(ACCOUNT_ADMIN):
        return _ADMIN
    return _MEMBER if caller.may(MEMBER) else frozenset()
