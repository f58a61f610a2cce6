"""instructor: answers as objects, over tools and over schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.support import QUESTION, openai_base, package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

# Its own dependencies warn about each other.
pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore"),
]
FIELDS: dict[str, Any] = {
    "model": SMOLLM2,
    "messages": QUESTION,
    "temperature": 0,
    "max_tokens": 60,
    "max_retries": 0,
}


@pytest.fixture
def api(server: InferdProcess) -> Iterator[Any]:
    openai = package("openai")
    with openai.OpenAI(base_url=openai_base(server), api_key=TOKEN, max_retries=0) as client:
        yield client


@pytest.fixture
def ask() -> Any:
    pydantic = package("pydantic")
    return pydantic.create_model("Ask", city=(str, pydantic.Field(max_length=12)))


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA"])
def test_an_answer_is_an_object_of_the_class(api: Any, ask: Any, mode: str) -> None:
    instructor = package("instructor")
    client = instructor.from_openai(api, mode=instructor.Mode[mode])
    answer, raw = client.chat.completions.create_with_completion(response_model=ask, **FIELDS)
    assert isinstance(answer, ask)
    assert raw.usage.completion_tokens > 0


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_a_streamed_answer_grows(api: Any, ask: Any, mode: str) -> None:
    instructor = package("instructor")
    client = instructor.from_openai(api, mode=instructor.Mode[mode])
    parts = list(client.chat.completions.create_partial(response_model=ask, **FIELDS))
    assert isinstance(parts[-1].city, str)
    assert len(parts) > 1
