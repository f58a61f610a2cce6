"""What a soak asks for: requests as bytes, how often, and what must come back."""

from __future__ import annotations

import io
import json
import random
import wave
from base64 import b64encode
from typing import Any, NamedTuple

SLOTS = 64
TASKS = {
    "text-generation": 'input = "1"\noutput = "2"',
    "embeddings": 'input = "1"',
    "reranker": 'input = "1"',
    "automatic-speech-recognition": 'input_seconds = "0.01"',
    "text-to-speech": 'input_characters = "1"',
    "image-classification": 'compute_seconds = "0.01"',
}


class Ask(NamedTuple):
    """One kind of request."""

    name: str
    share: int
    """In hundredths of all."""
    request: bytes
    status: int
    leaves: str = ""
    """`first`: hangs up at the first byte of the answer; `sent`: as soon as it has asked."""


def card(task: str) -> str:
    """A card of the echo engine, in TOML."""
    return f"""
name = "soak/{task}"
task = "{task}"
engine = "echo"
context_length = 4096
licence = "none"
summary = "Load for measurements."
slots = {SLOTS}
[price]
{TASKS[task]}
"""


def asks(token: str) -> list[Ask]:
    """The mix: 78 % answers, 12 % refusals and failures, 10 % clients that leave."""
    make = _Maker(token)
    words = "Say something short and then some more of it."
    wrong: dict[str, Any] = {"messages": [], "temperature": "hot"}
    return [
        Ask("chat", 30, make.chat(words), 200),
        Ask("chat, streamed", 20, make.chat(words, stream=True), 200),
        Ask("native text", 6, make.native("text-generation", {"input": words}), 200),
        Ask("embeddings", 8, make.openai("embeddings", {"input": [words, words]}), 200),
        Ask("native embeddings", 2, make.native("embeddings", {"inputs": [words]}), 200),
        Ask("rerank", 4, make.native("reranker", _pairs(words)), 200),
        Ask("speech", 3, make.openai("text-to-speech", _speech(words), "audio/speech"), 200),
        Ask("transcription", 2, make.native(*_recording()), 200),
        Ask("picture", 3, make.native(*_picture()), 200),
        Ask("no token", 2, _Maker("x" * 40).chat(words), 401),
        Ask("no such model", 2, make.post("/v1/chat/completions", _unknown(words)), 404),
        Ask("no JSON", 2, make.raw("/v1/chat/completions", b'{"model": "soak/text'), 400),
        Ask("wrong types", 2, make.openai("text-generation", wrong, "chat/completions"), 400),
        Ask("over the context", 1, make.chat(words, max_tokens=9999), 400),
        Ask("the engine fails", 2, make.chat(f"{words} echo:fail_after=4"), 500),
        Ask("a stream breaks", 1, make.chat(f"{words} echo:fail_after=4", stream=True), 200),
        Ask("leaves a stream", 5, make.chat(_slow(words), stream=True), 200, "first"),
        Ask("leaves a plain call", 3, make.chat(_slow(words)), 0, "sent"),
        Ask(
            "leaves a recital", 2, make.openai("text-to-speech", _long(), "audio/speech"), 200
        )._replace(leaves="first"),
    ]


def order(kinds: list[Ask], count: int, seed: int) -> list[Ask]:
    """So many requests in a random order, the same for the same seed."""
    weights = [kind.share for kind in kinds]
    return random.Random(seed).choices(kinds, weights, k=count)


class _Maker:
    def __init__(self, token: str) -> None:
        self._token = token

    def raw(self, path: str, body: bytes) -> bytes:
        return (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self._token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        return self.raw(path, json.dumps(body).encode())

    def native(self, task: str, body: dict[str, Any]) -> bytes:
        return self.post(f"/v1/inference/soak/{task}", body)

    def openai(self, task: str, body: dict[str, Any], path: str = "") -> bytes:
        return self.post(f"/v1/{path or task}", {"model": f"soak/{task}", **body})

    def chat(self, text: str, **fields: Any) -> bytes:
        messages = [{"role": "user", "content": text}]
        body = {"messages": messages, **fields}
        return self.openai("text-generation", body, "chat/completions")


def _slow(words: str) -> str:
    return f"{words} {words} echo:token_ms=3"


def _long() -> dict[str, Any]:
    return _speech("echo:token_ms=3 " + "word " * 100)


def _unknown(words: str) -> dict[str, Any]:
    return {"model": "soak/none", "messages": [{"role": "user", "content": words}]}


def _pairs(words: str) -> dict[str, Any]:
    return {"queries": [words], "documents": [words, words]}


def _speech(words: str) -> dict[str, Any]:
    return {"input": words, "voice": "any", "response_format": "pcm"}


def _picture() -> tuple[str, dict[str, Any]]:
    png = b"\x89PNG\r\n\x1a\n" + bytes(20_000)
    return "image-classification", {"image": b64encode(png).decode()}


def _recording() -> tuple[str, dict[str, Any]]:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000))
    return "automatic-speech-recognition", {"audio": b64encode(out.getvalue()).decode()}
