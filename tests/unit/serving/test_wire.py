"""The frames between gateway and worker."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engines.base import Features, Resources
from inferd.errors import BY_CODE, ContextLengthExceeded, EngineFailed
from inferd.serving.wire import (
    FRAME_BYTES_MAX,
    Cancel,
    Close,
    Credit,
    Events,
    Failed,
    Frames,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Piece,
    Run,
    ToWorker,
    error_of,
    failure_of,
    frame,
)
from inferd.tasks.base import Progress, Stopped, Usage
from inferd.tasks.text_generation import (
    ChatPrompt,
    Done,
    Message,
    Started,
    Text,
    TextGenerationRequest,
    Token,
)
from inferd.tasks.text_to_image import Preview
from tests.gateway import echo_card

REQUEST = TextGenerationRequest("a/b", ChatPrompt((Message("user", "hé"),)), max_tokens=3)
FAILURE = failure_of(ContextLengthExceeded("Too long.", param="messages", detail="d"))
USAGE = Usage(3, 1, 2)
TO_WORKER = [
    Load(echo_card(), Resources({"model": "m.gguf"}, 2, "d")),
    Run("R1", REQUEST),
    Cancel("R1"),
    Close(),
    Credit("R1", 4096),
]
FROM_WORKER = [
    Loaded(Features(("text-generation",), 8, 100)),
    LoadFailed(FAILURE),
    Events(
        [
            ("R1", Started(3, 9)),
            ("R1", Progress(USAGE)),
            ("R2", Text(1, "x", (Token(7, "x", -0.5),), USAGE)),
            ("R1", Done(("eos",), USAGE, 5)),
            ("R2", Stopped(USAGE)),
            ("R3", Failed(FAILURE)),
            ("R4", Piece(b"\0\1")),
            ("R5", Preview(0, 2, b"\0\1", whole=True, usage=USAGE)),
        ]
    ),
]


@given(st.data())
def test_messages_survive_however_the_socket_cuts_them(data: st.DataObject) -> None:
    for kind, messages in ((ToWorker, TO_WORKER), (FromWorker, FROM_WORKER)):
        stream = b"".join(frame(message) for message in messages)
        frames = Frames(kind)  # pyright: ignore[reportArgumentType]
        received: list[object] = []
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            received += frames.feed(stream[:size])
            stream = stream[size:]
        assert received == messages


def test_the_bytes_of_each_message_are_these() -> None:
    shown = {
        "run": msgspec.msgpack.decode(frame(TO_WORKER[1])[4:]),
        "cancel": msgspec.msgpack.decode(frame(TO_WORKER[2])[4:]),
        "close": msgspec.msgpack.decode(frame(TO_WORKER[3])[4:]),
        "credit": msgspec.msgpack.decode(frame(TO_WORKER[4])[4:]),
        "loaded": msgspec.msgpack.decode(frame(FROM_WORKER[0])[4:]),
        "events": msgspec.msgpack.decode(frame(FROM_WORKER[2])[4:]),
    }
    usage = [3, 1, 2, False, 0, 0]
    assert shown["cancel"] == ["cancel", "R1"]
    assert shown["close"] == ["close"]
    assert shown["credit"] == ["credit", "R1", 4096]
    assert shown["run"][:2] == ["run", "R1"]
    assert shown["run"][2]["prompt"] == {
        "type": "chat",
        "messages": [{"role": "user", "content": "hé"}],
    }
    assert shown["loaded"][1] == {
        "tasks": ["text-generation"],
        "slots": 8,
        "context_length": 100,
        "spare": 0,
    }
    assert shown["events"][1] == [
        ["R1", ["started", 3, 9]],
        ["R1", ["progress", usage, 0, 0]],
        ["R2", ["text", 1, "x", [[7, "x", -0.5, False, []]], usage, "", []]],
        ["R1", ["done", ["eos"], usage, 5, []]],
        ["R2", ["stopped", usage]],
        ["R3", ["failed", ["context_length_exceeded", "Too long.", "messages", "d"]]],
        ["R4", ["piece", b"\0\1"]],
        ["R5", ["preview", 0, 2, b"\0\1", True, usage]],
    ]


def test_an_error_is_itself_again_on_the_other_side() -> None:
    for kind in BY_CODE.values():
        error = error_of(failure_of(kind("No.", param="p", detail="d")))
        assert type(error) is kind
        assert (error.message, error.param, error.detail) == ("No.", "p", "d")
    unknown = msgspec.structs.replace(FAILURE, code="from_the_future")
    assert type(error_of(unknown)) is EngineFailed


@pytest.mark.parametrize(
    "broken", [b"\xff\xff\xff\xff", (FRAME_BYTES_MAX + 1).to_bytes(4, "big"), b"\0\0\0\1\xc1"]
)
def test_what_is_no_frame_is_refused_without_allocating(broken: bytes) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        Frames(FromWorker).feed(broken)  # pyright: ignore[reportArgumentType]
