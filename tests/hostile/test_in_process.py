"""The corpus against the application itself, with an engine that computes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from inferd.access.caller import INFERENCE_RUN
from tests.awake import Stopwatch
from tests.gateway import ADMIN_TOKEN, Client, Gateway, echo_card, gateway
from tests.hostile.attack import MODEL, Attack, faults_of, leaks, shape_at
from tests.hostile.corpus import CORPUS
from tests.ledger import entries_in

ALL = [attack for group in CORPUS.values() for attack in group if attack.echo != 0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway for all attacks, called with a token that may only infer."""
    path: Path = tmp_path_factory.mktemp("hostile")
    async with gateway(path, echo_card(MODEL)) as running:
        _, secret = await running.services.tokens.create(running.account_id, "t", (INFERENCE_RUN,))
        running.client = Client(running.client.app, token=secret)
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("attack", ALL, ids=[attack.name[:100] for attack in ALL])
async def test_attack(stage: Gateway, attack: Attack) -> None:
    """It gets its status in its dialect's own shape, at once, tells nothing and costs nothing."""
    clock = Stopwatch()
    answer = await stage.client.call(
        attack.method, attack.path, attack.body, headers=attack.headers
    )
    seconds = clock.seconds()
    assert answer.status == (attack.echo or attack.status), answer.body[:300]
    assert seconds < attack.seconds_max
    if answer.status >= 400:
        assert not faults_of(shape_at(attack.method, attack.path), answer.status, answer.body)
        assert not leaks(answer.body, ADMIN_TOKEN, sent=attack.body)
        request_id = answer.headers["x-request-id"]
        entries = entries_in(stage.database_path)
        assert all(not e.cost_nanos for e in entries if e.request_id == request_id)
