"""One server for all attacks, and a summary of how it bore them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.siege import Siege, besieged
from tests.process import serving
from tests.weights import smollm2_cut_card

_SIEGES = pytest.StashKey[list[Siege]]()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def siege(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Siege]:
    """A server with a real model that is loaded."""
    card = smollm2_cut_card()
    async with serving(tmp_path_factory.mktemp("siege"), card) as server:
        made = await besieged(server, card.name)
        request.config.stash.setdefault(_SIEGES, []).append(made)
        yield made


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was slow."""
    none: list[Siege] = []
    for made in config.stash.get(_SIEGES, none):
        terminalreporter.write_line(
            f"{made.attacks} attacks on a server; the neighbour's longest gap "
            f"{made.gap_seconds:.2f} s; the gateway grew by {made.grown_bytes >> 20} MB; slowest:"
        )
        for seconds, name in sorted(made.late, reverse=True)[:8]:
            terminalreporter.write_line(f"  {seconds * 1000:7.0f} ms  {name[:80]}")
