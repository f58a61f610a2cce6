"""Closes the objects of a JSON Schema that say which properties they have and nothing of others.

The standard lets such objects have any others, and a weak model then never stops adding some. What
matches the closed schema matches the open one too.
"""

from __future__ import annotations

from typing import Any, cast

_SAYS_MORE = frozenset(
    {
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "anyOf",
        "oneOf",
        "$ref",
        "if",
    }
)
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "prefixItems")


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its objects closed; as it is where pieces are put together (`allOf`)."""
    return schema if _is_composed(schema) else cast("dict[str, Any]", _closed(schema))


def _is_composed(node: object) -> bool:
    if isinstance(node, list):
        return any(_is_composed(item) for item in cast("list[object]", node))
    if not isinstance(node, dict):
        return False
    fields = cast("dict[str, object]", node)
    # An object that adds to what it refers to would be shut out by a closed target.
    joined = "properties" in fields and ("$ref" in fields or "anyOf" in fields or "oneOf" in fields)
    return "allOf" in fields or joined or any(_is_composed(value) for value in fields.values())


def _closed(node: object) -> object:
    if not isinstance(node, dict):
        return node
    fields = dict(cast("dict[str, Any]", node))
    for name in _MAPS:
        if isinstance(fields.get(name), dict):
            fields[name] = {key: _closed(value) for key, value in fields[name].items()}
    for name in _LISTS:
        if isinstance(fields.get(name), list):
            fields[name] = [_closed(value) for value in fields[name]]
    if "items" in fields:
        fields["items"] = _closed(fields["items"])
    if isinstance(fields.get("properties"), dict) and not _SAYS_MORE & fields.keys():
        fields["additionalProperties"] = False
    return fields
