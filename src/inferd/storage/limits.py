"""Limits, and requests for higher ones, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.errors import TooManyRequests
from inferd.storage.tables import tokens
from inferd.storage.tables_limits import limit_requests, limits

Status = Literal["pending", "granted", "rejected"]


class LimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """One limit. None in a name: all together; `*`: each on its own. None in a bound: none."""

    account_id: str | None = None
    token_id: str | None = None
    model: str | None = None
    concurrent_requests: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    own: bool = False
    """The account set it, beside what the installation's admin set."""

    @property
    def id(self) -> str:
        """One row for each combination of names, and one of the account's own."""
        names = (self.account_id, self.token_id, self.model, "own" if self.own else None)
        return "|".join(name or "" for name in names)

    @property
    def says_nothing(self) -> bool:
        """True if nothing is bounded."""
        bounds = (self.concurrent_requests, self.requests_per_minute, self.tokens_per_minute)
        return all(bound is None for bound in bounds)


class LimitRequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an account asks for."""

    id: str
    account_id: str
    rate_limit: int
    tpm_rate_limit: int | None
    reason: str
    status: Status = "pending"
    answer: str | None = None
    created_unix_ns: int
    resolved_unix_ns: int | None = None


_FIELDS = [limits.c[name] for name in LimitRow.__struct_fields__]


async def every(connection: AsyncConnection) -> Sequence[LimitRow]:
    """All limits."""
    query = select(*_FIELDS).order_by(limits.c.id)
    return [LimitRow(**row) for row in (await connection.execute(query)).mappings()]


async def put(connection: AsyncConnection, row: LimitRow, now_unix_ns: int) -> None:
    """Set a limit in place of the one for the same names; one without bounds is removed."""
    await connection.execute(delete(limits).where(limits.c.id == row.id))
    if not row.says_nothing:
        values = msgspec.structs.asdict(row)
        await connection.execute(
            insert(limits).values(id=row.id, changed_unix_ns=now_unix_ns, **values)
        )


async def account_of_token(connection: AsyncConnection, token_id: str) -> str | None:
    """Whose a live token is."""
    query = select(tokens.c.account_id).where(
        tokens.c.id == token_id, tokens.c.revoked_unix_ns.is_(None)
    )
    return (await connection.execute(query)).scalar()


async def ask(connection: AsyncConnection, row: LimitRequestRow) -> None:
    """Store a request. Raises TooManyRequests while another one of the account is pending."""
    try:
        await connection.execute(insert(limit_requests).values(**msgspec.structs.asdict(row)))
    except IntegrityError:
        raise TooManyRequests(
            "A request for a higher limit is pending already; it must be answered first."
        ) from None


async def asked(
    connection: AsyncConnection, *, status: Status | None, count_max: int
) -> Sequence[LimitRequestRow]:
    """Requests, the newest first."""
    query = select(limit_requests).order_by(limit_requests.c.id.desc()).limit(count_max)
    if status is not None:
        query = query.where(limit_requests.c.status == status)
    return [LimitRequestRow(**row) for row in (await connection.execute(query)).mappings()]


async def resolve(
    connection: AsyncConnection,
    request_id: str,
    status: Status,
    answer: str | None,
    now_unix_ns: int,
) -> LimitRequestRow | None:
    """Grant or reject a pending request; None if there is none of this id."""
    result = await connection.execute(
        update(limit_requests)
        .where(limit_requests.c.id == request_id, limit_requests.c.status == "pending")
        .values(status=status, answer=answer, resolved_unix_ns=now_unix_ns)
        .returning(*limit_requests.c)
    )
    row = result.mappings().first()
    return None if row is None else LimitRequestRow(**row)
