"""Tools, schemas, patterns, templates and texts that are built to break what reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.hostile.attack import (
    BASES,
    CHAT,
    COMPLETIONS,
    MESSAGES,
    NATIVE,
    RESPONSES,
    Attack,
    attack,
    chat,
    refusal_status,
    with_text,
)

Json = dict[str, Any]


def function(name: Any = "f", parameters: Any = None) -> Json:
    """A tool of a request."""
    told: Json = {"name": name}
    if parameters is not None:
        told["parameters"] = parameters
    return {"type": "function", "function": told}


NAMES: list[Any] = [
    "",
    "a b",
    "a" * 65,
    "a" * 1_000_000,
    "é",
    "f\n",
    "f\u0000",
    '"}}',
    "../x",
    "f;reboot",
    "<tool_call>",
    "__class__.x",
    None,
    1,
    [],
]


def _tools() -> Iterator[Attack]:
    for name in NAMES:
        yield chat(f"tool named {str(name)[:16]!r}", tools=[function(name)])
        flat = {**BASES[RESPONSES], "tools": [{"type": "function", "name": name}]}
        yield attack(f"responses: tool named {str(name)[:16]!r}", RESPONSES, flat)
        own = {**BASES[MESSAGES], "tools": [{"name": name, "input_schema": {"type": "object"}}]}
        yield attack(f"messages: tool named {str(name)[:16]!r}", MESSAGES, own)
    lists: dict[str, Any] = {
        "two of one name": [function(), function()],
        "129": [function(f"f{index}") for index in range(129)],
        "100 000": [function(f"f{index}") for index in range(100_000)],
        "text": ["f"],
        "null": [None],
        "object": {"f": function()},
        "no function": [{"type": "function"}],
        "web_search": [{"type": "web_search"}],
        "code_interpreter": [{"type": "code_interpreter"}],
        "mcp": [{"type": "mcp", "server_url": "http://169.254.169.254/"}],
        "type of 1 MB": [{"type": "x" * 1_000_000}],
        "parameters of text": [function(parameters="{}")],
        "parameters of a list": [function(parameters=[])],
        "description of a number": [
            {"type": "function", "function": {"name": "f", "description": 1}}
        ],
    }
    for name, tools in lists.items():
        yield chat(f"tools: {name}", tools=tools)
    yield chat(
        "tools: parameters of no object", tools=[function(parameters={"type": "string"})], echo=200
    )
    deep = '{"type": "namespace", "tools": [' * 500 + "]}" * 500
    raw = with_text(RESPONSES, "tools", f"[{deep}]")
    yield attack("responses: deep namespaces", RESPONSES, raw)
    wide = {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}] * 128}
    yield attack(
        "responses: 16 384 functions", RESPONSES, {**BASES[RESPONSES], "tools": [wide] * 128}
    )


def _choices() -> Iterator[Attack]:
    choices: list[Any] = [
        "f",
        "any",
        1,
        [],
        {"type": "function"},
        {"type": "function", "function": {"name": "g"}},
        {"type": "function", "function": {"name": 1}},
        {"type": "tool", "name": "f"},
        "x" * 1_000_000,
    ]
    for choice in choices:
        yield chat(f"tool_choice {str(choice)[:40]}", tools=[function()], tool_choice=choice)
    yield chat("a call is required and there are no tools", tool_choice="required")
    yield chat("parallel_tool_calls of text", parallel_tool_calls="yes")


def _nested(depth: int) -> str:
    """A schema of so many levels of objects."""
    opening, closing = '{"type": "object", "properties": {"a": ', '}, "required": ["a"]}'
    return opening * depth + '{"type": "string"}' + closing * depth


def _deep() -> Iterator[Attack]:
    """Depths around which one part of a server can read what the next one cannot write."""
    for depth in (33, 100, 160, 200, *range(230, 260), 300, 400, 480, *range(485, 500), 1000, 5000):
        schema = _nested(depth)
        wanted = f'{{"type": "json_schema", "json_schema": {{"schema": {schema}}}}}'
        name = f"schema of depth {depth}"
        yield attack(name, CHAT, with_text(CHAT, "response_format", wanted))
        tool = f'[{{"type": "function", "function": {{"name": "f", "parameters": {schema}}}}}]'
        yield attack(f"tool {name}", CHAT, with_text(CHAT, "tools", tool), echo=0)
        tool = f'[{{"name": "f", "input_schema": {schema}}}]'
        yield attack(f"messages: tool {name}", MESSAGES, with_text(MESSAGES, "tools", tool), echo=0)
        call = f'[{{"type": "tool_use", "id": "x", "name": "f", "input": {schema}}}]'
        said = f'[{{"role": "assistant", "content": {call}}}]'
        raw = with_text(MESSAGES, "messages", said)
        yield attack(f"messages: input of depth {depth}", MESSAGES, raw)


SCHEMAS: dict[str, Any] = {
    "refers to itself": {"$ref": "#"},
    "refers to another that refers back": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "refers to nothing": {"$ref": "#/$defs/none"},
    "refers to a host": {"$ref": "http://127.0.0.1:9/x.json"},
    "refers to a file": {"$ref": "file:///etc/passwd"},
    "10 000 values": {"enum": [f"v{index}" for index in range(10_000)]},
    "100 000 properties": {"properties": {f"p{i}": {} for i in range(100_000)}},
    "3 000 alternatives of objects": {
        "anyOf": [{"properties": {"a": {"type": "string"}}} for _ in range(3000)],
    },
    "an enum of 1 MB": {"enum": ["v" * 1_000_000]},
    "a const of 1 MB": {"const": "v" * 1_000_000},
    "a pattern that repeats a repeat": {"type": "string", "pattern": "foo**"},
    "an open pattern": {"type": "string", "pattern": "(("},
    "an empty pattern": {"type": "string", "pattern": ""},
    "a pattern that looks back": {"type": "string", "pattern": r"(a)\1"},
    "a pattern that looks ahead": {"type": "string", "pattern": "(?=a)a"},
    "a pattern of a million": {"type": "string", "pattern": "a{1000000}"},
    "a pattern of nested counts": {"type": "string", "pattern": "((a{100}){100}){100}"},
    "a pattern of 100 KB": {"type": "string", "pattern": "a" * 100_000},
    "a pattern of a number": {"type": "string", "pattern": 1},
    "type of nonsense": {"type": "nonsense"},
    "type of a number": {"type": 1},
    "enum of nothing": {"enum": []},
    "what nothing is": {"not": {}},
    "minLength of 1e9": {"type": "string", "minLength": 1_000_000_000},
    "minItems of 1e9": {"type": "array", "minItems": 1_000_000_000},
    "minItems of -1": {"type": "array", "minItems": -1},
    "multipleOf 0": {"type": "number", "multipleOf": 0},
    "bounds that cross": {"type": "integer", "minimum": 5, "maximum": 1},
    "required of text": {"type": "object", "required": "a"},
    "format of nonsense": {"type": "string", "format": "nonsense"},
}


NEVER_CALLED = ("what nothing is", "format of nonsense")
"""What cannot be enforced: left out of a tool's schema unless it is strict, refused elsewhere."""

