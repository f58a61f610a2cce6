"""Which limits apply to a request. Rules in, counters and their bounds out.

A rule names an account, a token and a model, each one of: a name; `*`, each on its own; None, all
together. What it names decides what is counted together, and every count holds by itself. Of
several rules that count alike the most particular one decides, each measure apart:
`acc_1, None, *` replaces `*, None, *` for that account, and holds beside `acc_1, None, None`.
What an account sets for itself only narrows: it replaces nothing that the installation's admin set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from inferd.access.window import Bounds, Measure

EACH = "*"
Key = tuple[str | None, str | None, str | None]
"""Account, token, model: what one counter counts."""


class Rule(msgspec.Struct, frozen=True):
    """One row of limits."""

    account_id: str | None = None
    token_id: str | None = None
    model: str | None = None
    concurrent_requests: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    own: bool = False
    """The account set it for itself."""


def has_rate(rule: Rule) -> bool:
    """True if it bounds what is let in within a minute."""
    return rule.requests_per_minute is not None or rule.tokens_per_minute is not None


class Applied(NamedTuple):
    """One counter that a request must pass."""

    key: Key
    bounds: Bounds


class Rules:
    """All rules, indexed."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._by_key: dict[Key, Rule] = {}
        self._own_by_key: dict[Key, Rule] = {}
        shapes: set[tuple[bool, bool, bool]] = set()
        for rule in rules:
            key = (rule.account_id, rule.token_id, rule.model)
            (self._own_by_key if rule.own else self._by_key)[key] = rule
            shapes.add((key[0] is not None, key[1] is not None, key[2] is not None))
        # The narrowest first: of two that refuse alike, it is the one that is named.
        self._shapes = sorted(shapes, key=lambda shape: (-sum(shape), shape))

    def applied(self, account_id: str, token_id: str, model: str) -> tuple[Applied, ...]:
        """The counters of a request, with what each may reach."""
        found: list[Applied] = []
        for shape in self._shapes:
            names = (account_id, token_id, model)
            key = tuple(name if has else None for name, has in zip(names, shape, strict=True))
            bounds = _bounds(self._by_key, key[0], key[1], key[2])
            if self._own_by_key:
                bounds = narrower(bounds, _bounds(self._own_by_key, key[0], key[1], key[2]))
            if any(bound is not None for bound in bounds):
                found.append(Applied((key[0], key[1], key[2]), bounds))
        return tuple(found)


def _bounds(
    by_key: Mapping[Key, Rule], account: str | None, token: str | None, model: str | None
) -> Bounds:
    rules = [
        rule
        for t in _particular_first(token)
        for a in _particular_first(account)
        for m in _particular_first(model)
        if (rule := by_key.get((a, t, m))) is not None
    ]
    return Bounds(
        _first([rule.concurrent_requests for rule in rules]),
        _first([rule.requests_per_minute for rule in rules]),
        _first([rule.tokens_per_minute for rule in rules]),
    )


def narrower(one: Bounds, other: Bounds) -> Bounds:
    """Of each measure the lower bound."""
    pairs = zip(one, other, strict=True)
    return Bounds(*(min((b for b in pair if b is not None), default=None) for pair in pairs))


def _particular_first(name: str | None) -> tuple[str | None, ...]:
    return (None,) if name is None else (name, EACH)


def _first(values: Sequence[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


def describe(measure: Measure, limit: int, key: Key) -> str:
    """The limit in words, for whoever hit it."""
    account, token, model = key
    whose = "of this token" if token else "of this account" if account else ""
    which = f"on {model}" if model else "on all models together"
    if not account and not token:
        whose = "of all accounts together"
    return f"{limit} {measure} {whose} {which}"
