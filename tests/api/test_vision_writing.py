"""Chats about pictures that hold writing, by the two-stage captioner: read, then asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from inferd.money import usd
from tests.gateway import Gateway, gateway
from tests.ledger import entries
from tests.weights import local_card
from tests.writing import INVOICE, data_url, page

MODEL = "inferd/smolcaption"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    card = msgspec.structs.replace(local_card(MODEL), slots=1, context_length=2048, memory_bytes=1)
    async with gateway(tmp_path_factory.mktemp("writing"), card) as built:
        yield built


def asked(question: str, *urls: str, **fields: Any) -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*images, {"type": "text", "text": question}]
    message = {"role": "user", "content": content}
    return {"model": MODEL, "messages": [message], "max_tokens": 32, "temperature": 0} | fields


async def chat(seeing: Gateway, body: dict[str, Any]) -> Any:
    answer = await seeing.client.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    return answer.json()


class TestInvoice:
    @pytest.mark.parametrize(
        ("question", "said"),
        [("What is the invoice number?", "2047"), ("What is the total due?", "69.40")],
    )
    async def test_what_is_asked_is_answered_from_the_writing(
        self, seeing: Gateway, question: str, said: str
    ) -> None:
        told = await chat(seeing, asked(question, data_url(page(INVOICE))))
        assert said in told["choices"][0]["message"]["content"]
        blind = await chat(seeing, asked(question))
        assert said not in blind["choices"][0]["message"]["content"]

    async def test_a_stream_says_the_same_and_both_are_billed_exactly(
        self, seeing: Gateway
    ) -> None:
        body = asked("What is the invoice number?", data_url(page(INVOICE)))
        plain = await chat(seeing, body)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = await seeing.client.post("/v1/chat/completions", body | options)
        events = streamed.events()
        pieces = [one["delta"].get("content") or "" for e in events for one in e["choices"]]
        assert "".join(pieces) == plain["choices"][0]["message"]["content"]
        assert len([piece for piece in pieces if piece]) > 2
        usage = plain["usage"]
        assert events[-1]["usage"]["prompt_tokens"] == usage["prompt_tokens"]
        card = seeing.services.catalog.get(MODEL)
        fresh, cached, output = card.rates()
        for entry in (await entries(seeing))[-2:]:
            assert entry.input_tokens == usage["prompt_tokens"]
            assert entry.output_tokens == usage["completion_tokens"]
            uncached = entry.input_tokens - entry.cached_tokens
            dear = uncached * fresh + entry.cached_tokens * cached + entry.output_tokens * output
            assert entry.cost_nanos == (dear + 500_000) // 1_000_000
        first = (await entries(seeing))[-2]
        assert usage["estimated_cost"] == usd(first.cost_nanos)

    async def test_the_prompt_is_the_writing_and_the_question(self, seeing: Gateway) -> None:
        question = "What is the invoice number?"
        writing = "\n".join(" ".join(row) for row in INVOICE)
        spelled = f"The attached picture says:\n\n{writing}\n\n{question}"
        seen = await chat(seeing, asked(question, data_url(page(INVOICE))))
        told = await chat(seeing, asked(spelled))
        assert seen["usage"]["prompt_tokens"] == told["usage"]["prompt_tokens"]
        assert seen["choices"] == told["choices"]

    async def test_a_page_costs_no_more_than_its_bound(self, seeing: Gateway) -> None:
        rows = [
            [f"{at}. A line with many words that fill a page to its very end"] for at in range(60)
        ]
        seen = await chat(seeing, asked("Why?", data_url(page(rows, 16)), max_tokens=1))
        blind = await chat(seeing, asked("Why?", max_tokens=1))
        extra = seen["usage"]["prompt_tokens"] - blind["usage"]["prompt_tokens"]
        assert 100 < extra <= seeing.services.catalog.get(MODEL).media_tokens_max()

    async def test_two_pictures_stand_in_their_order(self, seeing: Gateway) -> None:
        lines = [
            f"The code of page {at} is {at * 1111} and that is all that it says" for at in (4, 7)
        ]
        pages = [data_url(page([[line]], 22)) for line in lines]
        one = await chat(seeing, asked("?", *pages, max_tokens=1))
        spelled = "".join(f"The attached picture says:\n\n{line}\n\n" for line in lines)
        told = await chat(seeing, asked(spelled + "?", max_tokens=1))
        assert one["usage"]["prompt_tokens"] == told["usage"]["prompt_tokens"]
        assert one["choices"] == told["choices"]
