"""Where models run: on a GPU where the card asks for it and there is one, else on the CPU."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inferd.engines.llama_load import see
from inferd.engines.onnx import Device, device_of, open_session
from inferd.errors import EngineFailed
from tests.gateway import echo_card

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Options:
    """Of a session."""

    def add_session_config_entry(self, name: str, value: str) -> None:
        """Taken."""


class Session:
    """A model of nothing."""

    def __init__(self, runs: list[str]) -> None:
        self._runs = runs

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs

    def get_modelmeta(self) -> Any:
        return SimpleNamespace(custom_metadata_map={})

    def get_providers(self) -> list[str]:
        return self._runs


class Library:
    """onnxruntime, as far as it is asked."""

    SessionOptions = Options

    def __init__(self, *offered: str, works: bool = True) -> None:
        self._offered = list(offered)
        self._works = works
        self.asked: list[str] = []

    def get_available_providers(self) -> list[str]:
        return self._offered

    def InferenceSession(self, _: str, __: Any, *, providers: list[str]) -> Session:  # noqa: N802
        self.asked = providers
        return Session(providers if self._works else [CPU])


@pytest.mark.parametrize(
    ("device", "library", "asked", "complains"),
    [
        ("cpu", Library(CUDA, CPU), [CPU], False),
        ("cuda", Library(CUDA, CPU), [CUDA, CPU], False),
        ("auto", Library(CUDA, CPU), [CUDA, CPU], False),
        ("auto", Library(CPU), [CPU], False),
        ("cuda", Library(CPU), [CPU], True),
        ("cuda", Library(CUDA, CPU, works=False), [CUDA, CPU], True),
    ],
)
def test_an_onnx_model_runs_where_its_card_says_and_complains_where_it_cannot(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: Device,
    library: Library,
    asked: list[str],
    complains: bool,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    with caplog.at_level(logging.WARNING):
        open_session(Path("model.onnx"), 1, device=device)
    assert library.asked == asked
    assert ("model.onnx asks for a GPU" in caplog.text) is complains


def test_a_card_says_cpu_cuda_or_auto() -> None:
    assert device_of(echo_card()) == "cpu"
    assert device_of(echo_card(options={"device": "cuda"})) == "cuda"
    with pytest.raises(EngineFailed, match="cpu, cuda, auto, not 'tpu'"):
        device_of(echo_card(options={"device": "tpu"}))


@pytest.mark.parametrize(("layers", "on_gpu"), [(-1, True), (20, True), (0, False)])
def test_a_vision_tower_runs_where_the_layers_do(layers: int, on_gpu: bool) -> None:
    parameters = SimpleNamespace(n_gpu_layers=layers, mmproj=SimpleNamespace(path=""))
    see(parameters, echo_card(), Path("mmproj.gguf"))
    assert parameters.mmproj_use_gpu is on_gpu
