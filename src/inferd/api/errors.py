"""One renderer for each dialect: an InferdError becomes a body or a stream's last event."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from inferd.errors import BadRequest, InferdError, NotFound

Shape = Literal["openai", "native", "anthropic", "elevenlabs"]
"""Which envelope a route speaks (deepinfra-api 1.7): B for OpenAI routes, A and C elsewhere."""


class FieldInvalid(BadRequest):
    """The body does not fit the schema. Native routes answer 422 with a list, OpenAI ones 400."""

    code = "validation_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        fault: str = "value_error",
        said: str = "",
        given: object = None,
    ) -> None:
        super().__init__(message, param=param)
        self.fault = fault
        """What kind of fault it is, in FastAPI's words: `missing`, `int_type` …"""
        self.said = said or message
        """The sentence without the field's name."""
        self.given = given
        """The value that does not fit; of a missing field, the object that lacks it."""


class RouteNotFound(NotFound):
    """No such path."""


def render(error: InferdError, shape: Shape) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """(status, JSON body, extra headers)."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_seconds))))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if shape == "anthropic":
        return error.status, msgspec.json.encode(anthropic_error(error)), headers
    if isinstance(error, RouteNotFound) or error.code == "method_not_allowed":
        return error.status, msgspec.json.encode({"detail": error.message}), headers
    if shape == "openai":
        return error.status, msgspec.json.encode({"error": openai_error(error)}), headers
    if shape == "elevenlabs":
        return error.status, msgspec.json.encode({"detail": elevenlabs_detail(error)}), headers
    if isinstance(error, FieldInvalid):
        return 422, msgspec.json.encode({"detail": [_item(error)]}), headers
    return error.status, msgspec.json.encode({"detail": {"error": error.message}}), headers


def _item(error: FieldInvalid) -> dict[str, object]:
    parts = [part for part in (error.param or "").split(".") if part]
    path = [int(part) if part.isascii() and part.isdigit() else part for part in parts]
    return {
        "type": error.fault,
        "loc": ["body", *path],
        "msg": error.said,
        "input": error.given,
    }


def elevenlabs_detail(error: InferdError) -> dict[str, str]:
    """ElevenLabs' `status` and `message`, and DeepInfra's `error` beside them."""
    return {"status": error.code, "message": error.message, "error": error.message}


def stream_event(error: InferdError) -> bytes:
    """The event that ends a stream whose status line is already sent.

    Both spellings at once: OpenAI's clients look for `error`, DeepInfra's for `error_message`.
    """
    body = {
        "error": openai_error(error),
        "error_type": error.code,
        "error_message": error.message,
    }
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Status → `error.type` of Anthropic's API; other 4xx are invalid requests, other 5xx api_error."""


def anthropic_error(error: InferdError) -> dict[str, object]:
    """Anthropic's envelope, in bodies and in its `error` events alike."""
    fallback = "invalid_request_error" if error.status < 500 else "api_error"
    kind = ANTHROPIC_KINDS.get(error.status, fallback)
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def openai_error(error: InferdError) -> dict[str, str | None]:
    return {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
