"""The sandbox in which templates of models are rendered: no attribute of Python, bounded work.

jinja2's immutable sandbox keeps a template from Python's insides and from changing what it is
given. Here the work is bounded too: turns of loops, and what one expression may blow up.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, cast

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

STEPS_MAX = 1_000_000
"""Turns of all loops of one rendering; a long conversation with many tools takes thousands."""
SIZE_MAX = 1 << 22
"""Characters or items that one expression may make of less."""
BITS_MAX = 4096
"""Of a number."""
_WIDE = re.compile(r"\d{6,}")
_NESTED = re.compile(r"\{[^}]*\{")
_WIDTHS = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment for one model's template. Raises SecurityError, a TemplateError."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        del self.globals["lipsum"]
        self.filters = {name: _narrow(name, known) for name, known in self.filters.items()}
        self._counter = f"turns_{secrets.token_hex(8)}"
        """A name that no template can know and put something else behind."""

    def compiled(self, source: str) -> Template:
        """The template, its loops counted. TemplateError for what is none."""
        tree = self.parse(source)
        for loop in tree.find_all(nodes.For):
            name = nodes.Name(self._counter, "load", lineno=loop.lineno)
            loop.iter = nodes.Call(name, [loop.iter], [], None, None, lineno=loop.lineno)
        tree.set_environment(self)
        return self.from_string(tree)

    def budget(self) -> dict[str, Callable[[Iterable[Any]], Iterator[Any]]]:
        """A variable that every rendering must be given anew."""
        left = [STEPS_MAX]

        def counted(items: Iterable[Any]) -> Iterator[Any]:
            for item in items:
                left[0] -= 1
                if left[0] < 0:
                    raise SecurityError("it loops too often")
                yield item

        return {self._counter: counted}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiplication, powers and `%`, where they stay small."""
        if operator == "%":
            if isinstance(left, str):
                values = cast("Iterable[Any]", right) if isinstance(right, tuple) else [right]
                _check_layout(left, values)
        elif isinstance(left, int) and isinstance(right, int):
            bits = right if operator == "**" else 1
            if left.bit_length() * max(1, bits) + right.bit_length() > BITS_MAX:
                raise SecurityError("its numbers are too large")
        else:
            _check_size(_length(left) * _length(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] jinja2 mangles its own names
        """A call, unless it blows up a text."""
        text = getattr(function, "__self__", None)
        if isinstance(text, str):
            name = getattr(function, "__name__", "")
            if name in _WIDTHS:
                _check_size(sum(len(text) + one for one in args if isinstance(one, int)))
            elif name == "replace" and len(args) > 1:
                _check_size((len(text) + 1) * _length(args[1]))
            elif name == "join" and args and hasattr(args[0], "__len__"):
                _check_size(len(text) * _length(args[0]))
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`format` and `format_map` of a text, where they stay narrow."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text: str = value.__self__

        def narrow(*args: Any, **kwargs: Any) -> str:
            values: list[Any] = [*args, *kwargs.values()]
            for part in values.copy():
                if isinstance(part, dict):
                    values.extend(cast("dict[str, Any]", part).values())
            _check_layout(text, values)
            return wrapped(*args, **kwargs)

        return narrow


def _narrow(name: str, wrapped: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose widths and counts are bounded."""
    first = 1 if hasattr(wrapped, "jinja_pass_arg") else 0

    @wraps(wrapped)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        value, asked = args[first], [*args[first + 1 :], *kwargs.values()]
        for number in (one for one in asked if isinstance(one, int)):
            _check_size(number * (_length(value) if name == "indent" else 1))
        if name == "format":
            _check_layout(str(value), asked)
        return wrapped(*args, **kwargs)

    return bounded


def _check_layout(layout: str, values: Iterable[Any]) -> None:
    """No width in it, and none that a value could be."""
    computed = "*" in layout or _NESTED.search(layout)
    wide = any(isinstance(one, int) and abs(one) > SIZE_MAX for one in values)
    if _WIDE.search(layout) or (computed and wide):
        raise SecurityError("it formats too widely")


def _length(value: Any) -> int:
    if isinstance(value, int):
        return abs(value)
    return len(value) if hasattr(value, "__len__") else 1


def _check_size(size: int) -> None:
    if size > SIZE_MAX:
        raise SecurityError("it makes a text too large")
