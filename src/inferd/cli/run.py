"""`inferd run MODEL "prompt"`: one answer, streamed; with the running server or without one."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import typer

from inferd.cli.data_dir import running_server
from inferd.cli.flags import Config, DataDir
from inferd.cli.server_client import ServerClient
from inferd.errors import InferdError
from inferd.settings import load

PATH = "/v1/openai/chat/completions"


def run(  # noqa: PLR0913 one flag for each field that people set by hand
    model: Annotated[str, typer.Argument(help="owner/name, see `inferd models list`.")],
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads standard input.")],
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same answer again.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Ask a model once."""
    settings = load({"data_dir": data_dir}, config=config)
    messages = [{"role": "system", "content": system}] if system else []
    text = sys.stdin.read() if prompt == "-" else prompt
    fields = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    body: dict[str, Any] = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": text}],
        "stream": True,
        **{name: value for name, value in fields.items() if value is not None},
    }
    server = running_server(settings)
    if server is not None:
        for event in ServerClient(server).events(PATH, body):
            _print(event)
    else:
        from inferd.cli import offline

        offline.stream(settings, PATH, body, _Events().feed)
    sys.stdout.write("\n")


class _Events:
    """Cuts a byte stream into events."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    raise InferdError(event["error"]["message"])
                _print(event)


def _print(event: Any) -> None:
    for choice in event["choices"]:
        sys.stdout.write(choice["delta"].get("content") or "")
    sys.stdout.flush()
