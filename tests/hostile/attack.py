"""What a hostile request is, and what every answer to one has to be."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import msgspec

from inferd.api.errors import RouteNotFound
from inferd.api.routes import RouteTable
from inferd.api.table import ROUTES
from inferd.errors import MethodNotAllowed

MODEL = "test/model"
"""Stands for the model in every body; `for_model` puts the real name there."""

Json = dict[str, Any]

Shape = Literal["openai", "native", "anthropic", "elevenlabs", "plain"]

CHAT = "/v1/openai/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/anthropic/v1/messages"
COUNT = "/anthropic/v1/messages/count_tokens"
TOKENIZE = "/v1/tokenize"
DETOKENIZE = "/v1/detokenize"
COSTS = "/v1/request-costs"
NATIVE = f"/v1/inference/{MODEL}"

JSON = {"content-type": "application/json"}
SECONDS_MAX = 2.0
"""An answer takes milliseconds; the rest is for machines that do other things too."""


class Attack(NamedTuple):
    """One request and the status that it must get."""

    name: str
    path: str
    body: bytes
    status: int
    echo: int | None = None
    """The status of the echo engine, where it says no earlier than llama.cpp; 0: not for it."""
    headers: dict[str, str] = JSON
    method: str = "POST"
    seconds_max: float = SECONDS_MAX

    def for_model(self, name: str) -> Attack:
        """The attack on this model."""
        return self._replace(
            path=self.path.replace(MODEL, name),
            body=self.body.replace(MODEL.encode(), name.encode()),
        )


def attack(
    name: str, path: str, body: Any, status: int = 400, *, echo: int | None = None, **more: Any
) -> Attack:
    """An attack with a JSON body, or with bytes or text as they are."""
    raw = body.encode() if isinstance(body, str) else body
    raw = raw if isinstance(raw, bytes) else msgspec.json.encode(raw)
    return Attack(name, path, raw, status, echo, **more)


def chat(name: str, status: int = 400, *, echo: int | None = None, **fields: Any) -> Attack:
    """A chat with strange fields."""
    return attack(f"chat: {name}", CHAT, {**BASES[CHAT], **fields}, status, echo=echo)


BASES: dict[str, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    COMPLETIONS: {"model": MODEL, "prompt": "hi", "max_tokens": 1},
    RESPONSES: {"model": MODEL, "input": "hi", "max_output_tokens": 1},
    MESSAGES: {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    COUNT: {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
    TOKENIZE: {"model": MODEL, "prompt": "hi"},
    DETOKENIZE: {"model": MODEL, "tokens": [1]},
    COSTS: {"requestIds": ["R" + "0" * 23]},
    NATIVE: {"input": "hi", "max_new_tokens": 1},
}
"""A sound body of every endpoint that takes one."""


def with_text(path: str, field: str, text: str) -> bytes:
    """A sound body of an endpoint with one field spelled as given, be it JSON or not."""
    rest = {name: value for name, value in BASES[path].items() if name != field}
    return b'{"%b": %b, ' % (field.encode(), text.encode()) + msgspec.json.encode(rest)[1:]


_TABLE = RouteTable(ROUTES)


def shape_at(method: str, path: str) -> Shape:
    """The error shape of a path; where there is no such route, Anthropic's or a plain one."""
    try:
        return _TABLE.match(method, path.partition("?")[0]).route.shape
    except (RouteNotFound, MethodNotAllowed):
        return "anthropic" if path.startswith("/anthropic") else "plain"


def refusal_status(path: str) -> int:
    """How a dialect says that a field does not fit its schema."""
    return 422 if shape_at("POST", path) == "native" else 400


_LEAKS = re.compile(
    "|".join(
        [
            r"0x[0-9a-f]{6,}",
            "Traceback",
            r'File "',
            r"\.py\b",
            "site-packages",
            re.escape(sys.prefix),
            re.escape(str(Path(__file__).parents[2])),
            r"\bsqlite",
            r"\b[A-Z][a-z]+(?:Error|Exception)\b",
            r"object at ",
            r"ifd_[0-9A-Za-z]{20}",
            r"/tmp/|/proc/|/usr/",
        ]
    )
)


def leaks(body: bytes, *secrets: str, sent: bytes = b"") -> list[str]:
    """What an answer says of the machine that the caller did not say first."""
    told = body.decode("utf-8", "replace")
    found = [hit for hit in _LEAKS.findall(told) if hit.encode() not in sent]
    return found + [secret for secret in secrets if secret in told]


def faults_of(shape: Shape, status: int, body: bytes) -> list[str]:
    """How a refusal differs from its dialect's own error shape."""
    try:
        told: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return [f"no JSON: {body[:80]!r}"]
    if not isinstance(told, dict):
        return [f"no object: {body[:80]!r}"]
    shown = cast("Json", told)
    sound = {
        "openai": _openai,
        "anthropic": _anthropic,
        "native": _native,
        "elevenlabs": _elevenlabs,
        "plain": _plain,
    }
    return [] if sound[shape](shown, status) else [f"not of the shape {shape}: {body[:160]!r}"]


def _openai(told: Json, status: int) -> bool:
    error: Json = told.get("error") or {}
    return {"message", "type", "param", "code"} == error.keys()


def _anthropic(told: Json, status: int) -> bool:
    error: Json = told.get("error") or {}
    return told.get("type") == "error" and {"type", "message"} == error.keys()


def _elevenlabs(told: Json, status: int) -> bool:
    detail: Json = told.get("detail") or {}
    return {"status", "message", "error"} == detail.keys()


def _native(told: Json, status: int) -> bool:
    detail = told.get("detail")
    if status == 422:
        return isinstance(detail, list)
    return isinstance(detail, dict) and list(cast("Json", detail)) == ["error"]


def _plain(told: Json, status: int) -> bool:
    return isinstance(told.get("detail"), str)
