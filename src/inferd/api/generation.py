"""What all dialects of text generation share: tools, tiers, thinking, fallback models.

A dialect decodes its body into a `Wish` and brings a factory of Answers; `generate` does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import msgspec

from inferd.admission.work import Dialect, Order
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.inference import Answer, Attempt
from inferd.api.services import Services
from inferd.api.tag import tag_of
from inferd.catalog.card import ModelCard
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.base import Tier
from inferd.tasks.text_generation import TextGenerationRequest, Tool, ToolUse

TOOLS_MAX = 128
DEPTH_MAX = 128
"""Levels of a JSON Schema; encoders recurse, and engines bear fewer."""
FALLBACKS_MAX = 4
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TEMPLATE_KWARGS = frozenset({"enable_thinking", "thinking", "reasoning_effort"})
"""Variables that callers may give to a model's template."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_TIERS: dict[str, Tier] = {
    "default": "default",
    "standard_only": "default",
    # OpenAI's, for capacity that was bought before; nobody has any here.
    "scale": "default",
    "auto": "priority",
    "priority": "priority",
    "flex": "flex",
}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One request of any dialect, decoded."""

    models: tuple[str, ...]
    """Names in the order in which they are tried; `fallbacks` makes it."""
    request: TextGenerationRequest
    """Its `model` and `cache_scope` are filled in by `generate`."""
    dialect: Dialect
    streamed: bool
    end_user: str | None = None
    tag: str | None = None
    """As the body says it; None: the header may."""
    tier: str | None = None
    """As the body spells it; None: the header decides."""
    fail_fast: bool = False


async def generate(
    exchange: Exchange,
    services: Services,
    wish: Wish,
    answer: Callable[[ModelCard], Answer],
) -> None:
    """Answer a wish with the first of its models that has room."""
    scope = inference.cache_scope(exchange, services)
    tier = service_tier(exchange, wish.tier)
    tag = tag_of(exchange.headers, wish.tag)
    final = len(wish.models) - 1
    attempts: list[Attempt] = []
    for index, name in enumerate(wish.models):
        card = inference.find_model(services, name, "text-generation")
        request = msgspec.structs.replace(wish.request, model=card.name, cache_scope=scope)
        order = Order(
            request_id=exchange.request_id,
            card=card,
            request=request,
            dialect=wish.dialect,
            streamed=wish.streamed,
            end_user=wish.end_user,
            tag=tag,
            tier=tier,
            fail_fast=wish.fail_fast or index < final,
        )
        attempts.append(Attempt(order, answer(card)))
    await inference.run(exchange, services, *attempts)


def fallbacks(model: str, models: Sequence[str] | None) -> tuple[str, ...]:
    """The models to try, in order, each once; `model` counts only without a list (4.2)."""
    if not models:
        return (model,)
    for name in models:
        if ":" in name:
            raise BadRequest("models takes plain model names.", param="models")
    return tuple(dict.fromkeys(models))


def service_tier(exchange: Exchange, asked: str | None) -> Tier:
    """The tier of the body, else of the header, where unknown values mean the default."""
    if asked is not None:
        if asked not in _TIERS:
            raise BadRequest(f"service_tier is one of {', '.join(_TIERS)}.", param="service_tier")
        return _TIERS[asked]
    header = exchange.headers.get(b"x-deepinfra-service-tier", b"default")
    return _TIERS.get(header.decode("latin-1").strip().lower(), "default")


def tool_use(
    tools: Sequence[Tool],
    *,
    required: bool = False,
    named: str | None = None,
    parallel: bool | None = None,
) -> ToolUse | None:
    """Tools, checked. None where there are none. `named`: exactly this one must be called."""
    _check_tools(tools)
    if named is not None:
        tools = [tool for tool in tools if tool.name == named]
        if not tools:
            raise BadRequest("tool_choice names no function of tools.", param="tool_choice")
        return ToolUse(tuple(tools), required=True, parallel=False)
    if not tools:
        if required:
            raise BadRequest("tool_choice asks for a call and there are no tools.", param="tools")
        return None
    return ToolUse(tuple(tools), required=required, parallel=parallel)


def check_depth(schema: object, at: str) -> None:
    """Refuse a schema that is nested too deeply to be encoded again. Raises BadRequest."""
    layer = [schema]
    for _ in range(DEPTH_MAX):
        layer = [child for node in layer for child in _children(node)]
        if not layer:
            return
    raise BadRequest(f"A schema nests at most {DEPTH_MAX} levels.", param=at)


def _children(node: object) -> Iterable[object]:
    if isinstance(node, dict):
        return cast("dict[str, object]", node).values()
    return cast("list[object]", node) if isinstance(node, list) else ()


def _check_tools(tools: Sequence[Tool]) -> None:
    if len(tools) > TOOLS_MAX:
        raise BadRequest(f"tools holds at most {TOOLS_MAX} functions.", param="tools")
    for index, tool in enumerate(tools):
        if not TOOL_NAME.fullmatch(tool.name):
            raise BadRequest(
                "A function's name has 1 to 64 letters, digits, underscores and dashes.",
                param=f"tools.{index}.function.name",
            )
        check_depth(tool.parameters, f"tools.{index}.function.parameters")
    if len({tool.name for tool in tools}) < len(tools):
        raise BadRequest("Two functions have one name.", param="tools")


def template_kwargs(
    given: Mapping[str, object] | None, effort: str | None
) -> dict[str, str | int | bool]:
    """Variables of the chat template: the caller's own, over those that the effort makes."""
    kwargs: dict[str, str | int | bool] = {}
    if effort is not None:
        if effort not in EFFORTS:
            raise BadRequest(
                f"reasoning_effort is one of {', '.join(EFFORTS)}.", param="reasoning_effort"
            )
        thinks = effort != "none"
        kwargs = {"enable_thinking": thinks, "thinking": thinks, "reasoning_effort": effort}
    for name, value in (given or {}).items():
        if name not in TEMPLATE_KWARGS:
            raise UnsupportedField(
                f"chat_template_kwargs takes {', '.join(sorted(TEMPLATE_KWARGS))}.",
                param=f"chat_template_kwargs.{name[:64]}",
            )
        if value is None:
            continue
        if not isinstance(value, str | int) or (isinstance(value, str) and len(value) > 64):
            raise BadRequest(
                "A value is true, false, a number or a short text.",
                param=f"chat_template_kwargs.{name}",
            )
        kwargs[name] = value
    return kwargs
