"""ONNX Runtime behind types of our own. Imported in workers only."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from inferd.catalog.card import ModelCard
from inferd.engines.base import Resources
from inferd.errors import EngineFailed

_log = logging.getLogger(__name__)

Array = NDArray[Any]
"""Of whatever type the model's inputs and outputs have."""


class OnnxSession(Protocol):
    """One loaded model. `run` may be called from several threads at once."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        ...

    @property
    def notes(self) -> dict[str, str]:
        """What the model's maker wrote into the file."""
        ...

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """All outputs, in their order. Raises whatever the library raises."""
        ...


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(str(one.name) for one in session.get_inputs())
        self.outputs = tuple(str(one.name) for one in session.get_outputs())
        self.notes: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        return cast("list[Array]", self._session.run(None, feeds))


Device = Literal["cpu", "cuda", "auto"]
"""Where a model runs. cuda and auto: on a GPU where onnxruntime-gpu offers one, else on the CPU;
cuda complains of it in the log."""

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def device_of(card: ModelCard) -> Device:
    """The card's option `device`, cpu by default. Raises EngineFailed for another word."""
    asked = str(card.options.get("device", "cpu"))
    for known in get_args(Device):
        if asked == known:
            return known
    raise EngineFailed(f"The option device is {', '.join(get_args(Device))}, not {asked[:40]!r}.")


def open_session(
    path: Path,
    threads: int,
    *,
    device: Device = "cpu",
    extra_outputs: tuple[str, ...] = (),
    spins: bool = False,
) -> OnnxSession:
    """Load a model. Raises EngineFailed with a sentence.

    `extra_outputs` names tensors inside the model that become outputs too, after its own.
    `spins`: threads that wait for each other within a call do not sleep; for long calls of many
    short steps, where it saves a twentieth of the time and costs a tenth more computing.
    """
    return _Session(library_session(path, threads, device, extra_outputs, spins=spins))


def library_session(
    path: Path,
    threads: int,
    device: Device = "cpu",
    extra_outputs: tuple[str, ...] = (),
    *,
    spins: bool = False,
) -> Any:
    """The library's own session, for who keeps what it computes on the device."""
    library: Any = import_module("onnxruntime")
    options: Any = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin between calls take the cores from other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    try:
        model = path.read_bytes() + _more_outputs(extra_outputs) if extra_outputs else str(path)
        providers = _providers(library, device)
        session: Any = library.InferenceSession(model, options, providers=providers)
    except Exception as error:
        # The library's errors have no common class but Exception.
        raise EngineFailed(
            f"ONNX Runtime cannot load {path.name}.", detail=repr(error)[:500]
        ) from error
    if device == "cuda" and not on_gpu(session):
        # The library goes on without a word where CUDA's own libraries are missing.
        _log.warning("%s asks for a GPU and ONNX Runtime has none: it runs on the CPU", path.name)
    return session


def on_gpu(session: Any) -> bool:
    """Whether a session of the library computes on a GPU."""
    return _CUDA in session.get_providers()


def _providers(library: Any, device: Device) -> list[str]:
    """In the order in which they are tried."""
    offered: list[str] = library.get_available_providers()
    return [_CUDA, _CPU] if device != "cpu" and _CUDA in offered else [_CPU]


def encoder_files(card: ModelCard, resources: Resources) -> tuple[Path, Path]:
    """(model, tokenizer) of a card: two files, or a folder in the role `model`.

    In a folder they are the card's option `onnx_file` and the tokenizer.json beside it or above.
    """
    model = resources.path("model")
    if not model.is_dir():
        return model, resources.path("tokenizer")
    graph = model / str(card.options.get("onnx_file", "model.onnx"))
    beside = graph.with_name("tokenizer.json")
    return graph, beside if beside.exists() else model / "tokenizer.json"


def padded(rows: list[list[int]], fill: int = 0) -> tuple[Array, Array]:
    """Token ids of unlike length as (ids, mask), both int64 of shape (rows, longest)."""
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), fill, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def _more_outputs(names: tuple[str, ...]) -> bytes:
    """What, appended to a model, gives it more outputs.

    A model is a protocol buffer, and two of them joined are one whose lists are joined: so this
    is a ModelProto (graph: field 7) of a GraphProto (output: field 12) of names (field 1).
    """
    graph = b"".join(_field(12, _field(1, name.encode())) for name in names)
    return _field(7, graph)


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    told = bytearray()
    while value > 0x7F:
        told.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(told + bytes([value]))
