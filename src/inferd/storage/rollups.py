"""Sums of usage, read from the roll-ups: however many requests a month had, a chart is a few rows.

Days are whole days since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    case,
    cast,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables import tokens
from inferd.storage.tables_operation import sessions
from inferd.storage.tables_usage import SUMS, end_user_rollups, rollups

Grouping = Literal["model", "token", "day", "end_user", "tag", "tier", "account"]


class View(msgspec.Struct, frozen=True):
    """Whose usage somebody may see."""

    account_id: str | None
    """None: all accounts."""
    person_id: str | None = None
    """Only what this person's tokens used."""
    token_id: str | None = None
    """Only what this token used."""


class Slice(msgspec.Struct, frozen=True):
    """Which usage is meant."""

    view: View
    first_day: int
    after_day: int
    """The first day that is not meant any more."""
    model: str | None = None
    token_id: str | None = None
    tag: str | None = None


class UsageSum(msgspec.Struct, frozen=True):
    """Sums over one group."""

    key: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nanos: int
    input_seconds: int
    """This and what follows: millionths."""
    input_characters: int
    image_units: int
    output_seconds: int
    frame_units: int
    compute_seconds: int
    uptime_seconds: int


class LineSum(msgspec.Struct, frozen=True):
    """What one price version was used for in a tier."""

    token_id: str
    """Empty: of all tokens."""
    model: str
    tier: str
    unit: str
    price_id: int
    first_day: int
    last_day: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    quantity: int
    cost_nanos: int


UNIT_SUMS = UsageSum.__struct_fields__[6:]
_AT_ONCE = 500
"""Values of one IN: databases take a few thousand at most."""


async def sums(
    connection: AsyncConnection, by: Grouping, part: Slice, limit: int
) -> Sequence[UsageSum]:
    """Sums by group: days in their order, all else the dearest first."""
    table = end_user_rollups if by == "end_user" else rollups
    key = _key(by)
    cost = _whole(func.sum(table.c.cost_nanos))
    query = select(key, *_sums(table)).group_by(key).limit(limit)
    query = query.order_by(key) if by == "day" else query.order_by(cost.desc(), key)
    found = await connection.execute(_within(query, table, part))
    return [UsageSum(str(key), *values) for key, *values in found]


async def total(connection: AsyncConnection, part: Slice) -> UsageSum:
    """The sum of everything in the slice."""
    query = select(*(func.coalesce(one, 0) for one in _sums(rollups)))
    row = (await connection.execute(_within(query, rollups, part))).one()
    values: tuple[int, ...] = tuple(row)
    return UsageSum("", *values)


async def lines(
    connection: AsyncConnection, part: Slice, *, by_token: bool = False
) -> Sequence[LineSum]:
    """Sums by model, tier and price version: what an invoice is made of."""
    token = rollups.c.token_id if by_token else literal("")
    key = (token, rollups.c.model, rollups.c.tier, rollups.c.unit, rollups.c.price_id)
    days = (func.min(rollups.c.day), func.max(rollups.c.day))
    values = (_whole(func.sum(rollups.c[name])) for name in SUMS)
    grouped = key if by_token else key[1:]
    query = select(*key, *days, *values).group_by(*grouped).order_by(*grouped)
    found = await connection.execute(_within(query, rollups, part))
    return [LineSum(*row) for row in found]


async def first_day(connection: AsyncConnection, view: View) -> int | None:
    """The first day with usage; None: there is none yet."""
    query = _seen(select(func.min(rollups.c.day)), rollups, view)
    found = (await connection.execute(query)).scalar()
    return None if found is None else int(found)


async def spent_by_token(
    connection: AsyncConnection, account_id: str, first_day: int, after_day: int
) -> dict[str, int]:
    """Token → nano-dollars."""
    query = (
        select(rollups.c.token_id, _whole(func.sum(rollups.c.cost_nanos)))
        .where(rollups.c.account_id == account_id)
        .where(rollups.c.day >= first_day, rollups.c.day < after_day)
        .group_by(rollups.c.token_id)
    )
    return {row[0]: row[1] for row in await connection.execute(query)}


async def may_see_token(connection: AsyncConnection, view: View, token_id: str) -> bool:
    """True if the token, revoked or not, is one of those whose usage is seen."""
    query = select(tokens.c.id).where(tokens.c.id == token_id)
    if view.account_id is not None:
        query = query.where(tokens.c.account_id == view.account_id)
    if view.person_id is not None:
        query = query.where(tokens.c.person_id == view.person_id)
    return (await connection.execute(query)).first() is not None


async def token_names(connection: AsyncConnection, token_ids: Sequence[str]) -> dict[str, str]:
    """Token → its name, revoked ones too."""
    names: dict[str, str] = {}
    for start in range(0, len(token_ids), _AT_ONCE):
        asked = tokens.c.id.in_(token_ids[start : start + _AT_ONCE])
        found = await connection.execute(select(tokens.c.id, tokens.c.name).where(asked))
        names.update({row[0]: row[1] for row in found})
    return names


def _key(by: Grouping) -> ColumnElement[Any]:
    keys: dict[Grouping, ColumnElement[Any]] = {
        "model": rollups.c.model,
        "token": rollups.c.token_id,
        "day": rollups.c.day,
        "end_user": end_user_rollups.c.end_user,
        "tag": rollups.c.tag,
        "tier": rollups.c.tier,
        "account": rollups.c.account_id,
    }
    return keys[by]


def _whole(value: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL's sums of big integers are numeric.
    return cast(value, BigInteger)


def _sums(table: Table) -> list[ColumnElement[int]]:
    plain = ("requests", "input_tokens", "cached_tokens", "output_tokens", "cost_nanos")
    return [
        *(_whole(func.sum(table.c[name])) for name in plain),
        *(
            _whole(func.sum(case((table.c.unit == unit, table.c.quantity), else_=0)))
            for unit in UNIT_SUMS
        ),
    ]


def _within(query: Select[*tuple[Any, ...]], table: Table, part: Slice) -> Select[*tuple[Any, ...]]:
    query = _seen(query, table, part.view)
    query = query.where(table.c.day >= part.first_day, table.c.day < part.after_day)
    for name in ("model", "token_id", "tag"):
        wanted = getattr(part, name)
        if wanted is not None:
            query = query.where(table.c[name] == wanted)
    return query


def _own(view: View) -> CompoundSelect[str]:
    """What a person calls with: his tokens of the account, and his sessions there."""
    return union_all(
        *(
            select(made_by.c.id).where(
                made_by.c.account_id == view.account_id, made_by.c.person_id == view.person_id
            )
            for made_by in (tokens, sessions)
        )
    )


def _seen(query: Select[*tuple[Any, ...]], table: Table, view: View) -> Select[*tuple[Any, ...]]:
    if view.account_id is not None:
        query = query.where(table.c.account_id == view.account_id)
    if view.person_id is not None:
        query = query.where(table.c.token_id.in_(_own(view)))
    if view.token_id is not None:
        query = query.where(table.c.token_id == view.token_id)
    return query
