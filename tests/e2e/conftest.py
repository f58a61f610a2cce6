"""One server with SmolLM2 for the tests that only talk to it; others start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.process import InferdProcess, serving
from tests.weights import smollm2_card


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm2(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    """A server whose SmolLM2 uses the shared weights in place."""
    async with serving(tmp_path_factory.mktemp("smollm2"), smollm2_card()) as server:
        yield server


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory."""
    return tmp_path
