"""Grammars for constrained answers, in the Lark dialect of LLGuidance, and their checks.

llama.cpp drops a grammar that it cannot use without a word, so every grammar is compiled here
first, with limits, and the text of the answer is run against it while it comes.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from functools import cache
from hashlib import sha256
from typing import Any, cast

import llguidance
import msgspec

from inferd.engines.closed_schema import closed
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_generation import Constraint, Tool

GRAMMAR_BYTES_MAX = 128 * 1024
"""llama.cpp compiles between two steps of everybody: 200 KB took 0.4 s, 128 KB stay near a step."""
SCHEMA_DEPTH_MAX = 64
SCHEMA_NODES_MAX = 5_000
PATTERN_CHARACTERS_MAX = 4096
REPETITION_MAX = 10_000
"""Largest count in a pattern's `{m,n}`, and of nested counts multiplied."""
COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
"""Each is written out that often: 100,000 items took 1.4 s to compile, characters cost nothing."""
LENGTHS = ("minLength", "maxLength")
LENGTH_MAX = 1_000_000
CACHE_BYTES_MAX = 4 * 1024 * 1024

COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One line, as Python writes it: a weak model cannot run on in whitespace."""

_HEAD = "%llguidance {}\n"
_COUNT = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_UNKNOWN = re.compile(r"Unimplemented keys: (\[[^\]]*\])")
_EOS = 256


def json_rule(
    schema: dict[str, Any] | bool,  # noqa: FBT001 true and false are schemas
    *,
    lenient: bool = False,
) -> str:
    """A rule body that matches JSON of this schema on one line.

    `lenient`: keywords that cannot be enforced are left out instead of being refused.
    """
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    own = {name: value for name, value in closed(schema).items() if name != "x-guidance"}
    options = {**COMPACT, "lenient": True, "coerce_one_of": True} if lenient else COMPACT
    return "%json " + msgspec.json.encode({**own, "x-guidance": options}).decode()


def constraint_rule(constraint: Constraint) -> str:
    """A rule body for `response_format`. Raises BadRequest for what is over the bounds."""
    if constraint.kind == "json_object":
        return json_rule({"type": "object"})
    if constraint.kind == "json_schema":
        schema = {} if constraint.schema is None else constraint.schema
        check_schema(schema, "response_format")
        return json_rule(schema)
    check_pattern(constraint.pattern, "response_format")
    escaped = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", constraint.pattern)
    return "/" + escaped.replace("\n", "\\n") + "/"


def tools_rules(tools: tuple[Tool, ...]) -> str:
    """Rules `call`, and one for each tool: a call from its `{"name"` to the closing tag."""
    rules = ["call: " + " | ".join(f"call{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        parameters = tool.parameters or {"type": "object"}
        check_schema(parameters, f"tools.{index}.function.parameters")
        if parameters.get("type", "object") != "object":
            raise BadRequest(
                "The parameters of a function are an object.",
                param=f"tools.{index}.function.parameters.type",
            )
        head = msgspec.json.encode('{"name": "' + tool.name + '", "arguments": ').decode()
        rules.append(f'call{index}: {head} args{index} "}}\\n</tool_call>"')
        schema: dict[str, Any] = {"properties": {}, **parameters, "type": "object"}
        rules.append(f"args{index}: {json_rule(schema, lenient=not tool.strict)}")
    return "\n".join(rules)


def assemble(start: str, rules: str, *, ends: tuple[int, ...]) -> str:
    """A whole grammar. `ends` are the token ids with which the model ends its answer.

    llama.cpp tells LLGuidance of one end token only, and for ChatML it is not the right one.
    """
    closing = "".join(f" | <[{end}]>" for end in ends)
    closing = f" ({closing[3:]})?" if closing else ""
    return f"{_HEAD}start: ({start}){closing}\n{rules}\n"


def check_schema(schema: object, param: str) -> None:
    """Refuse schemas that are too deep or too large. Raises BadRequest."""
    nodes, level = 0, [(schema, 1)]
    for _ in range(SCHEMA_DEPTH_MAX):
        level = [child for node, times in level for child in _children(node, times, param)]
        nodes += len(level)
        if nodes > SCHEMA_NODES_MAX:
            raise BadRequest(f"The schema has more than {SCHEMA_NODES_MAX} parts.", param=param)
        if not level:
            return
    raise BadRequest(f"The schema is nested deeper than {SCHEMA_DEPTH_MAX} levels.", param=param)


def _children(node: object, times: int, param: str) -> list[tuple[object, int]]:
    """The parts of a node, and how often they may have to be written out for it."""
    if isinstance(node, list):
        return [(item, times) for item in cast("list[object]", node)]
    if not isinstance(node, dict):
        return []
    fields = cast("dict[str, object]", node)
    pattern = fields.get("pattern")
    if isinstance(pattern, str):
        check_pattern(pattern, param)
    counts = [value for name in COUNTS if isinstance(value := fields.get(name), int)]
    times *= max(1, *counts) if counts else 1
    if times > REPETITION_MAX:
        raise BadRequest(
            f"{', '.join(COUNTS)}: at most {REPETITION_MAX}, nested ones multiplied.", param=param
        )
    if any(isinstance(value := fields.get(name), int) and value > LENGTH_MAX for name in LENGTHS):
        raise BadRequest(f"{', '.join(LENGTHS)}: at most {LENGTH_MAX}.", param=param)
    return [(value, times) for value in fields.values()]


def check_pattern(pattern: str, param: str) -> None:
    """Refuse regular expressions that are invalid or whose counts explode. Raises BadRequest."""
    if not pattern or "\0" in pattern:
        raise BadRequest("A pattern is empty or holds a null character.", param=param)
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise BadRequest(
            f"A pattern is longer than {PATTERN_CHARACTERS_MAX} characters.", param=param
        )
    product = 1
    for low, high in _COUNT.findall(pattern):
        digits = high or low
        # Long enough to be over the bound without turning it into a number.
        product *= 1 if not digits else max(1, int(digits[:9]))
        if product > REPETITION_MAX:
            raise BadRequest(
                f"The counts of a pattern multiply to more than {REPETITION_MAX}.", param=param
            )
    try:
        with warnings.catch_warnings():
            # Python warns of what its next versions will read otherwise; the log is not for that.
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except re.error as error:
        # Other mistakes are LLGuidance's to judge: its syntax is not Python's.
        if error.msg in ("multiple repeat", "bad escape (end of pattern)"):
            raise BadRequest(f"A pattern is not valid: {error.msg}.", param=param) from None
    except (OverflowError, RecursionError):
        raise BadRequest("A pattern is not valid.", param=param) from None


class Grammars:
    """Compiles grammars, and remembers those that it found good."""

    def __init__(self) -> None:
        self._good: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        """(scope, digest) → bytes of the grammar, least recently used first."""
        self._bytes = 0

    def check(self, grammar: str, *, scope: str, param: str) -> None:
        """Raise BadRequest, with the reason, for a grammar that cannot be used. Blocks."""
        encoded = grammar.encode("utf-8", "replace")
        if len(encoded) > GRAMMAR_BYTES_MAX:
            raise BadRequest(f"The grammar is over {GRAMMAR_BYTES_MAX} bytes.", param=param)
        key = (scope, sha256(encoded).digest())
        if key in self._good:
            self._good.move_to_end(key)
            return
        failed, told = llguidance.LLMatcher.validate_grammar_with_warnings(
            _without_ends(grammar), None, limits=_limits()
        )
        matcher = None if failed else _matcher(grammar)
        # A grammar that refers to nothing but itself is valid, and lets no text begin.
        if failed or matcher is None or not any(matcher.compute_bitmask()) or matcher.is_error():
            reason = told[0] if failed else "" if matcher is None else matcher.get_error()
            raise BadRequest(_sentence(reason), param=param)
        self._good[key] = len(encoded)
        self._bytes += len(encoded)
        while self._bytes > CACHE_BYTES_MAX:
            self._bytes -= self._good.popitem(last=False)[1]


class Follower:
    """Runs an answer's text against its grammar, since the engine may have dropped it."""

    def __init__(self, grammar: str) -> None:
        self._matcher = _matcher(grammar)

    def feed(self, text: str) -> None:
        """Raises EngineFailed when the text leaves the grammar."""
        if text and not self._matcher.consume_tokens(list(text.encode("utf-8", "replace"))):
            raise EngineFailed(
                "The engine did not keep to the format that was asked for.",
                detail=self._matcher.get_error()[:200],
            )

    @property
    def complete(self) -> bool:
        """The text may end here."""
        return self._matcher.is_accepting()


