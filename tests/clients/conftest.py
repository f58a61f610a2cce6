"""One server for all clients: SmolLM2, and echo models that are slow or broken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.steps import card
from tests.process import InferdProcess, serving
from tests.weights import smollm2_card


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    cards = [
        smollm2_card(),
        card("t/echo"),
        card("t/busy", "token_ms=5", slots=1),
        card("t/broken", "fail_after=0"),
        card("t/breaks", "fail_after=2"),
    ]
    folder = tmp_path_factory.mktemp("clients")
    async with serving(folder, *cards, queue_size_max=1) as running:
        yield running
