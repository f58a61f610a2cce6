"""Tools of the Responses API: functions stand flat in the list, or in namespaces."""

from __future__ import annotations

from inferd.api import generation
from inferd.api.openai.responses_in import AllowedTool, ResponseIn, ResponseTool, ResponseToolChoice
from inferd.errors import BadRequest, UnsupportedField
from inferd.tasks.text_generation import Tool, ToolUse

DEPTH_MAX = 128
"""Of a schema. It is sent back with the answer, which must not fail then."""


def tool_use(wire: ResponseIn) -> ToolUse | None:
    """The functions that the model sees, and whether it must call one."""
    tools = _functions(wire.tools or [], "tools")
    choice = wire.tool_choice or "auto"
    if isinstance(choice, ResponseToolChoice):
        return _chosen(tools, choice, wire.parallel_tool_calls)
    use = generation.tool_use(
        tools, required=choice == "required", parallel=wire.parallel_tool_calls
    )
    return None if choice == "none" else use


def _functions(tools: list[ResponseTool], at: str, *, nested: bool = False) -> list[Tool]:
    found: list[Tool] = []
    for index, tool in enumerate(tools):
        here = f"{at}.{index}"
        if tool.type == "namespace" and not nested:
            found += _functions(tool.tools or [], f"{here}.tools", nested=True)
        elif tool.type == "function":
            found.append(_function(tool, here))
        else:
            raise UnsupportedField(
                f"Tools of type {tool.type!r} are not supported; only functions are.",
                param=f"{here}.type",
            )
    return found


def _function(tool: ResponseTool, at: str) -> Tool:
    if tool.name is None:
        raise BadRequest("name is missing.", param=f"{at}.name")
    if not generation.TOOL_NAME.fullmatch(tool.name):
        raise BadRequest(
            "A function's name has 1 to 64 letters, digits, underscores and dashes.",
            param=f"{at}.name",
        )
    generation.check_depth(tool.parameters, f"{at}.parameters")
    return Tool(tool.name, tool.description or "", tool.parameters or {}, bool(tool.strict))


def _chosen(
    tools: list[Tool],
    choice: ResponseToolChoice,
    parallel: bool | None,  # noqa: FBT001 a field as it is
) -> ToolUse | None:
    generation.tool_use(tools)
    if choice.type == "function":
        if choice.name is None:
            raise BadRequest("name is missing.", param="tool_choice.name")
        return generation.tool_use(tools, named=choice.name)
    if choice.type != "allowed_tools":
        raise UnsupportedField(
            f"A tool_choice of type {choice.type!r} is not supported.", param="tool_choice.type"
        )
    allowed = _allowed(tools, choice.tools or [])
    return generation.tool_use(allowed, required=choice.mode == "required", parallel=parallel)


def _allowed(tools: list[Tool], allowed: list[AllowedTool]) -> list[Tool]:
    known = {tool.name for tool in tools}
    for index, tool in enumerate(allowed):
        if tool.type != "function" or tool.name not in known:
            raise BadRequest(
                "tool_choice names no function of tools.", param=f"tool_choice.tools.{index}"
            )
    names = {tool.name for tool in allowed}
    return [tool for tool in tools if tool.name in names]
