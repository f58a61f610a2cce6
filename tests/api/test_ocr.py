"""Reading documents over the wire, with the packaged networks: shapes, money, faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from inferd.money import usd
from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries
from tests.weights import local_card
from tests.writing import INVOICE, INVOICE_LINES, data_url, page, png

MODEL = "RapidAI/RapidOCR"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("documents")
    options = RouterOptions(memory_bytes=1 << 33)
    async with gateway(folder, local_card(MODEL), router_options=options) as running:
        yield running


async def call(gate: Gateway, **body: Any) -> Response:
    return await gate.client.post(f"/v1/inference/{MODEL}", body)


class Test200:
    async def test_an_invoice(self, gate: Gateway) -> None:
        answer = await call(gate, image=data_url(page(INVOICE)))
        assert answer.status == 200, answer.body
        told = answer.json()
        assert told["text"].split("\n") == INVOICE_LINES
        assert [one["text"] for one in told["results"]] == INVOICE_LINES
        assert {len(one["box"]) for one in told["results"]} == {4}
        assert told["inference_status"]["status"] == "succeeded"
        assert told["inference_status"]["tokens_input"] is None

    async def test_a_form_reads_the_same(self, gate: Gateway) -> None:
        head = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        body = head + png(page(INVOICE)) + b"\r\n--cut--\r\n"
        kind = {"content-type": "multipart/form-data; boundary=cut"}
        answer = await gate.client.post(f"/v1/inference/{MODEL}", body, headers=kind)
        assert answer.json()["text"].split("\n") == INVOICE_LINES

    async def test_a_page_costs_the_time_it_took(self, gate: Gateway) -> None:
        told = (await call(gate, image=data_url(page(INVOICE)))).json()
        entry = (await entries(gate))[-1]
        assert (entry.request_id, entry.unit) == (told["request_id"], "compute_seconds")
        assert 10_000 < entry.quantity < 60_000_000
        assert told["inference_status"]["cost"] == usd(entry.cost_nanos)
        # 0.0005 dollars a second: 500,000 nano-dollars for a million microseconds.
        assert entry.cost_nanos == pytest.approx(entry.quantity / 2, abs=1)

    async def test_nothing_written_is_an_empty_text(self, gate: Gateway) -> None:
        told = (await call(gate, image=data_url(Image.new("RGB", (64, 64), "white")))).json()
        assert (told["text"], told["results"]) == ("", [])
        assert told["inference_status"]["cost"] > 0


class Test400:
    @pytest.mark.parametrize(
        ("size", "sentence"), [((16_385, 16), "at most"), ((1, 40), "at least 2")]
    )
    async def test_sizes(self, gate: Gateway, size: tuple[int, int], sentence: str) -> None:
        answer = await call(gate, image=data_url(Image.new("1", size)))
        assert answer.status == 400
        assert sentence in answer.json()["detail"]["error"]

    async def test_a_broken_page_among_good_ones_fails_alone(self, gate: Gateway) -> None:
        whole = data_url(page(INVOICE[:1]))
        broken = whole[: len(whole) // 8 * 4]
        answers = await asyncio.gather(*(call(gate, image=one) for one in (whole, broken, whole)))
        assert [answer.status for answer in answers] == [200, 400, 200]
        assert "not a sound picture" in answers[1].json()["detail"]["error"]
