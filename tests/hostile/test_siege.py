"""The corpus against a real server with a real model, beside a neighbour who streams."""

from __future__ import annotations

import pytest

from tests.hostile.corpus import CORPUS
from tests.hostile.siege import Siege

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="package")]


@pytest.mark.parametrize("group", CORPUS)
async def test_an_attack_is_refused_at_once_and_nobody_else_notices(
    siege: Siege, group: str
) -> None:
    faults = await siege.endure(CORPUS[group])
    assert not faults, "\n".join(faults)
