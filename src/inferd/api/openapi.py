"""The OpenAPI document, generated from the route table and the Structs that routes name."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from inferd import __version__
from inferd.api.errors import Shape
from inferd.api.routes import Json, Route

_ERRORS: dict[Shape, str] = {
    "openai": "OpenAIError",
    "native": "NativeError",
    "anthropic": "AnthropicError",
    "elevenlabs": "ElevenLabsError",
}
_REFUSALS = {
    "400": "A value is wrong, or a field is not supported.",
    "401": "No credential, or a wrong one.",
    "402": "The budget does not cover the request.",
    "403": "The credential lacks the right.",
    "404": "No such model or thing.",
    "405": "The path exists, the method does not.",
    "408": "A URL in the body could not be fetched in time.",
    "409": "The name is taken, or a call of the same Idempotency-Key runs.",
    "410": "A deprecated form with a secret in the URL, where logs keep it.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "422": "The body does not fit the schema, or not the Idempotency-Key.",
    "429": "A limit was hit or the queue is full; see Retry-After.",
    "500": "The engine broke.",
    "502": "The model server behind answered badly.",
    "503": "Not now; see Retry-After.",
}
_SCHEMAS: Json = {
    "ElevenLabsError": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "type": "object",
                "required": ["status", "message"],
                "properties": {"status": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "OpenAIError": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "NativeError": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "anyOf": [
                    {
                        "type": "object",
                        "required": ["error"],
                        "properties": {"error": {"type": "string"}},
                    },
                    {"type": "array", "items": {"type": "object"}},
                    {"type": "string"},
                ]
            }
        },
    },
}

_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Sent again within 24 hours, the call is answered the same and billed once.",
}


def openapi_document(routes: list[Route]) -> Json:
    """OpenAPI 3.1. Deterministic: the same routes give the same document."""
    structs = [s for route in routes for s in (route.takes, route.gives) if s is not None]
    unique = list(dict.fromkeys(structs))
    refs, components = msgspec.json.schema_components(
        unique, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(unique, refs, strict=True))
    paths: Json = {}
    for route in routes:
        path = route.path.replace("{rest}", "{name}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "inferd",
            "version": __version__,
            "description": "An OpenAI- and DeepInfra-compatible inference cloud.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted({**components, **_SCHEMAS}.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "xiApiKey": {"type": "apiKey", "in": "header", "name": "xi-api-key"},
            },
        },
    }


def _operation(route: Route, schema_of: dict[type, Any]) -> Json:
    operation: Json = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "security": []
        if route.access == "public"
        else [{"bearer": []}, {"xApiKey": []}, {"xiApiKey": []}],
        "responses": _responses(route, schema_of),
    }
    if "{rest}" in route.path:
        operation["parameters"] = [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": "May contain slashes.",
            }
        ]
    if route.method == "POST" and route.access == "inference" and "token" not in route.path:
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    if route.takes is not None:
        body = {"application/json": {"schema": schema_of[route.takes]}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _responses(route: Route, schema_of: dict[type, Any]) -> Json:
    good: Json = {"description": "Success."}
    if route.gives is not None:
        good["content"] = {"application/json": {"schema": schema_of[route.gives]}}
        if route.takes is not None and "stream" in {
            f.name for f in msgspec.structs.fields(route.takes)
        }:
            good["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"$ref": f"#/components/schemas/{_ERRORS[route.shape]}"}
    shown: Json = {"application/json": {"schema": error}}
    if route.access == "public" and route.gives is None:
        # A page for people says what is wrong as a page.
        shown["text/html"] = {"schema": {"type": "string"}}
    refusals = {
        status: {"description": sentence, "content": shown}
        for status, sentence in _REFUSALS.items()
    }
    return {"200": good, **refusals}


def _operation_id(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", route.path)
    return "_".join([route.method.lower(), *words])
