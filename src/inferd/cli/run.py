"""`inferd run MODEL …`: one call of any model, with the running server or without one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from inferd.cli import wiring
from inferd.cli.data_dir import running_server
from inferd.cli.flags import Config, DataDir
from inferd.cli.run_chat import Part, chat_content
from inferd.cli.run_tasks import Wish, task_call
from inferd.cli.server_client import ServerClient
from inferd.errors import InferdError
from inferd.settings import Settings, load

CHAT = "/v1/openai/chat/completions"


def run(  # noqa: PLR0913 one flag for each field that people set by hand
    model: Annotated[str, typer.Argument(help="owner/name, see `inferd models list`.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="A prompt, texts or labels; @path reads a file, - standard input. "
            "A chat takes files beside its prompt: text, and what its model sees or hears. "
            "A reranker takes the query and then documents, a zero-shot classifier a picture "
            "and then labels, a question answerer the question and then the context."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where sound, pictures, films go.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same answer again.")] = None,
    voice: Annotated[str | None, typer.Option(help="Who speaks.")] = None,
    size: Annotated[str | None, typer.Option(help="Of a picture or film: 512x512.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of a picture or film.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a film.")] = None,
    language: Annotated[str | None, typer.Option(help="Of a recording: en, de, …")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Call a model once."""
    settings = load({"data_dir": data_dir}, config=config)
    card = wiring.catalog(settings).serving(model)
    if card.task == "text-generation":
        fields = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        _chat(settings, model, chat_content(card, inputs), system, fields)
        return
    wish = Wish(
        inputs,
        output,
        {
            "seed": seed,
            "preset_voice": voice,
            "size": size,
            "num_inference_steps": steps,
            "seconds": seconds,
            "language": language,
            "temperature": temperature,
        },
    )
    call = task_call(card, wish)
    body = call.body()
    _ask(settings, f"/v1/inference/{model}", body, call.show, streamed=bool(body.get("stream")))


def _chat(
    settings: Settings,
    model: str,
    content: str | list[Part],
    system: str | None,
    fields: dict[str, Any],
) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": content}],
        "stream": True,
        **{name: value for name, value in fields.items() if value is not None},
    }
    _ask(settings, CHAT, body, _print, streamed=True)
    sys.stdout.write("\n")


def _ask(
    settings: Settings, path: str, body: Any, show: Callable[[Any], None], *, streamed: bool
) -> None:
    server = running_server(settings)
    if server is None:
        from inferd.cli import offline

        if streamed:
            offline.stream(settings, path, body, _Events(show).feed)
        else:
            show(offline.call(settings, "POST", path, body))
    elif streamed:
        for event in ServerClient(server).events(path, body):
            show(event)
    else:
        show(ServerClient(server).call("POST", path, body))


class _Events:
    """Cuts a byte stream into events."""

    def __init__(self, show: Callable[[Any], None]) -> None:
        self._show = show
        self._pending = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    raise InferdError(event["error"]["message"])
                self._show(event)


def _print(event: Any) -> None:
    for choice in event["choices"]:
        sys.stdout.write(choice["delta"].get("content") or "")
    sys.stdout.flush()
