"""`inferd run MODEL …`: one call of any model, with the running server or without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from inferd.catalog.card import ModelCard
from inferd.cli import wiring
from inferd.cli.flags import Config, DataDir
from inferd.cli.run_asking import ask, ask_bytes, ask_events
from inferd.cli.run_chat import chat_content
from inferd.cli.run_tasks import Call, Wish, check_flags, is_raw, task_call
from inferd.settings import Settings, load

CHAT = "/v1/openai/chat/completions"
_SAMPLING = ("max_tokens", "temperature", "seed")


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
        Path | None,
        typer.Option(
            "--output", "-o", help="Where sound, pictures, films go; the ending is the format."
        ),
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
    fields = {
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "preset_voice": voice,
        "size": size,
        "num_inference_steps": steps,
        "seconds": seconds,
        "language": language,
    }
    wish = Wish(inputs, output, fields)
    if card.task == "text-generation":
        _chat(settings, model, card, wish)
    else:
        _call(settings, model, task_call(card, wish))


def _chat(settings: Settings, model: str, card: ModelCard, wish: Wish) -> None:
    check_flags(wish, ("system", *_SAMPLING), writes=False)
    system = wish.fields["system"]
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": chat_content(card, wish.inputs)}],
        "stream": True,
        **{name: value for name in _SAMPLING if (value := wish.fields[name]) is not None},
    }
    ask_events(settings, CHAT, body, _print)
    sys.stdout.write("\n")


def _call(settings: Settings, model: str, call: Call) -> None:
    path, body = f"/v1/inference/{model}", call.body()
    if is_raw(call):
        ask_bytes(settings, path, body, call.show)
    elif body.get("stream"):
        ask_events(settings, path, body, call.show)
    else:
        ask(settings, path, body, call.show)
    call.finish()


def _print(event: Any) -> None:
    for choice in event["choices"]:
        sys.stdout.write(choice["delta"].get("content") or "")
    sys.stdout.flush()
