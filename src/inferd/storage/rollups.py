"""Sums of usage, read from the roll-ups: however many requests a month had, a chart is a few rows.

Days are whole days since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    cast,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from inferd.storage.tables import accounts, tokens
from inferd.storage.tables_operation import sessions
from inferd.storage.tables_usage import SUMS, account_rollups, end_user_rollups, rollups

Grouping = Literal["model", "token", "day", "tag", "tier", "account"]


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


_FIGURES = UsageSum.__struct_fields__[1:]
_KEYS: dict[Grouping, str] = {
    "model": "model",
    "token": "token_id",
    "day": "day",
    "tag": "tag",
    "tier": "tier",
    "account": "account_id",
}
_AT_ONCE = 500
"""Values of one IN: databases take a few thousand at most."""


async def sums(connection: AsyncConnection, by: Grouping, part: Slice) -> list[UsageSum]:
    """Sums by group: days in their order, all else the dearest first."""
    table = _table(by, part)
    key = table.c[_KEYS[by]]
    found = await _by_unit(connection, key, table, part)
    if by == "day":
        return sorted(found, key=lambda one: int(one.key))
    return sorted(found, key=lambda one: (-one.cost_nanos, one.key))


async def end_users(connection: AsyncConnection, part: Slice, limit: int) -> list[UsageSum]:
    """Sums by end user, the dearest first: there may be more of them than fit into memory."""
    table = end_user_rollups
    cost = _whole(func.sum(table.c.cost_nanos))
    key = table.c.end_user
    dearest = select(key).group_by(key).order_by(cost.desc(), key).limit(limit)
    chosen = _within(dearest, table, part).subquery()
    found = await _by_unit(connection, key, table, part, key.in_(select(chosen.c.end_user)))
    return sorted(found, key=lambda one: (-one.cost_nanos, one.key))


async def total(connection: AsyncConnection, part: Slice) -> UsageSum:
    """The sum of everything in the slice."""
    found = await _by_unit(connection, literal(""), _table("model", part), part)
    return found[0] if found else UsageSum("", *[0] * len(UsageSum.__struct_fields__[1:]))


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
    everybody = view.person_id is None and view.token_id is None
    table = account_rollups if everybody else rollups
    query = seen(select(func.min(table.c.day)), table, view)
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
    return await _names(connection, tokens, token_ids)


async def account_names(connection: AsyncConnection, account_ids: Sequence[str]) -> dict[str, str]:
    """Account → its name; of a deleted one what is left of it."""
    return await _names(connection, accounts, account_ids)


async def _names(connection: AsyncConnection, of: Table, ids: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        asked = of.c.id.in_(ids[start : start + _AT_ONCE])
        found = await connection.execute(select(of.c.id, of.c.name).where(asked))
        names.update({row[0]: row[1] for row in found})
    return names


def _table(by: Grouping, part: Slice) -> Table:
    """The coarsest roll-ups that can tell it."""
    view = part.view
    narrow = (view.person_id, view.token_id, part.token_id, part.tag)
    whole = by in ("day", "model", "account") and narrow == (None,) * len(narrow)
    return account_rollups if whole else rollups


def _whole(value: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL's sums of big integers are numeric.
    return cast(value, BigInteger)


async def _by_unit(
    connection: AsyncConnection,
    key: ColumnElement[Any],
    table: Table,
    part: Slice,
    *which: ColumnElement[bool],
) -> list[UsageSum]:
    """Sums by key and unit, folded: one pass over the rows, however many units there are."""
    query = select(key, table.c.unit, *(_whole(func.sum(table.c[name])) for name in SUMS))
    grouped = (table.c.unit,) if isinstance(key, BindParameter) else (key, table.c.unit)
    query = _within(query, table, part).where(*which).group_by(*grouped)
    found: dict[str, dict[str, int]] = {}
    for one, unit, *values in await connection.execute(query):
        summed = found.setdefault(str(one), dict.fromkeys(_FIGURES, 0))
        for name, value in zip(SUMS, values, strict=True):
            # What is billed by tokens alone has no quantity.
            figure = unit if name == "quantity" else name
            if figure:
                summed[figure] += value
    return [UsageSum(one, **summed) for one, summed in found.items()]


def _within(query: Select[*tuple[Any, ...]], table: Table, part: Slice) -> Select[*tuple[Any, ...]]:
    query = seen(query, table, part.view)
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


def seen(query: Select[*tuple[Any, ...]], table: Table, view: View) -> Select[*tuple[Any, ...]]:
    """What of a table of accounts and tokens somebody may see."""
    if view.account_id is not None:
        query = query.where(table.c.account_id == view.account_id)
    if view.person_id is not None:
        query = query.where(table.c.token_id.in_(_own(view)))
    if view.token_id is not None:
        query = query.where(table.c.token_id == view.token_id)
    return query
