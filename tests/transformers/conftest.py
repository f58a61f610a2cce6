"""The tiny models, made once for each run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.transformers import tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model of tiny.py, by its name there."""
    root = tmp_path_factory.mktemp("tiny")

    @cache
    def made(name: str) -> Path:
        whole: Path = getattr(tiny, name)(root)
        return whole

    return made
