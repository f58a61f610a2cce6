"""What `inferd run` asks of each kind of model, and how it shows the answer."""

from __future__ import annotations

import sys
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import typer

from inferd.catalog.card import ModelCard
from inferd.cli.run_inputs import media_of, text_of
from inferd.cli.tables import show_table
from inferd.errors import BadRequest
from inferd.tasks.base import TaskName

_SHOWN_NUMBERS = 4
_BAR = 30


class Wish(NamedTuple):
    """The words of the command line."""

    inputs: list[str]
    output: Path | None
    fields: Mapping[str, Any]
    """Flags by the name of their field; None where the flag was not given."""


class Call(Protocol):
    """One task's call."""

    def body(self) -> dict[str, Any]:
        """What is sent to the native endpoint."""
        ...

    def show(self, told: Any) -> None:
        """Show the answer, or one event of it."""
        ...


def task_call(card: ModelCard, wish: Wish) -> Call:
    """The call of a model's task."""
    return _CALLS[card.task](wish)


def _save(data_url: str, wanted: Path | None, default: str) -> None:
    path = wanted or Path(default)
    path.write_bytes(b64decode(data_url.partition(",")[2]))
    typer.echo(f"{path} ({path.stat().st_size} bytes)")


def _given(wish: Wish, *names: str) -> dict[str, Any]:
    return {name: wish.fields[name] for name in names if wish.fields.get(name) is not None}


def _one(wish: Wish) -> str:
    if len(wish.inputs) != 1:
        raise BadRequest("This model takes one input; put it in quotes.")
    return wish.inputs[0]


class _Call:
    def __init__(self, wish: Wish) -> None:
        self.wish = wish


class _Embeddings(_Call):
    def body(self) -> dict[str, Any]:
        return {"inputs": [text_of(one) for one in self.wish.inputs]}

    def show(self, told: Any) -> None:
        for vector in told["embeddings"]:
            beginning = " ".join(f"{number:.5f}" for number in vector[:_SHOWN_NUMBERS])
            typer.echo(f"{beginning} … ({len(vector)} numbers)")


class _Rerank(_Call):
    def body(self) -> dict[str, Any]:
        query, *documents = (text_of(one) for one in self.wish.inputs)
        if not documents:
            raise BadRequest("A reranker takes a query and then documents.")
        return {"query": query, "documents": documents}

    def show(self, told: Any) -> None:
        pairs = zip(told["scores"], self.wish.inputs[1:], strict=True)
        _scores(sorted(pairs, key=lambda pair: -pair[0]))


class _Transcribe(_Call):
    def body(self) -> dict[str, Any]:
        fields = _given(self.wish, "language", "temperature")
        return {"audio": media_of(_one(self.wish)), "stream": True, **fields}

    def show(self, told: Any) -> None:
        if "segment" in told:
            sys.stdout.write(told["segment"]["text"])
            sys.stdout.flush()
        else:
            sys.stdout.write("\n")


class _Speak(_Call):
    def body(self) -> dict[str, Any]:
        suffix = (self.wish.output or Path("speech.wav")).suffix.removeprefix(".").lower()
        fields = _given(self.wish, "preset_voice")
        formats = {"ogg": "opus", "": "wav"}
        wanted = formats.get(suffix, suffix)
        return {"text": text_of(_one(self.wish)), "output_format": wanted, **fields}

    def show(self, told: Any) -> None:
        _save(told["audio"], self.wish.output, f"speech.{told['output_format']}")


class _Draw(_Call):
    default = "image.png"

    def body(self) -> dict[str, Any]:
        fields = _given(self.wish, "seed", "num_inference_steps")
        size = self.wish.fields.get("size")
        if size is not None:
            width, _, height = str(size).partition("x")
            fields |= {"width": width, "height": height or width}
        return {"prompt": text_of(_one(self.wish)), "stream": True, **fields}

    def show(self, told: Any) -> None:
        if "progress" in told:
            _bar(told["progress"]["step"], told["progress"]["steps"])
        else:
            _save(self.result(told), self.wish.output, self.default)

    def result(self, told: Any) -> str:
        return str(told["images"][0])


class _Film(_Draw):
    default = "video.mp4"

    def body(self) -> dict[str, Any]:
        return super().body() | _given(self.wish, "seconds")

    def result(self, told: Any) -> str:
        return str(told["video"])


class _Look(_Call):
    """A picture, and labels where the task takes them."""

    def body(self) -> dict[str, Any]:
        picture, *labels = self.wish.inputs
        return {"image": media_of(picture), **({"candidate_labels": labels} if labels else {})}

    def show(self, told: Any) -> None:
        _scores([(one["score"], one["label"]) for one in told["results"]])


class _Detect(_Look):
    def show(self, told: Any) -> None:
        _scores([(one["score"], f"{one['label']} {_box(one['box'])}") for one in told["results"]])


class _Read(_Look):
    def show(self, told: Any) -> None:
        typer.echo(told["text"])


class _Words(_Call):
    """A text; the results as they come."""

    def body(self) -> dict[str, Any]:
        return {"input": text_of(_one(self.wish))}

    def show(self, told: Any) -> None:
        _scores([(one["score"], _label(one)) for one in told["results"]])


class _Answer(_Call):
    def body(self) -> dict[str, Any]:
        if len(self.wish.inputs) != 2:
            raise BadRequest("This model takes a question and then a context.")
        question, context = (text_of(one) for one in self.wish.inputs)
        return {"question": question, "context": context}

    def show(self, told: Any) -> None:
        typer.echo(f"{told['answer']} ({told['score']:.3f})")


def _label(one: Any) -> str:
    if "sequence" in one:
        return str(one["sequence"])
    if "word" in one:
        return f"{one['word']} {one['entity_group']}"
    return str(one["label"])


def _box(box: Any) -> str:
    return f"({box['xmin']}, {box['ymin']}) to ({box['xmax']}, {box['ymax']})"


def _scores(pairs: list[tuple[float, str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for score, label in pairs:
        table.add_row(f"{score:.4f}", label)
    show_table(table)


def _bar(step: int, steps: int) -> None:
    """On standard error, so that what is piped stays clean."""
    done = _BAR * step // max(1, steps)
    end = "\n" if step == steps else ""
    sys.stderr.write(f"\r[{'#' * done}{'.' * (_BAR - done)}] {step}/{steps}{end}")
    sys.stderr.flush()


_CALLS: dict[TaskName, Callable[[Wish], Call]] = {
    "embeddings": _Embeddings,
    "reranker": _Rerank,
    "automatic-speech-recognition": _Transcribe,
    "text-to-speech": _Speak,
    "text-to-image": _Draw,
    "text-to-video": _Film,
    "image-classification": _Look,
    "zero-shot-image-classification": _Look,
    "object-detection": _Detect,
    "document-to-text": _Read,
    "fill-mask": _Words,
    "text-classification": _Words,
    "token-classification": _Words,
    "question-answering": _Answer,
}
