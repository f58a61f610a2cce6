"""Everything at once, and at random: slow, so `make hostile` runs it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from tests.e2e.steps import eventually
from tests.hostile.attack import BASES, CHAT, JSON, Attack, attack
from tests.hostile.corpus import CORPUS
from tests.hostile.siege import Siege, is_idle
from tests.hostile.wire import connected, port_of, request

pytestmark = [
    pytest.mark.engine,
    pytest.mark.hostile,
    pytest.mark.asyncio(loop_scope="package"),
]

AT_ONCE = 32
BUSY = (429, 503)
"""What anybody may be told while others are served."""


async def storm(siege: Siege, attacks: list[Attack]) -> tuple[Counter[int], list[str]]:
    """Send them, so many at once; the statuses, and what was wrong."""
    faults: list[str] = []
    told: Counter[int] = Counter()
    waiting = iter(attacks)

    async def attacker() -> None:
        for one in waiting:
            answer, _ = await siege.strike(one)
            told[answer.status] += 1
            # A stream that waited for its turn has sent its headers; the refusal is an event then.
            late = answer.status == 200 and b'"error_type"' in answer.body
            if not late and answer.status not in (one.status, *BUSY):
                faults.append(f"{one.name[:80]}: {answer.status}, not {one.status}")

    async with siege.beside_a_neighbour(faults), asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(attacker())
    await eventually(lambda: is_idle(siege))
    return told, faults + await siege.wounds()


async def test_all_attacks_at_once(siege: Siege) -> None:
    attacks = [one for name, group in CORPUS.items() if name != "large" for one in group]
    random.Random(1).shuffle(attacks)
    told, faults = await storm(siege, attacks)
    assert not faults, "\n".join(faults)
    assert told[400] > len(attacks) / 2


async def test_schemas_and_patterns_at_random_never_break_the_engine(siege: Siege) -> None:
    """Whatever the caller wants the answer to look like, it is 200 or 400."""
    dice = Dice(random.Random(2))
    attacks = [_constrained(dice, number) for number in range(1500)]
    told, faults = await storm(siege, [one._replace(status=400) for one in attacks])
    broken = [fault for fault in faults if not fault.endswith(": 200, not 400")]
    assert not broken, "\n".join(broken)
    assert told[200] > 100
    assert told[400] > 100


async def test_three_thousand_idle_connections_take_nothing_from_others(siege: Siege) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n"
    faults: list[str] = []
    async with siege.beside_a_neighbour(faults), AsyncExitStack() as stack:
        for number in range(3000):
            _, writer = await stack.enter_async_context(connected(port_of(siege.server.url)))
            writer.write(head if number % 2 else b"")
        sound = msgspec.json.encode({**BASES[CHAT], "model": siege.model})
        answer, seconds = await siege.strike(attack("sound", CHAT, sound, 200))
        assert answer.status == 200
        assert seconds < 5
    assert not faults + await siege.wounds()


async def test_bodies_that_never_end_are_bounded_together(siege: Siege) -> None:
    """A token cannot fill the machine's memory with what it has not finished sending."""
    headers = {**JSON, "authorization": f"Bearer {siege.attacker}", "content-length": "9999999"}
    raw = request("POST", CHAT, headers, b" " * 9_900_000)

    async def send(writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(raw)
            await asyncio.wait_for(writer.drain(), 10)
        except (ConnectionError, TimeoutError):
            return

    faults: list[str] = []
    async with siege.beside_a_neighbour(faults), AsyncExitStack() as stack:
        for _ in range(60):
            _, writer = await stack.enter_async_context(connected(port_of(siege.server.url)))
            await send(writer)
        faults += await siege.wounds()
    assert not faults


def _constrained(dice: Dice, number: int) -> Attack:
    body: dict[str, Any] = {**BASES[CHAT], "max_tokens": 1 + number % 12, "temperature": number % 3}
    if number % 3 == 0:
        body["response_format"] = {"type": "regex", "regex": dice.pattern()}
    elif number % 3 == 1:
        wanted = {"name": "s", "schema": dice.schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    else:
        function = {"name": "f", "parameters": {"properties": {"a": dice.schema()}}}
        body["tools"] = [{"type": "function", "function": function}]
        body["tool_choice"] = "required"
    return attack(f"random {number}: {body}", CHAT, body)


# fmt: off
_PIECES = (
    "a", "b", "[a-z]", "[^a]", ".", r"\d", r"\w", r"\s", "a{2,5}", "(a+)+", "a*?", "(?i)a", "^a$",
    r"\b", r"\n", "/", r"\/", "a??", r"[\]]", r"\x41", "é", "(a|b)", "(?:a|)", "|", '"', "{", "}",
    "$", "^", "&", "~", "#", "[a&&b]", "(?s).", "(?x)a", "(?P<n>a)", r"\p{L}", r"\u0041",
    "[[:alpha:]]", r"\R", "\U0001f600",
)
# fmt: on
_REPEATS = ("", "", "", "*", "+", "?", "{3}", "{0,99}", "{,5}")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


class Dice:
    """Schemas and patterns, sound and not."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def pattern(self) -> str:
        pick = self._dice.choice
        return "".join(pick(_PIECES) + pick(_REPEATS) for _ in range(self._dice.randint(1, 5)))

    def schema(self, depth: int = 0) -> Any:
        if depth > 3 or self._dice.random() < 0.1:
            return self._leaf()
        return dict(self._fields(depth))

    def _leaf(self) -> Any:
        leaves: list[Any] = [{}, True, False, {"type": "null"}, {"const": 10**20}, {"const": {}}]
        leaves += [{"enum": [1, "a", None, 1.0, {"a": 1}]}, {"type": "boolean"}, {"$ref": "#"}]
        return self._dice.choice(leaves)

    def _maybe(self, chance: float) -> bool:
        return self._dice.random() < chance

    def _fields(self, depth: int) -> Iterator[tuple[str, Any]]:
        pick = self._dice.choice
        kinds: list[Any] = ["string", "integer", "number", "array", "object", ["string", "null"]]
        yield "type", pick(kinds)
        if self._maybe(0.3):
            yield "pattern", self.pattern()
        if self._maybe(0.2):
            yield "format", pick(["date", "uuid", "email", "uri", "regex", "duration", "unknown"])
        for name in _COUNTS:
            if self._maybe(0.12):
                yield name, pick([0, 1, 5, 100, 9999, -1, 1.5, 10**7, 10**12])
        for name in _BOUNDS:
            if self._maybe(0.12):
                yield name, pick([0, 1, -1, 3.5, 1e10, -1e-5, 10**15, 10**30, 1e308])
        yield from self._nested(depth + 1)

    def _nested(self, depth: int) -> Iterator[tuple[str, Any]]:
        if self._maybe(0.4):
            names = self._dice.sample(["a", "x y", "é", "\n", '"', "/", "<tool_call>", ""], 2)
            yield "properties", {name: self.schema(depth) for name in names}
            yield "required", names[:1]
        for name in ("items", "additionalProperties", "not", "if", "contains", "propertyNames"):
            if self._maybe(0.1):
                yield name, self.schema(depth)
        for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if self._maybe(0.12):
                yield name, [self.schema(depth) for _ in range(self._dice.randint(0, 3))]
        if self._maybe(0.1):
            yield "$ref", self._dice.choice(["#", "#/properties/a", "#/nowhere", "a", "http://x/y"])
