"""Requests made from our own OpenAPI document: every answer is one that the document declares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any, cast

import pytest
import pytest_asyncio

from inferd.api.openapi import openapi_document
from inferd.api.table import ROUTES
from tests.gateway import echo_card
from tests.hostile.attack import leaks
from tests.process import TOKEN, InferdProcess, serving

schemathesis: Any = pytest.importorskip("schemathesis", reason="make fuzz installs it")
hypothesis: Any = pytest.importorskip("hypothesis")

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("default"),
]

EXAMPLES = 40
"""For each operation and kind of data."""
MODEL = "test/echo"
OPERATIONS = sorted(
    {f"{route.method} {route.path.replace('{rest}', '{name}')}" for route in ROUTES}
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InferdProcess]:
    async with serving(tmp_path_factory.mktemp("fuzz"), echo_card(MODEL)) as running:
        yield running


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("label", OPERATIONS)
async def test_every_answer_is_one_that_the_document_declares(
    server: InferdProcess, label: str, mode: str
) -> None:
    await asyncio.to_thread(_fuzz, server.url, label, mode)


def document() -> dict[str, Any]:
    """Ours. It says of a stream that the whole is text; the fuzzer would say so of each event."""
    made = openapi_document(ROUTES)
    for path in made["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                answer.get("content", {}).get("text/event-stream", {}).pop("schema", None)
    return made


def _fuzz(url: str, label: str, mode: str) -> None:
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=url)
    operation = schema.find_operation_by_label(label)
    assert operation is not None, label
    checks = _checks()

    @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode(mode)))
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate,),
    )
    def check(case: Any) -> None:
        body: Any = case.body
        if isinstance(body, dict) and "model" in cast("dict[str, Any]", body):
            # A name that exists leads further than one that was made up.
            body["model"] = MODEL
        response = case.call(headers={"authorization": f"Bearer {TOKEN}"})
        case.validate_response(response, checks=checks)
        if response.status_code >= 400:
            assert not leaks(response.content, TOKEN, sent=repr(case).encode())

    try:
        check()
    except hypothesis.errors.Unsatisfiable:
        pytest.skip("there is nothing to vary")


def _checks() -> list[Any]:
    known: Any = import_module("schemathesis.specs.openapi.checks")
    return [
        schemathesis.checks.not_a_server_error,
        known.status_code_conformance,
        known.content_type_conformance,
        known.response_schema_conformance,
    ]