class _Bytes:
    """A vocabulary of the 256 bytes."""

    eos_token_id = _EOS
    bos_token_id = None
    tokens = (*(bytes([value]) for value in range(256)), b"<end>")
    special_token_ids = (_EOS,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


@cache
def _tokenizer() -> Any:
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()), slices=[])


@cache
def _limits() -> Any:
    return llguidance.LLParserLimits(
        initial_lexer_fuel=500_000, max_grammar_size=200_000, verbose_errors=False
    )


def _matcher(grammar: str) -> llguidance.LLMatcher:
    return llguidance.LLMatcher(_tokenizer(), _without_ends(grammar), log_level=0, limits=_limits())


def _without_ends(grammar: str) -> str:
    """The grammar of the text alone: the bytes have no end tokens."""
    head, _, rest = grammar.partition("\n")
    start, _, rules = rest.partition("\n")
    return f"{head}\n{re.sub(r' [(]<[^)]*[)][?]$', '', start)}\n{rules}"


def _sentence(reason: str) -> str:
    """What a caller may read of LLGuidance's complaint: no source lines, no positions."""
    if unknown := _UNKNOWN.search(reason):
        names = ", ".join(msgspec.json.decode(unknown[1].encode(), type=list[str]))
        return f"The schema uses keywords that are not supported: {names[:300]}."
    first = reason.splitlines()[0] if reason else "nothing can match it"
    first = re.sub(r"^at \d+\(\d+\): ", "", first).removeprefix("failed to compile JSON schema: ")
    return f"The format asked for cannot be enforced: {first[:300].rstrip('.: ')}."
