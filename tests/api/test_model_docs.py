"""What the catalogue says of a model of each task is true: its price, its schemas, its examples."""

from __future__ import annotations

import io
import shlex
import wave
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from inferd.api.native.task_docs import TASK_DOCS
from inferd.catalog.card import ModelCard
from inferd.catalog.card_price import CardPrice
from inferd.catalog.catalog import load_catalog
from inferd.cli.run_tasks import Wish, task_call
from inferd.serving.router import RouterOptions
from inferd.tasks.base import TASK_UNITS, TaskName
from tests.gateway import Client, Gateway, Response, echo_card, gateway
from tests.ledger import entries
from tests.writing import INVOICE, page, png

TASKS: tuple[TaskName, ...] = get_args(TaskName)
PRICES = {
    None: CardPrice(input="1", output="2", cached="0.5"),
    "input_seconds": CardPrice(input_seconds="0.001"),
    "input_characters": CardPrice(input_characters="3"),
    "image_units": CardPrice(image_units="0.25"),
    "output_seconds": CardPrice(output_seconds="0.5"),
    "compute_seconds": CardPrice(compute_seconds="100"),
}
TYPES = {
    None: {"tokens", "input_tokens"},
    "input_seconds": {"input_length"},
    "input_characters": {"input_character_length"},
    "image_units": {"image_units"},
    "output_seconds": {"output_length"},
    "compute_seconds": {"time"},
}


def card(task: TaskName) -> ModelCard:
    price = PRICES[TASK_UNITS.get(task)]
    if task not in TASK_UNITS and task != "text-generation":
        price = CardPrice(input="1")
    tokens = 0 if task in TASK_UNITS else 1000
    return echo_card(f"test/{task}", task=task, price=price, context_length=tokens)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gateway]:
    options = RouterOptions(memory_bytes=1 << 33)
    async with gateway(tmp_path, *map(card, TASKS), router_options=options) as running:
        yield running


async def details(gate: Gateway, task: TaskName) -> Any:
    """What a stranger is told."""
    answer = await Client(gate.client.app, token=None).get(f"/models/test/{task}")
    assert answer.status == 200, answer.body
    return answer.json()


def recording() -> bytes:
    told = io.BytesIO()
    with wave.open(told, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(32_000))
    return told.getvalue()


FILES = {"@picture.png": png(page(INVOICE)), "@speech.mp3": recording()}


async def by_shell(gate: Gateway, line: str) -> Response:
    """The call that a curl command makes."""
    words = shlex.split(line)
    path = "/" + words[1].split("/", 3)[3]
    values = [word for flag, word in pairwise(words) if flag in ("-d", "-F")]
    if "-d" in words:
        return await gate.client.post(path, values[0].encode())
    parts: list[bytes] = []
    for value in values:
        name, _, text = value.partition("=")
        content, suffix = FILES.get(text), ""
        if content is not None:
            suffix = f'; filename="{text[1:]}"'
        head = f'Content-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'
        parts.append(head.encode() + (text.encode() if content is None else content))
    body = b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + b"--cut--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=cut"}
    return await gate.client.post(path, body, headers=kind)


def cents(pricing: dict[str, Any], entry: Any) -> float:
    """What a request costs by the price that the catalogue shows."""
    units = entry.quantity / 1e6
    match pricing["type"]:
        case "tokens":
            cached = pricing["rate_per_input_token_cached"]
            fresh = entry.input_tokens - entry.cached_tokens + cached * entry.cached_tokens
            return (
                fresh * pricing["cents_per_input_token"]
                + entry.output_tokens * pricing["cents_per_output_token"]
            )
        case "input_tokens":
            return entry.input_tokens * pricing["cents_per_input_token"]
        case "input_length":
            return units * pricing["cents_per_input_sec"]
        case "input_character_length":
            return units * pricing["cents_per_input_chars"]
        case "image_units":
            return units * pricing["cents_per_image_unit"]
        case "output_length":
            return units * pricing["cents_per_output_sec"]
        case _:
            return units * pricing["cents_per_sec"]


