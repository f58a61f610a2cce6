"""What `inferd run` asks of each kind of model, and how it shows the answer."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import typer

from inferd.catalog.card import ModelCard
from inferd.cli.run_inputs import media_of, text_of
from inferd.cli.run_output import (
    FILMS,
    SOUNDS,
    Sound,
    Target,
    picture_target,
    save,
    target,
)
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
    """Flags by the name of their field, as in FLAGS; None where the flag was not given."""


FLAGS = {
    "system": "--system",
    "max_tokens": "--max-tokens",
    "temperature": "--temperature",
    "seed": "--seed",
    "preset_voice": "--voice",
    "size": "--size",
    "num_inference_steps": "--steps",
    "seconds": "--seconds",
    "language": "--language",
}
"""Field → how it is spelled on the command line."""


class Call(Protocol):
    """One task's call."""

    def body(self) -> dict[str, Any]:
        """What is sent to the native endpoint."""
        ...

    def show(self, told: Any) -> None:
        """Show the answer, or one event or piece of it."""
        ...

    def finish(self) -> None:
        """All was shown."""
        ...


def task_call(card: ModelCard, wish: Wish) -> Call:
    """The call of a model's task. Raises BadRequest for what the task does not take."""
    kind = _CALLS[card.task]
    check_flags(wish, kind.takes, writes=kind.writes)
    return kind(wish)


def is_raw(call: Call) -> bool:
    """Its answer is bytes, not JSON."""
    return isinstance(call, _Speak)


def check_flags(wish: Wish, takes: Collection[str], *, writes: bool) -> None:
    """Refuse what was asked for and would have no effect."""
    for name, value in wish.fields.items():
        if value is not None and name not in takes:
            known = ", ".join(FLAGS[one] for one in FLAGS if one in takes) or "no such options"
            raise BadRequest(f"{FLAGS[name]} is not for this model; it takes {known}.")
    if wish.output is not None and not writes:
        raise BadRequest("-o is not for this model: its answer is printed.")


def _given(wish: Wish, *names: str) -> dict[str, Any]:
    return {name: wish.fields[name] for name in names if wish.fields.get(name) is not None}


def _one(wish: Wish) -> str:
    if len(wish.inputs) != 1:
        raise BadRequest("This model takes one input; put it in quotes.")
    return wish.inputs[0]


class _Call:
    takes: Collection[str] = ()
    """Fields of its flags."""
    writes = False
    """It writes a file."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish

    def body(self) -> dict[str, Any]:
        raise NotImplementedError

    def show(self, told: Any) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Most calls have shown everything by then."""


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
    takes = ("language", "temperature")

    def body(self) -> dict[str, Any]:
        fields = _given(self.wish, *self.takes)
        return {"audio": media_of(_one(self.wish)), "stream": True, **fields}

    def show(self, told: Any) -> None:
        if "segment" in told:
            sys.stdout.write(told["segment"]["text"])
            sys.stdout.flush()
        else:
            sys.stdout.write("\n")


class _Speak(_Call):
    takes = ("preset_voice",)
    writes = True

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        self._target = target(wish.output, "speech.wav", SOUNDS)
        self._sound = Sound(self._target)

    def body(self) -> dict[str, Any]:
        fields = _given(self.wish, *self.takes)
        text = text_of(_one(self.wish))
        return {"text": text, "output_format": self._target.file_format, "stream": True, **fields}

    def show(self, told: bytes) -> None:
        self._sound.add(told)

    def finish(self) -> None:
        self._sound.finish()


class _Draw(_Call):
    takes = ("seed", "num_inference_steps", "size")
    writes = True

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        self._target = self.target(wish.output)

    def target(self, wanted: Path | None) -> Target:
        return picture_target(wanted, "image.png")

    def body(self) -> dict[str, Any]:
        fields = _given(self.wish, *(name for name in self.takes if name != "size"))
        size = self.wish.fields.get("size")
        if size is not None:
            fields |= _size(str(size))
        return {"prompt": text_of(_one(self.wish)), "stream": True, **fields}

    def show(self, told: Any) -> None:
        if "progress" in told:
            _bar(told["progress"]["step"], told["progress"]["steps"])
        else:
            save(self.result(told), self._target)

    def result(self, told: Any) -> str:
        return str(told["images"][0])


class _Film(_Draw):
    takes = (*_Draw.takes, "seconds")

    def target(self, wanted: Path | None) -> Target:
        return target(wanted, "video.mp4", FILMS)

    def result(self, told: Any) -> str:
        return str(told["video"])


class _Look(_Call):
    """A picture."""

    def body(self) -> dict[str, Any]:
        return {"image": media_of(_one(self.wish))}

    def show(self, told: Any) -> None:
        _scores([(one["score"], one["label"]) for one in told["results"]])


class _Choose(_Look):
    """A picture, and the labels to choose from."""

    def body(self) -> dict[str, Any]:
        picture, *labels = self.wish.inputs
        if not labels:
            raise BadRequest("This model takes a picture and then labels to choose from.")
        return {"image": media_of(picture), "candidate_labels": labels}


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


def _size(given: str) -> dict[str, int]:
    width, _, height = given.partition("x")
    if not (width.isdecimal() and (height or width).isdecimal()):
        raise BadRequest("--size is a width and a height: 512x512.")
    return {"width": int(width), "height": int(height or width)}


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


_CALLS: dict[TaskName, type[_Call]] = {
    "embeddings": _Embeddings,
    "reranker": _Rerank,
    "automatic-speech-recognition": _Transcribe,
    "text-to-speech": _Speak,
    "text-to-image": _Draw,
    "text-to-video": _Film,
    "image-classification": _Look,
    "zero-shot-image-classification": _Choose,
    "object-detection": _Detect,
    "document-to-text": _Read,
    "fill-mask": _Words,
    "text-classification": _Words,
    "token-classification": _Words,
    "question-answering": _Answer,
}
