"""Classifiers of pictures through deepinfra's client for Node: a path, bytes, a data URL."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from tests.clients.test_node import installed, run_script
from tests.e2e.steps import card
from tests.process import InferdProcess, serving

__all__ = ["installed"]

pytestmark = [
    pytest.mark.clients,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm"),
]

FORMS = {"path", "buffer", "dataUrl"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    folder = tmp_path_factory.mktemp("classifiers")
    classes = card("t/classes", task="image-classification")
    chooses = card("t/chooses", task="zero-shot-image-classification")
    async with serving(folder, classes, chooses) as running:
        yield running


async def test_each_form_of_a_picture_is_classified(
    server: InferdProcess, installed: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    told = await run_script(server, installed, "classifiers.mjs", str(tmp_path / "cat.png"))
    labels = [{"label": "dog", "score": 0.5}, {"label": "cat", "score": 0.5}]
    # The echo engine names the type of what it was shown.
    seen = [{"label": "image/png", "score": 1}]
    assert told["classes"] == {form: [seen, "succeeded"] for form in FORMS}
    assert told["chooses"] == {form: [labels, "succeeded"] for form in FORMS}
    assert told["error"] == 400
    assert [entry.status for entry in server.entries()] == ["succeeded"] * 6
