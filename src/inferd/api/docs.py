"""GET /docs: the route table for people. No script, no resource from elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, select_autoescape

from inferd import __version__
from inferd.api.routes import Json, Route

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "maxLength", "maxItems")
CSP = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
)


class FieldRow(msgspec.Struct, frozen=True):
    """One field of a body."""

    name: str
    required: bool
    type: str
    bounds: str


class OperationRow(msgspec.Struct, frozen=True):
    """One operation."""

    method: str
    path: str
    summary: str
    access: str
    fields: list[FieldRow]


def docs_page(routes: list[Route], document: Json, base_url: str) -> bytes:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("inferd.api"), autoescape=select_autoescape(default=True)
    )
    groups: dict[str, list[OperationRow]] = {}
    for route in routes:
        groups.setdefault(_group(route.path), []).append(_operation(route, document))
    template = environment.get_template("docs.html")
    page = template.render(version=__version__, base_url=base_url, groups=groups.items())
    return page.encode()


def _group(path: str) -> str:
    if path.startswith(("/v1/openai", "/v1/chat", "/v1/completions", "/v1/models")):
        return "OpenAI dialect"
    if path.startswith(("/v1/inference", "/models")):
        return "DeepInfra dialect"
    return "This server"


def _operation(route: Route, document: Json) -> OperationRow:
    path = route.path.replace("{rest}", "{name}")
    fields: list[FieldRow] = []
    if route.takes is not None:
        schema = document["components"]["schemas"][route.takes.__name__]
        required = schema.get("required", [])
        for name, shape in schema["properties"].items():
            fields.append(FieldRow(name, name in required, _type(shape), _bounds(shape)))
    return OperationRow(route.method, path, route.summary, route.access, fields)


def _type(shape: dict[str, Any]) -> str:
    if "anyOf" in shape:
        return " or ".join(dict.fromkeys(_type(option) for option in shape["anyOf"]))
    if "$ref" in shape:
        return str(shape["$ref"]).rpartition("/")[2]
    if shape.get("type") == "array":
        return f"list of {_type(shape.get('items', {}))}"
    return str(shape.get("type", "anything"))


def _bounds(shape: dict[str, Any]) -> str:
    for option in shape.get("anyOf", [shape]):
        found = [f"{name} {option[name]}" for name in _BOUNDS if name in option]
        if found:
            return ", ".join(found)
    return ""
