"""Each of the tasks behind a real server: DeepInfra's bodies, what they cost, what is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.pictures import picture_path
from tests.process import InferdProcess, serving
from tests.transformers import tiny
from tests.transformers.loaded import card

pytestmark = [
    pytest.mark.transformers,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.asyncio(loop_scope="module"),
]

MODELS = {
    "t/opinions": "text-classification",
    "t/names": "token-classification",
    "t/masks": "fill-mask",
    "t/questions": "question-answering",
    "t/vit": "image-classification",
    "t/detr": "object-detection",
    "t/clip": "zero-shot-image-classification",
    "t/siglip2": "zero-shot-image-classification",
}
IMAGE = "data:image/png;base64," + b64encode(picture_path("coffee.png").read_bytes()).decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InferdProcess]:
    cards = [
        card(name, task, folder(name.partition("/")[2]))  # type: ignore[arg-type]
        for name, task in MODELS.items()
    ]
    async with serving(tmp_path_factory.mktemp("data"), *cards) as running:
        yield running


async def call(server: InferdProcess, name: str, **body: Any) -> httpx.Response:
    async with server.client() as client:
        return await client.post(f"/v1/inference/{name}", json=body)


async def told(server: InferdProcess, name: str, **body: Any) -> Any:
    """The answer of a call, whose bill is looked at."""
    answer = await call(server, name, **body)
    assert answer.status_code == 200, answer.text + server.stderr()
    whole = answer.json()
    status = whole["inference_status"]
    entry = server.entries()[-1]
    assert (whole["request_id"], status["status"]) == (entry.request_id, "succeeded")
    assert status["cost"] * 1_000_000_000 == pytest.approx(entry.cost_nanos)
    if MODELS[name].rpartition("-")[2] in ("classification", "detection") and "image" in body:
        assert (entry.unit, status["tokens_input"]) == ("compute_seconds", None)
        # A dollar a second: a microsecond is a thousand nano-dollars.
        assert entry.cost_nanos == 1000 * entry.quantity > 0
    else:
        assert status["tokens_input"] == entry.input_tokens > 0
        # A dollar for a million tokens.
        assert entry.cost_nanos == 1000 * entry.input_tokens
    return whole


class TestTexts:
    async def test_text_classification(self, server: InferdProcess) -> None:
        whole = await told(server, "t/opinions", input="a good film")
        assert [one["label"] for one in whole["results"]] == ["POSITIVE", "NEGATIVE"]
        assert sum(one["score"] for one in whole["results"]) == pytest.approx(1, abs=1e-5)
        assert whole["inference_status"]["tokens_input"] == 5

    async def test_token_classification(self, server: InferdProcess) -> None:
        whole = await told(server, "t/names", input="anna lives in berlin.")
        (anna, berlin) = whole["results"]
        assert set(anna) == {"entity_group", "score", "word", "start", "end"}
        assert (anna["entity_group"], anna["word"], anna["start"], anna["end"]) == (
            *("PER", "anna"),
            *(0, 4),
        )
        assert (berlin["entity_group"], berlin["word"]) == ("LOC", "berlin")

    async def test_fill_mask(self, server: InferdProcess) -> None:
        whole = await told(server, "t/masks", input="anna lives in [MASK] .")
        assert len(whole["results"]) == 5
        best = whole["results"][0]
        assert set(best) == {"sequence", "score", "token", "token_str"}
        assert (best["token_str"], best["sequence"]) == ("berlin", "anna lives in berlin.")

    async def test_question_answering(self, server: InferdProcess) -> None:
        question, context, answer = tiny.QUESTIONS[1]
        whole = await told(server, "t/questions", question=question, context=context)
        assert set(whole) == {
            *("request_id", "inference_status"),
            *("answer", "score", "start", "end"),
        }
        assert (whole["answer"], context[whole["start"] : whole["end"]]) == (answer, answer)


class TestPictures:
    async def test_image_classification(self, server: InferdProcess) -> None:
        whole = await told(server, "t/vit", image=IMAGE)
        assert [set(one) for one in whole["results"]] == [{"label", "score"}] * 5

    async def test_object_detection(self, server: InferdProcess) -> None:
        whole = await told(server, "t/detr", image=IMAGE, threshold=0)
        assert len(whole["results"]) == 9
        assert set(whole["results"][0]) == {"label", "score", "box"}
        assert set(whole["results"][0]["box"]) == {"xmin", "ymin", "xmax", "ymax"}
        sure = await told(server, "t/detr", image=IMAGE, threshold=1)
        assert sure["results"] == []

    @pytest.mark.parametrize("name", ["t/clip", "t/siglip2"])
    async def test_zero_shot(self, server: InferdProcess, name: str) -> None:
        labels = ["cat", "cup of coffee"]
        whole = await told(server, name, image=IMAGE, candidate_labels=labels)
        assert sorted(one["label"] for one in whole["results"]) == labels
        total = sum(one["score"] for one in whole["results"])
        assert (total == pytest.approx(1, abs=1e-5)) == (name == "t/clip")

    async def test_a_form_as_deepinfras_client_sends_it(self, server: InferdProcess) -> None:
        content = picture_path("coffee.png").read_bytes()
        labels = json.dumps(["cat", "cup of coffee"])
        async with server.client() as client:
            answer = await client.post(
                "/v1/inference/t/clip",
                files={"image": ("image", content, "application/octet-stream")},
                data={"candidate_labels": labels},
            )
        whole = await told(server, "t/clip", image=IMAGE, candidate_labels=["cat", "cup of coffee"])
        assert answer.json()["results"] == whole["results"]


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "body", "status"),
        [
            ("t/opinions", {}, 422),
            ("t/opinions", {"input": ""}, 422),
            ("t/opinions", {"input": 7}, 422),
            ("t/opinions", {"input": "good " * 200}, 400),
            ("t/masks", {"input": "no mask"}, 400),
            ("t/masks", {"input": "[MASK] [MASK]"}, 400),
            ("t/questions", {"question": "who?"}, 422),
            ("t/questions", {"question": "why " * 120, "context": "x"}, 400),
            ("t/vit", {"image": "AAAA"}, 400),
            ("t/detr", {"image": IMAGE, "threshold": 2}, 422),
            ("t/clip", {"image": IMAGE, "candidate_labels": []}, 422),
            ("t/clip", {"image": IMAGE, "candidate_labels": ["a" * 100]}, 400),
        ],
    )
    async def test_and_free(
        self, server: InferdProcess, name: str, body: dict[str, Any], status: int
    ) -> None:
        before = len(server.entries())
        answer = await call(server, name, **body)
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]
        assert [one.cost_nanos for one in server.entries()[before:] if one.cost_nanos] == []
