from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from inferd.catalog.sources.packages import PackageRegistry
from tests.unit.catalog.index_server import IndexServer, index_server

CONTENT = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def server() -> Iterator[IndexServer]:
    with index_server() as running:
        yield running


@pytest.fixture
def registry(server: IndexServer) -> PackageRegistry:
    return PackageRegistry(server.url, pause_seconds=0)


@pytest.fixture
def content() -> bytes:
    return CONTENT
