"""Fixtures of the API tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway import Gateway, gateway


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with one echo model, `test/echo`."""
    async with gateway(tmp_path) as running:
        yield running
