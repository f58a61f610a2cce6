"""What `inferd run` refuses before anything is computed, and what it sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferd.cli.run_tasks import FLAGS, Call, Wish, check_flags, task_call
from inferd.cli.server_client import refusal_sentence
from inferd.errors import BadRequest
from inferd.tasks.base import TaskName
from tests.gateway import echo_card


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    (tmp_path / "folder.wav").mkdir()
    monkeypatch.chdir(tmp_path)


def call(task: TaskName, *inputs: str, output: str | None = None, **fields: Any) -> Call:
    wish = Wish(list(inputs), Path(output) if output else None, fields)
    return task_call(echo_card(task=task), wish)


@pytest.mark.parametrize(
    ("task", "output", "sentence"),
    [
        ("text-to-speech", "x.jpg", "x.jpg: this model writes .wav, .mp3"),
        ("text-to-image", "x.gif", "this model writes .png, .jpg, .jpeg, .webp"),
        ("text-to-video", "x.webm", "this model writes .mp4"),
        ("text-to-speech", "missing/x.wav", "The folder missing does not exist"),
        ("text-to-image", "cat.png/x.png", "The folder cat.png does not exist"),
        ("text-to-speech", "folder.wav", "is a folder"),
        ("embeddings", "x.json", "-o is not for this model"),
        ("automatic-speech-recognition", "x.txt", "-o is not for this model"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(
    task: TaskName, output: str, sentence: str
) -> None:
    with pytest.raises(BadRequest, match=sentence):
        call(task, "hello", output=output)


def test_a_picture_in_another_format_needs_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        assert name == "PIL"

    monkeypatch.setattr("inferd.cli.run_output.find_spec", missing)
    call("text-to-image", "hello", output="x.png")
    with pytest.raises(BadRequest, match="needs Pillow"):
        call("text-to-image", "hello", output="x.jpg")


@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("text-to-speech", {"language": "de"}),
        ("text-to-speech", {"seed": 1}),
        ("automatic-speech-recognition", {"preset_voice": "x"}),
        ("text-to-image", {"seconds": 2.0}),
        ("embeddings", {"temperature": 0.0}),
        ("image-classification", {"max_tokens": 1}),
        ("text-classification", {"system": "x"}),
    ],
)
def test_a_flag_without_effect_is_refused(task: TaskName, flags: dict[str, Any]) -> None:
    (name,) = flags
    with pytest.raises(BadRequest, match=f"{FLAGS[name]} is not for this model"):
        call(task, "hello", **flags)


def test_a_chat_takes_no_file_to_write_and_no_voice() -> None:
    for wish in (Wish(["x"], Path("x.txt"), {}), Wish(["x"], None, {"preset_voice": "x"})):
        with pytest.raises(BadRequest, match="is not for this model"):
            check_flags(wish, ("seed",), writes=False)


def test_labels_are_for_zero_shot_models_and_needed_there() -> None:
    tasks: tuple[TaskName, ...] = ("image-classification", "object-detection", "document-to-text")
    for task in tasks:
        with pytest.raises(BadRequest, match="one input"):
            call(task, "@cat.png", "cat", "dog").body()
    with pytest.raises(BadRequest, match="labels to choose from"):
        call("zero-shot-image-classification", "@cat.png").body()
    told = call("zero-shot-image-classification", "@cat.png", "cat", "dog").body()
    assert told["candidate_labels"] == ["cat", "dog"]


def test_a_size_is_two_numbers() -> None:
    for size, sides in (("64x32", (64, 32)), ("64", (64, 64))):
        body = call("text-to-image", "hello", size=size).body()
        assert (body["width"], body["height"]) == sides
    for size in ("large", "axb", "64x-1", "x64"):
        with pytest.raises(BadRequest, match="--size"):
            call("text-to-image", "hello", size=size).body()


def test_a_field_that_does_not_fit_is_told_as_a_sentence() -> None:
    body = b'{"detail": [{"type": "x", "loc": ["body", "steps"], "msg": "Must be 1 or more."}]}'
    assert refusal_sentence(body) == "steps: Must be 1 or more."
    two = (
        b'{"detail": [{"loc": ["body"], "msg": "One."}, {"loc": ["body", "a", 0], "msg": "Two."}]}'
    )
    assert refusal_sentence(two) == "One. a.0: Two."
    assert refusal_sentence(b'{"error": {"message": "No."}}') == "No."
    assert refusal_sentence(b'{"detail": {"error": "No."}}') == "No."
    assert refusal_sentence(b"<html>") == ""