_ALTERNATIVES = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(30)}
_PAIRS = {
    f"a{i}": {"properties": {name: {"$ref": f"#/$defs/a{i + 1}"} for name in "xy"}}
    for i in range(30)
}
COSTLY: dict[str, tuple[int, Any]] = {
    "2 ** 30 alternatives": (200, {"$defs": {**_ALTERNATIVES, "a30": {}}, "$ref": "#/$defs/a0"}),
    "2 ** 30 properties": (200, {"$defs": {**_PAIRS, "a30": {}}, "$ref": "#/$defs/a0"}),
    "a pattern with many states": (200, {"type": "string", "pattern": "(a|b)*a(a|b){900}"}),
    "a pattern with more states": (200, {"type": "string", "pattern": "(.*a.*b.*){100}"}),
    "patterns that must all hold": (
        400,
        {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{i}}}"} for i in range(3, 14)]},
    ),
    "a large step": (400, {"type": "integer", "multipleOf": 1_000_000_007}),
    "a tiny step": (400, {"type": "number", "multipleOf": 1e-300}),
    "minItems of 1e6": (400, {"type": "array", "minItems": 1_000_000}),
    "maxItems of 1e9": (400, {"type": "array", "maxItems": 1_000_000_000}),
    "minProperties of 1e9": (400, {"type": "object", "minProperties": 1_000_000_000}),
    "minItems that multiply": (
        400,
        {
            "type": "array",
            "minItems": 3000,
            "items": {"type": "array", "minItems": 3000, "items": {"minItems": 3000}},
        },
    ),
}
"""Schemas that are small and may cost much, with the status of each."""


def _costly() -> Iterator[Attack]:
    for name, (status, schema) in COSTLY.items():
        wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        yield chat(f"costly: {name}", status, response_format=wanted, max_tokens=8, echo=400)
    for pattern in ("(a|b)*a(a|b){900}", "(.*a.*b.*){100}", "(x+x+)+y", r"(\w+\s?){1,999}[.]"):
        wanted = {"type": "regex", "regex": pattern}
        yield chat(f"costly: {pattern}", 200, response_format=wanted, max_tokens=8, echo=0)


