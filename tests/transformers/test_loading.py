"""What a folder must be before its model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inferd.engines.transformers_engine import TransformersEngine
from inferd.errors import EngineFailed
from inferd.tasks.base import TaskName
from inferd.tasks.classification import (
    Detected,
    ImageClassificationRequest,
    ObjectDetectionRequest,
    TextClassificationRequest,
    ZeroShotImageRequest,
)
from inferd.tasks.every import Request
from tests.pictures import picture
from tests.transformers.loaded import card, ending, loaded

pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]

Folder = Callable[[str], Path]


async def refused(task: TaskName, folder: Path) -> str:
    with pytest.raises(EngineFailed) as caught:
        async with loaded(task, folder):
            pass
    return str(caught.value)


@pytest.fixture
def copy(folder: Folder, tmp_path: Path) -> Callable[[str], Path]:
    def made(name: str) -> Path:
        return shutil.copytree(folder(name), tmp_path / name)

    return made


def change(folder: Path, **fields: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


async def test_code_of_its_own_is_never_run(copy: Folder) -> None:
    model = copy("vit")
    (model / "evil.py").write_text("raise SystemExit('it ran')")
    change(model, auto_map={"AutoModelForImageClassification": "evil.Evil"})
    assert "code of its own" in await refused("image-classification", model)


async def test_pickles_are_no_weights(copy: Folder) -> None:
    model = copy("vit")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "safetensors" in await refused("image-classification", model)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
async def test_a_config_that_is_none(copy: Folder, text: str) -> None:
    model = copy("vit")
    (model / "config.json").write_text(text)
    assert "model" in await refused("image-classification", model)


async def test_weights_that_are_cut(copy: Folder) -> None:
    model = copy("vit")
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot load" in await refused("image-classification", model)


async def test_a_model_of_another_task(copy: Folder) -> None:
    """Its head would be made of random numbers."""
    assert "weights" in await refused("question-answering", copy("opinions"))
    assert "weights" in await refused("text-classification", copy("masks"))


async def test_a_model_that_compares_nothing(copy: Folder) -> None:
    assert "does not compare" in await refused("zero-shot-image-classification", copy("opinions"))


async def test_a_model_of_pictures_of_any_shape(folder: Folder) -> None:
    assert "naflex" in await refused("zero-shot-image-classification", folder("naflex"))


async def test_memory_is_estimated_from_the_weights(folder: Folder) -> None:
    model = folder("vit")
    weights = (model / "model.safetensors").stat().st_size
    made = card("t/m", "image-classification", model)
    estimate = TransformersEngine.memory_bytes(made, {"model": model})
    assert estimate == 2 * weights + (700 << 20)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("text-classification", "opinions"),
        ("image-classification", "vit"),
        ("zero-shot-image-classification", "siglip2"),
        ("object-detection", "rt_detr"),
    ],
)
async def test_half_the_precision_answers_alike(folder: Folder, task: TaskName, name: str) -> None:
    asked: dict[str, Request] = {
        "opinions": TextClassificationRequest("t/m", "a good film"),
        "vit": ImageClassificationRequest("t/m", picture("coffee.png")),
        "siglip2": ZeroShotImageRequest("t/m", picture("coffee.png"), ("cat", "cup of coffee")),
        "rt_detr": ObjectDetectionRequest("t/m", picture("coffee.png"), 0.0),
    }
    scores: list[list[float]] = []
    for dtype in ("float32", "bfloat16"):
        async with loaded(task, folder(name), options={"dtype": dtype}) as engine:
            told = await ending(engine, asked[name])
            results = told.objects if isinstance(told, Detected) else told.labels
            scores.append([one.score for one in results])
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
    assert scores[0] != scores[1]
