"""A tiny Chatterbox: four graphs with the inputs and outputs of the real ones, random inside.

`spoken` computes the same by numpy, always over everything at once, so that it shows whether the
engine hands on what was heard before, in the right order and with the right positions.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.catalog.card import ModelCard, ModelFile, PathSource
from tests.gateway import echo_card
from tests.onnx_bytes import FLOAT, INT64, model, node, value

Floats = NDArray[np.float32]
RATE = 24_000
START, STOP, EXAGGERATION = 6561, 6562, 6563
SILENCES = [4299] * 3
VOCABULARY = 6564
HEADS, HEAD_WIDTH = 2, 4
WIDTH = HEADS * HEAD_WIDTH
FRAME = 4
"""Samples of one token; the real one has 960."""
PLACES = 4096
LETTERS = "abcdefghijklmnopqrstuvwxyz .,!?"


class Tiny(NamedTuple):
    """The weights."""

    turbo: bool
    words: Floats
    places: Floats
    tilt: Floats
    head: Floats
    ramp: Floats
    condition: Floats
    tones: Floats


def tiny(*, turbo: bool, seed: int = 3) -> Tiny:
    """Random ones; the longer an answer is, the likelier is its end."""
    dice = np.random.default_rng(seed)

    def some(*shape: int) -> Floats:
        return dice.normal(0, 0.5, shape).astype(np.float32)

    ramp = np.zeros(VOCABULARY, np.float32)
    ramp[STOP] = 0.05
    return Tiny(
        turbo,
        some(VOCABULARY, WIDTH),
        some(PLACES, WIDTH),
        some(WIDTH),
        some(WIDTH, VOCABULARY),
        ramp,
        some(1, 3, WIDTH),
        0.1 * some(VOCABULARY, FRAME),
    )


def write(folder: Path, made: Tiny) -> None:
    """The folder of a card."""
    graphs = folder / "onnx"
    graphs.mkdir(parents=True)
    (graphs / "speech_encoder.onnx").write_bytes(_hears(made))
    (graphs / "embed_tokens.onnx").write_bytes(_embeds(made))
    (graphs / "language_model.onnx").write_bytes(_writes(made))
    (graphs / "conditional_decoder.onnx").write_bytes(_speaks(made))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(turbo=made.turbo)))
    write_wav(folder / "default_voice.wav", recording(1))


def chatterbox_card(folder: Path, name: str) -> ModelCard:
    """A card of what `write` wrote."""
    return echo_card(
        name,
        task="text-to-speech",
        engine="chatterbox",
        context_length=0,
        files=(ModelFile("model", "model", PathSource(str(folder))),),
        options={"voices": ["default"], "clones": True},
    )


def recording(seed: int, seconds: float = 2) -> NDArray[np.int16]:
    """Noise of its own loudness."""
    dice = np.random.default_rng(seed)
    return (dice.normal(0, 1500 * seed, int(seconds * RATE))).astype(np.int16)


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Mono, 24 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def _hears(made: Tiny) -> bytes:
    nodes = [
        node("Abs", "audio_values", "loud"),
        node("ReduceMean", "loud", "level", axes=[1]),
        node("Mul", "level condition", "audio_features"),
        node("Identity", "prompt", "audio_tokens"),
        node("Mul", "level speaker", "speaker_embeddings"),
        node("Identity", "mel", "speaker_features"),
    ]
    constants: dict[str, Any] = {
        "condition": made.condition,
        "prompt": np.array([[7, 9]], np.int64),
        "speaker": np.ones((1, 4), np.float32),
        "mel": np.zeros((1, 2, 80), np.float32),
    }
    outputs = [
        value("audio_features", FLOAT, [1, 3, WIDTH]),
        value("audio_tokens", INT64, [1, 2]),
        value("speaker_embeddings", FLOAT, [1, 4]),
        value("speaker_features", FLOAT, [1, 2, 80]),
    ]
    return model(nodes, constants, [value("audio_values", FLOAT, [1, "samples"])], outputs)


def _embeds(made: Tiny) -> bytes:
    outputs = [value("inputs_embeds", FLOAT, [1, "n", WIDTH])]
    inputs = [value("input_ids", INT64, [1, "n"])]
    if made.turbo:
        nodes = [node("Gather", "words input_ids", "inputs_embeds")]
        return model(nodes, {"words": made.words}, inputs, outputs)
    nodes = [
        node("Gather", "words input_ids", "a"),
        node("Gather", "places position_ids", "b"),
        node("Add", "a b", "c"),
        node("Mul", "exaggeration tilt", "d"),
        node("Add", "c d", "inputs_embeds"),
    ]
    inputs += [value("position_ids", INT64, [1, "n"]), value("exaggeration", FLOAT, [1])]
    constants: dict[str, Any] = {"words": made.words, "places": made.places, "tilt": made.tilt}
    return model(nodes, constants, inputs, outputs)


def _writes(made: Tiny) -> bytes:
    """The logits are of the mean of all that was heard, divided by how long the mask is."""
    shape: list[str | int] = ["batch", HEADS, "heard", HEAD_WIDTH]
    nodes = [
        node("Gather", "places position_ids", "at") if made.turbo else node("Identity", "no", "at"),
        node("Add", "inputs_embeds at", "x"),
        node("Reshape", "x split", "parted"),
        node("Transpose", "parted", "key", perm=[0, 2, 1, 3]),
        node("Mul", "key two", "value"),
        node("Concat", "past_key_values.0.key key", "present.0.key", axis=2),
        node("Concat", "past_key_values.0.value value", "present.0.value", axis=2),
        node("Add", "present.0.key present.0.value", "both"),
        node("ReduceSum", "both along", "sum", keepdims=0),
        node("Cast", "attention_mask", "mask", to=FLOAT),
        node("ReduceSum", "mask", "length", keepdims=0),
        node("Div", "sum length", "mean"),
        node("Reshape", "mean joined", "state"),
        node("MatMul", "state head", "told"),
        node("Mul", "length ramp", "ends"),
        node("Add", "told ends", "logits"),
    ]
    constants: dict[str, Any] = {
        "split": np.array([1, -1, HEADS, HEAD_WIDTH], np.int64),
        "joined": np.array([1, 1, WIDTH], np.int64),
        "along": np.array([2], np.int64),
        "two": np.array([2], np.float32),
        "head": made.head,
        "ramp": made.ramp,
    }
    constants |= {"places": made.places} if made.turbo else {"no": np.zeros(1, np.float32)}
    inputs = [
        value("inputs_embeds", FLOAT, [1, "n", WIDTH]),
        value("attention_mask", INT64, [1, "all"]),
        *([value("position_ids", INT64, [1, "n"])] if made.turbo else []),
        value("past_key_values.0.key", FLOAT, shape),
        value("past_key_values.0.value", FLOAT, shape),
    ]
    outputs = [
        value("logits", FLOAT, [1, 1, VOCABULARY]),
        value("present.0.key", FLOAT, shape),
        value("present.0.value", FLOAT, shape),
    ]
    return model(nodes, constants, inputs, outputs)


def _speaks(made: Tiny) -> bytes:
    nodes = [
        node("Gather", "tones speech_tokens", "frames"),
        node("Reshape", "frames flat", "sound"),
        node("ReduceMean", "speaker_embeddings", "level", keepdims=0),
        node("Mul", "sound level", "waveform"),
    ]
    constants: dict[str, Any] = {"tones": made.tones, "flat": np.array([1, -1], np.int64)}
    inputs = [
        value("speech_tokens", INT64, [1, "m"]),
        value("speaker_embeddings", FLOAT, [1, 4]),
        value("speaker_features", FLOAT, [1, "t", 80]),
    ]
    return model(nodes, constants, inputs, [value("waveform", FLOAT, [1, "samples"])])


def _tokenizer(*, turbo: bool) -> dict[str, Any]:
    """Letters, wrapped as the real tokenizers wrap a text."""
    vocabulary = {letter: at + 1 for at, letter in enumerate(LETTERS)}
    vocabulary |= {"[UNK]": 0, "[START_SPEECH]": START, "[EXAGGERATION]": EXAGGERATION}
    before, behind = ([], ["[UNK]", "[UNK]"]) if turbo else (["[EXAGGERATION]"], ["[START_SPEECH]"])
    wrapped = [{"SpecialToken": {"id": one, "type_id": 0}} for one in before]
    wrapped += [{"Sequence": {"id": "A", "type_id": 0}}]
    wrapped += [{"SpecialToken": {"id": one, "type_id": 0}} for one in behind]
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "."},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": wrapped,
            "pair": wrapped,
            "special_tokens": {
                one: {"id": one, "ids": [vocabulary[one]], "tokens": [one]}
                for one in {*before, *behind}
            },
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }


def ids_of(text: str, *, turbo: bool) -> list[int]:
    """What the tokenizer makes of a text."""
    letters = [LETTERS.find(letter) + 1 for letter in text.lower()]
    return [*letters, 0, 0] if turbo else [EXAGGERATION, *letters, START]


def spoken(made: Tiny, text: str, voice: NDArray[np.int16], exaggeration: float = 0.5) -> Floats:
    """The samples of one piece, with nothing kept from token to token."""
    level = np.abs(voice.astype(np.float32) / 32768).mean()
    ids = ids_of(text, turbo=made.turbo)
    places = [0 if one >= START else at - 1 for at, one in enumerate(ids)]
    written: list[int] = []
    while True:
        told = made.words[ids + written]
        if not made.turbo:
            told = told + made.places[places + list(range(1, len(written) + 1))]
            told = told + exaggeration * made.tilt
        heard = np.concatenate((level * made.condition[0], told))
        if made.turbo:
            heard = heard + made.places[: len(heard)]
        logits = 3 * heard.mean(0) @ made.head + len(heard) * made.ramp
        for one in {START, *written}:
            logits[one] = logits[one] / 1.2 if logits[one] > 0 else logits[one] * 1.2
        token = int(logits.argmax())
        if token == STOP:
            break
        written.append(token)
    frames = [7, 9, *written, *(SILENCES if made.turbo else [])]
    return level * made.tones[frames].reshape(-1)