@pytest.mark.parametrize("task", TASKS)
class TestEveryTask:
    async def test_the_example_call_works_and_costs_what_is_shown(
        self, gate: Gateway, task: TaskName
    ) -> None:
        told = await details(gate, task)
        assert told["type"] == told["reported_type"] == task
        answer = await by_shell(gate, told["curl_inv"])
        assert answer.status == 200, answer.body
        gives = TASK_DOCS[task].native[1]
        assert gives is not None
        msgspec.json.decode(answer.body, type=gives)
        (entry,) = await entries(gate)
        assert entry.unit == TASK_UNITS.get(task)
        assert told["pricing"]["type"] in TYPES[entry.unit]
        assert entry.cost_nanos > 0
        # A nano-dollar is ten millionths of a cent; each cost is rounded to one.
        assert cents(told["pricing"], entry) == pytest.approx(entry.cost_nanos / 1e7, abs=1e-7)

    async def test_the_example_answer_has_the_answers_shape(
        self, gate: Gateway, task: TaskName
    ) -> None:
        told = await details(gate, task)
        gives = TASK_DOCS[task].native[1]
        assert gives is not None
        msgspec.json.decode(told["out_example"], type=gives)
        assert gives.__name__ in told["out_schema"]["$defs"]
        assert told["out_docs"]
        assert told["txt_docs"]

    async def test_the_schemas_are_those_of_the_task(self, gate: Gateway, task: TaskName) -> None:
        told = await details(gate, task)
        takes = TASK_DOCS[task].native[0]
        assert takes.__name__ in told["in_schema"]["$defs"]
        names = [field["name"] for field in told["in_fields"]]
        assert set(TASK_DOCS[task].body) <= set(names)
        needed = {field["name"] for field in told["in_fields"] if field["required"]}
        assert needed <= set(TASK_DOCS[task].body)
        assert told["schemas"][0]["key"] == "default"
        for one in told["schemas"]:
            path = "/" + one["url"].split("/", 3)[3]
            shown = (await gate.client.get(path)).json()
            assert shown["variant"] == one
            assert shown["schema_in"]["$defs"]
            assert [field["name"] for field in shown["fields_in"]]
        assert (await gate.client.get(f"/models/test/{task}/schema/none")).status == 404

    async def test_the_command_line_asks_the_same(
        self, gate: Gateway, task: TaskName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = await details(gate, task)
        program, verb, name, *words = shlex.split(told["cmdline_inv"])
        assert (program, verb, name) == ("inferd", "run", f"test/{task}")
        if task == "text-generation":
            assert words == ["I have this dream"]
            return
        for file, content in FILES.items():
            (tmp_path / file[1:]).write_bytes(content)
        monkeypatch.chdir(tmp_path)
        if "-o" in words:
            words = words[: words.index("-o")]
        body = task_call(card(task), Wish(words, None, {})).body()
        answer = await gate.client.post(f"/v1/inference/{name}", body | {"stream": False})
        assert answer.status == 200, answer.body

    async def test_both_lists_say_the_same_price(self, gate: Gateway, task: TaskName) -> None:
        native = (await gate.client.get("/models/list")).json()
        (listed,) = [one for one in native if one["model_name"] == f"test/{task}"]
        told = await details(gate, task)
        assert listed["pricing"] == told["pricing"]
        openai = (await gate.client.get("/v1/openai/models?filter=with_meta")).json()["data"]
        (entry,) = [one for one in openai if one["id"] == f"test/{task}"]
        assert entry == (await gate.client.get(f"/v1/models/test/{task}")).json()
        plain = (await gate.client.get("/v1/openai/models")).json()["data"]
        assert {one["metadata"] for one in plain} == {None}
        shown: dict[str, float] = entry["metadata"]["pricing"]
        pricing = told["pricing"]
        wanted = {
            "tokens": ("input_tokens", pricing.get("cents_per_input_token", 0) * 1e4),
            "input_tokens": ("input_tokens", pricing.get("cents_per_input_token", 0) * 1e4),
            "input_length": ("input_seconds", pricing.get("cents_per_input_sec", 0) / 100),
            "input_character_length": (
                "input_characters",
                pricing.get("cents_per_input_chars", 0) * 1e4,
            ),
            "image_units": ("per_image_unit", pricing.get("default_price_cents", 0) / 100),
            "output_length": ("output_seconds", pricing.get("cents_per_output_sec", 0) / 100),
            "time": ("compute_seconds", pricing.get("cents_per_sec", 0) / 100),
        }
        name, dollars = wanted[pricing["type"]]
        assert shown[name] == pytest.approx(dollars)
        assert dollars > 0
        tokens = task not in TASK_UNITS
        assert (entry["metadata"]["context_length"], told["max_tokens"]) == (
            (1000, 1000) if tokens else (None, None)
        )


SURFACES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "chat",
    "inferd/smolcaption": "vlm",
    "inferd/emoji-flow": "image-gen",
    "inferd/emoji-motion": "video-gen",
    "sentence-transformers/all-MiniLM-L6-v2": "embed",
    "hexgrad/Kokoro-82M": "tts",
    "openai/whisper-base": "stt",
}


async def test_every_packaged_model_can_be_asked_about(tmp_path: Path) -> None:
    cards = load_catalog(None).cards()
    async with gateway(tmp_path, *cards) as running:
        listed = (await running.client.get("/models/list")).json()
        assert sorted(one["model_name"] for one in listed) == sorted(one.name for one in cards)
        openai = (await running.client.get("/v1/models?filter=with_meta")).json()["data"]
        tags = {one["id"]: one["metadata"]["tags"] for one in openai}
        words = set(SURFACES.values())
        for name, surface in SURFACES.items():
            assert words & set(tags[name]) == {surface}
        for known in cards:
            answer = await running.client.get(f"/models/{known.name}")
            assert answer.status == 200, answer.body
            told = answer.json()
            assert all(isinstance(told[key], str) for key in ("version", "curl_inv", "txt_docs"))
            if told["pricing"]["type"] != "time":
                assert isinstance(told["pricing"]["cents_per_output_token"], float)
