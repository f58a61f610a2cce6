"""DeepInfra's Python client: it takes a full URL as the endpoint."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from tests.clients.support import package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

pytestmark = [pytest.mark.clients, pytest.mark.engine]

BODY: dict[str, Any] = {
    "input": "The capital of France is",
    "max_new_tokens": 6,
    "temperature": 0,
}


def generate(server: InferdProcess, name: str, body: dict[str, Any], key: str = TOKEN) -> Any:
    model = package("deepinfra").TextGeneration(f"{server.url}/v1/inference/{name}", key)
    with closing(model.client):
        return model.generate(body)


def test_text_is_generated_and_counted(server: InferdProcess) -> None:
    answer = generate(server, SMOLLM2, BODY)
    assert answer.results[0]["generated_text"]
    assert answer.num_tokens == 6
    assert answer.num_input_tokens == 5
    assert answer.inference_status["status"] == "succeeded"
    assert answer.inference_status["tokens_generated"] == 6
    assert answer.inference_status["cost"] > 0


@pytest.mark.parametrize(
    ("name", "key", "change", "kind"),
    [
        ("no/such", TOKEN, {}, "NotFoundError"),
        (SMOLLM2, "wrong", {}, "AuthenticationError"),
        # It has no class of its own for 422, DeepInfra's status for a field that is wrong.
        (SMOLLM2, TOKEN, {"temperature": -3}, "APIStatusError"),
        ("t/broken", TOKEN, {}, "InternalServerError"),
    ],
)
def test_refusals_are_the_clients_own_errors(
    server: InferdProcess, name: str, key: str, change: dict[str, Any], kind: str
) -> None:
    deepinfra = package("deepinfra")
    with pytest.raises(getattr(deepinfra, kind)) as caught:
        generate(server, name, BODY | change, key)
    assert caught.value.message


def test_the_client_itself_takes_a_base_url(server: InferdProcess) -> None:
    deepinfra = package("deepinfra")
    with closing(deepinfra.DeepInfraClient(TOKEN, base_url=server.url)) as client:
        answer = client.request(deepinfra.RequestSpec("GET", "/models/list"))
    assert SMOLLM2 in {entry["model_name"] for entry in answer.json()}
