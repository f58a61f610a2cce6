"""Grammars: what they let through, what is refused and why, and that it costs little."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest

from inferd.engines.closed_schema import closed
from inferd.engines.grammar import Follower, Grammars, assemble, constraint_rule, tools_rules
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_generation import Constraint, Tool

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}


def grammar(constraint: Constraint) -> str:
    text = assemble(constraint_rule(constraint), "", ends=(2, 0))
    Grammars().check(text, scope="", param="response_format")
    return text


def schema(**fields: Any) -> Constraint:
    return Constraint("json_schema", fields)


def follows(text: str, answer: str) -> bool:
    follower = Follower(text)
    try:
        for character in answer:
            follower.feed(character)
    except EngineFailed:
        return False
    return follower.complete


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (Constraint("json_object"), '{"a": [1, {"b": null}]}', "[1]"),
        (Constraint("json_object"), "{}", '{\n\n "a": 1}'),
        (schema(**CITY), '{"city": "Köln", "days": 3}', '{"days": 3}'),
        (schema(**CITY), '{"city": "a"}', '{"city": "a", "other": 1}'),
        (Constraint("regex", pattern=r"[0-9]{4}-[0-9]{2}"), "2026-11", "2026-1"),
        (Constraint("regex", pattern="a/b\\/c"), "a/b/c", "a/b"),
        (schema(enum=["x", 1]), '"x"', '"y"'),
    ],
)
def test_an_answer_is_held_to_its_format(constraint: Constraint, good: str, bad: str) -> None:
    text = grammar(constraint)
    assert follows(text, good)
    assert not follows(text, bad)


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        found = {"type": "array", "items": found}
    return found


@pytest.mark.parametrize(
    ("constraint", "sentence"),
    [
        (schema(dependentSchemas={"a": {}}), "dependentSchemas"),
        (schema(**{"not": {}, "contains": {}}), "contains, not|not, contains"),
        (schema(type="integer", minimum=5, maximum=3), "minimum"),
        (schema(type="string", pattern="foo**"), "multiple repeat"),
        (schema(type="string", pattern="(x{1,1000}){1,1000}"), "counts"),
        (schema(type="array", minItems=10**9), "at most 10000"),
        (schema(type="array", maxItems=3000, items={"maxItems": 3000}), "multiplied"),
        (schema(**{"$ref": "#"}), "cannot be enforced"),
        (schema(**{"$ref": "http://example.com/x"}), "cannot be enforced"),
        (schema(enum=[str(n) for n in range(10_000)]), "parts"),
        (Constraint("json_schema", deep(70)), "nested deeper"),
        (Constraint("json_schema", schema=False), "not"),
        (Constraint("regex", pattern="(("), "regex"),
        (Constraint("regex", pattern="(?=a)"), "regex"),
        (Constraint("regex", pattern="a\0b"), "null"),
        (Constraint("regex", pattern="a" * 5000), "longer"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_reason(
    constraint: Constraint, sentence: str
) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest, match=sentence) as caught:
        grammar(constraint)
    assert caught.value.param == "response_format"
    assert time.process_time() - began < 2


def test_a_tool_without_strict_leaves_out_what_cannot_be_enforced() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    for strict in (False, True):
        text = assemble("call", tools_rules((Tool("f", "", parameters, strict),)), ends=())
        if strict:
            with pytest.raises(BadRequest, match="uniqueItems"):
                Grammars().check(text, scope="", param="tools")
        else:
            Grammars().check(text, scope="", param="tools")


def test_calls_name_their_tools_and_fit_their_schemas() -> None:
    text = assemble("call", tools_rules((Tool("f", "", CITY), Tool("g"))), ends=(2,))
    end = "}\n</tool_call>"
    assert follows(text, '{"name": "f", "arguments": {"city": "a"}' + end)
    assert follows(text, '{"name": "g", "arguments": {}' + end)
    assert not follows(text, '{"name": "g", "arguments": {"x": 1}' + end)
    assert not follows(text, '{"name": "h", "arguments": {}' + end)


def test_a_large_schema_is_compiled_once_for_each_account() -> None:
    fields = {f"k{n}": {"type": "string", "enum": ["a", "b"]} for n in range(800)}
    text = assemble(constraint_rule(schema(type="object", properties=fields)), "", ends=())
    grammars = Grammars()

    def seconds(scope: str) -> float:
        began = time.process_time()
        grammars.check(text, scope=scope, param="p")
        return time.process_time() - began

    first = seconds("a")
    assert seconds("a") < first / 3
    assert seconds("b") > first / 3


class TestClosed:
    def test_objects_that_list_their_properties_have_no_others(self) -> None:
        inner: dict[str, Any] = {"type": "object", "properties": {"x": {}}}
        found = closed({"properties": {"a": {"type": "array", "items": inner}}})
        assert found["additionalProperties"] is False
        assert found["properties"]["a"]["items"]["additionalProperties"] is False

    OPEN: ClassVar[list[dict[str, Any]]] = [
        {"type": "object"},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "patternProperties": {"^b": {}}},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"$ref": "#/$defs/x", "properties": {"a": {}}, "$defs": {"x": {"properties": {}}}},
    ]

    @pytest.mark.parametrize("open_schema", OPEN)
    def test_what_says_more_or_is_put_together_stays(self, open_schema: dict[str, Any]) -> None:
        assert closed(open_schema) == open_schema