def _formats() -> Iterator[Attack]:
    for name, schema in SCHEMAS.items():
        wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        yield chat(f"schema: {name}", response_format=wanted, echo=400)
        holder = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
        if name != "refers to itself":
            status = 200 if name in NEVER_CALLED else 400
            tools = [function(parameters=holder)]
            yield chat(f"tool schema: {name}", status, tools=tools, echo=0)
            tools[0]["function"]["strict"] = True
            yield chat(f"strict tool schema: {name}", tools=tools, echo=0)
    shapes: list[Any] = [
        "",
        "json_object",
        [],
        False,
        {},
        {"json_object": False},
        {"type": False},
        {"type": ""},
        {"type": "JSON_OBJECT"},
        {"type": "grammar", "grammar": 'start: "x"'},
        {"type": "structural_tag"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": ""},
        {"type": "json_schema", "json_schema": None},
        {"type": "json_schema", "json_schema": []},
        {"type": "json_schema", "json_schema": {}},
        {"type": "json_schema", "json_schema": {"schema": ""}},
        {"type": "json_schema", "json_schema": {"schema": []}},
        {"type": "json_schema", "json_schema": {"schema": False}},
        {"type": "json_schema", "json_schema": {"name": "n" * 257, "schema": {}}},
        {"type": "regex"},
        {"type": "regex", "regex": ""},
        {"type": "regex", "regex": None},
        {"type": "regex", "regex": 1},
    ]
    for shape in shapes:
        yield chat(f"response_format {str(shape)[:60]}", response_format=shape)
    for path in (COMPLETIONS, NATIVE):
        broken: list[Any] = [{"type": "x"}, "json", {"type": 1}]
        for shape in broken:
            body = {**BASES[path], "response_format": shape}
            yield attack(f"{path} response_format {shape}", path, body, refusal_status(path))
    for schema in ('""', "null", "[]"):
        text = f'{{"format": {{"type": "json_schema", "name": "s", "schema": {schema}}}}}'
        yield attack(f"responses: schema {schema}", RESPONSES, with_text(RESPONSES, "text", text))


def _patterns() -> Iterator[Attack]:
    bad = {
        "a repeat repeated": "foo**",
        "an open group": "(",
        "an open class": "[",
        "a lone repeat": "*",
        "a lone backslash": "a\\",
        "nested counts": "((((a{99}){99}){99}){99})",
        "a huge count": "a{4294967296}",
        "a count of 5 000 digits": "a{" + "9" * 5000 + "}",
        "counts that cross": "a{5,1}",
        "a million alternatives": "|".join("ab" for _ in range(300_000)),
        "deep groups": "(" * 2000 + "a" + ")" * 2000,
        "looks ahead": "(?=a)",
        "looks behind": "(?<!a)b",
        "refers back": r"(a)\1",
        "recursion": "(?1)",
        "Lark's own words": '%import common.WORD\n%json {"type": "string"}',
        "condition": "(a)?(?(1)b|c)",
        "atomic": "(?>a+)b",
        "letters of nonsense": r"\p{Nonsense}",
        "code": "(?{exit})",
        "4 097 characters": "a" * 4097,
        "NUL": "a\u0000b",
    }
    for name, pattern in bad.items():
        wanted = {"type": "regex", "regex": pattern}
        yield chat(f"regex: {name}", response_format=wanted)
        yield chat(f"regex in a stream: {name}", response_format=wanted, stream=True)
    good = {
        "backtracks elsewhere": "(a+)+$",
        "backtracks elsewhere too": "(a|aa)+b",
        "many optional": "(a?){50}a{50}",
        "ends the rule": 'a/\nstart: "HACKED"\nx: /b',
        "ends the rule escaped": 'a\\/\nstart: "HACKED"\nx: \\/b',
        "ends the line": 'a\rstart: "HACKED"',
        "all letters": r"\p{L}{1,100}",
        "10 000 of anything": r".{1,10000}",
    }
    for name, pattern in good.items():
        yield chat(
            f"regex: {name}", 200, response_format={"type": "regex", "regex": pattern}, echo=0
        )


TOOLS: dict[str, list[Attack]] = {
    "tools": [*_tools(), *_choices()],
    "depths": list(_deep()),
    "formats": list(_formats()),
    "costly": list(_costly()),
    "patterns": list(_patterns()),
}
