"""The corpus against a real server with a real model, beside a neighbour who streams."""

from __future__ import annotations

import pytest

from tests.hostile.corpus import CAMPAIGNS
from tests.hostile.siege import Siege

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="package")]


@pytest.mark.parametrize("campaign", CAMPAIGNS)
async def test_an_attack_is_refused_at_once_and_nobody_else_notices(
    siege: Siege, campaign: str
) -> None:
    attacks = [attack for group in CAMPAIGNS[campaign].values() for attack in group]
    faults = await siege.endure(attacks)
    assert not faults, "\n".join(faults)
