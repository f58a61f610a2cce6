"""Classifying pictures over the wire, with the bundled models: shapes, quality, money, faults."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from inferd.money import usd
from inferd.serving.router import RouterOptions
from tests.gateway import Gateway, Response, gateway
from tests.ledger import entries
from tests.pictures import picture_path
from tests.weights import local_card

CLASSIFIER = "inferd/efficientnet-lite0"
ZERO_SHOT = "inferd/conse-efficientnet-lite0"
LABELS = [
    *("cat", "cup of coffee", "rocket", "motorcycle", "flower", "temple"),
    *("astronaut", "bicycle", "dog", "car", "tree", "guitar"),
]
SHOWN = {
    "chelsea.png": "cat",
    "coffee.png": "cup of coffee",
    "rocket.jpg": "rocket",
    "motorcycle_left.png": "motorcycle",
    "flower.jpg": "flower",
    "china.jpg": "temple",
    "astronaut.png": "astronaut",
}

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    cards = [local_card(CLASSIFIER), local_card(ZERO_SHOT)]
    options = RouterOptions(memory_bytes=1 << 33)
    folder = tmp_path_factory.mktemp("pictures")
    async with gateway(folder, *cards, router_options=options) as running:
        yield running


def data_url(name: str) -> str:
    return f"data:image/png;base64,{b64encode(picture_path(name).read_bytes()).decode()}"


async def call(gate: Gateway, model: str, **body: Any) -> Response:
    return await gate.client.post(f"/v1/inference/{model}", body)


async def form(gate: Gateway, model: str, image: bytes, **fields: Any) -> Response:
    """As DeepInfra's Node client sends it: no file name, every other value as JSON."""
    parts = [
        b'Content-Disposition: form-data; name="image"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + image
    ]
    for name, value in fields.items():
        head = f'Content-Disposition: form-data; name="{name}"\r\n\r\n{json.dumps(value)}'
        parts.append(head.encode())
    body = b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + b"--cut--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    return await gate.client.post(f"/v1/inference/{model}", body, headers=kind)


class Test200:
    async def test_six_of_seven_photographs_get_their_label(self, gate: Gateway) -> None:
        right = 0
        for name, label in SHOWN.items():
            image = picture_path(name).read_bytes()
            answer = await form(gate, ZERO_SHOT, image, candidate_labels=LABELS)
            assert answer.status == 200, answer.body
            results = answer.json()["results"]
            assert sorted(one["label"] for one in results) == sorted(LABELS)
            scores = [one["score"] for one in results]
            assert scores == sorted(scores, reverse=True)
            assert sum(scores) == pytest.approx(1, abs=1e-4)
            right += results[0]["label"] == label
        assert right >= 6

    async def test_the_classes_of_a_picture(self, gate: Gateway) -> None:
        told = (await call(gate, CLASSIFIER, image=data_url("coffee.png"))).json()
        assert [set(one) for one in told["results"]] == [{"label", "score"}] * 5
        assert told["results"][0]["label"] == "espresso"
        assert 0.5 < told["results"][0]["score"] <= 1

    async def test_a_form_bare_base64_and_a_data_url_are_the_same_picture(
        self, gate: Gateway
    ) -> None:
        content = picture_path("chelsea.png").read_bytes()
        answers = [
            await form(gate, CLASSIFIER, content),
            await call(gate, CLASSIFIER, image=b64encode(content).decode()),
            await call(gate, CLASSIFIER, image=data_url("chelsea.png")),
        ]
        first, *others = [answer.json()["results"] for answer in answers]
        assert "cat" in first[0]["label"]
        assert others == [first, first]

    async def test_a_picture_costs_the_time_it_took(self, gate: Gateway) -> None:
        told = (await call(gate, CLASSIFIER, image=data_url("chelsea.png"))).json()
        entry = (await entries(gate))[-1]
        assert entry.request_id == told["request_id"]
        assert entry.unit == "compute_seconds"
        assert 0 < entry.quantity < 10_000_000
        assert told["inference_status"]["cost"] == usd(entry.cost_nanos) > 0
        assert told["inference_status"]["tokens_input"] is None

    async def test_a_bad_picture_among_good_ones_fails_alone(self, gate: Gateway) -> None:
        good = picture_path("chelsea.png").read_bytes()
        images = [good, good, good[: len(good) // 2], good, good]
        answers = await asyncio.gather(*(form(gate, CLASSIFIER, image) for image in images))
        assert [answer.status for answer in answers] == [200, 200, 400, 200, 200]
        assert answers[2].json()["detail"]["error"] == "image is not a sound picture."
        whole = {str(answers[at].json()["results"][0]["label"]) for at in (0, 1, 3, 4)}
        assert len(whole) == 1


class Test400:
    @pytest.mark.parametrize(
        ("image", "sentence"),
        [
            ("AAAA", "no image"),
            ("data:image/png;base64,*", "base64"),
            (b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), "no image"),
        ],
    )
    async def test_what_is_no_picture(self, gate: Gateway, image: str, sentence: str) -> None:
        answer = await call(gate, CLASSIFIER, image=image)
        assert answer.status == 400
        assert sentence in answer.json()["detail"]["error"]

    async def test_a_label_that_is_too_long_for_the_encoder(self, gate: Gateway) -> None:
        labels = ["cat", "dog " * 127]
        image = data_url("chelsea.png")
        answer = await call(gate, ZERO_SHOT, image=image, candidate_labels=labels)
        assert answer.status == 400
        assert "tokens" in answer.json()["detail"]["error"]


class Test422:
    @pytest.mark.parametrize("labels", [None, [], [""], ["a"] * 1001, ["x" * 513], "cat"])
    async def test_labels_are_a_list_of_1_to_1000(self, gate: Gateway, labels: object) -> None:
        answer = await call(gate, ZERO_SHOT, image="AAAA", candidate_labels=labels)
        assert answer.status == 422

    async def test_a_call_without_a_picture(self, gate: Gateway) -> None:
        assert (await call(gate, CLASSIFIER)).status == 422
