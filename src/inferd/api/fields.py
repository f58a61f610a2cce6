"""Fields of the contract that are known and not honoured yet."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

NotYet = Any
"""Any JSON, so that the refusal can name the field whatever its value."""


@cache
def not_yet(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """Names of the fields that are typed NotYet."""
    return tuple(field.name for field in msgspec.structs.fields(struct) if field.type is Any)
