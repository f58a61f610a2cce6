"""POST /v1/inference/{model}: one class for each status."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferd.money import usd
from tests.gateway import Client, Gateway
from tests.ledger import entries

ECHO = "/v1/inference/test/echo"


def body(text: str = "one two three", **fields: Any) -> dict[str, Any]:
    return {"input": text, **fields}


class Test200:
    async def test_a_plain_answer_has_the_envelope(self, gate: Gateway) -> None:
        answer = await gate.client.post(ECHO, body())
        told = answer.json()
        (entry,) = await entries(gate)
        assert answer.status == 200
        assert told["request_id"] == answer.headers["x-request-id"] == entry.request_id
        status = told["inference_status"]
        assert status["status"] == "succeeded"
        assert status["cost"] == usd(entry.cost_nanos) > 0
        assert status["tokens_input"] == told["num_input_tokens"] == entry.input_tokens
        assert status["tokens_generated"] == told["num_tokens"] == entry.output_tokens
        assert told["results"][0]["generated_text"]

    async def test_the_stream_ends_with_the_whole_text_and_details(self, gate: Gateway) -> None:
        answer = await gate.client.post(ECHO, body(stream=True))
        *events, last = answer.events()
        assert "".join(event["token"]["text"] for event in events) == last["generated_text"]
        assert all(event["details"] is None for event in events)
        assert last["details"]["finish_reason"] == "eos_token"
        assert last["details"]["generated_tokens"] == last["num_tokens"] > 0
        assert answer.body.endswith(b"data: [DONE]\n\n")

    async def test_no_stream_event_says_error(self, gate: Gateway) -> None:
        answer = await gate.client.post(ECHO, body(stream=True))
        assert b"error" not in answer.body

    async def test_num_responses_gives_as_many_results(self, gate: Gateway) -> None:
        told = (await gate.client.post(ECHO, body(num_responses=3))).json()
        assert len(told["results"]) == 3

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [({"max_new_tokens": 1}, "length"), ({"stop": ["two"]}, "stop_sequence")],
    )
    async def test_finish_reasons_are_tgis(
        self, gate: Gateway, fields: dict[str, Any], reason: str
    ) -> None:
        answer = await gate.client.post(ECHO, body(stream=True, **fields))
        assert answer.events()[-1]["details"]["finish_reason"] == reason

    async def test_a_body_without_a_content_type_is_json(self, gate: Gateway) -> None:
        raw = msgspec.json.encode(body())
        assert (await gate.client.post(ECHO, raw)).status == 200


def form(*parts: tuple[str, str]) -> tuple[bytes, dict[str, str]]:
    lines = "".join(
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in parts
    )
    headers = {"content-type": "multipart/form-data; boundary=xyz"}
    return (lines + "--xyz--\r\n").encode(), headers


class TestForms:
    @pytest.mark.parametrize("quoted", ["one two three", '"one two three"'])
    async def test_strings_come_bare_or_quoted(self, gate: Gateway, quoted: str) -> None:
        body_, headers = form(("input", quoted), ("max_new_tokens", "2"), ("stop", '["zzz"]'))
        told = (await gate.client.post(ECHO, body_, headers=headers)).json()
        assert told["results"][0]["generated_text"] == "one two"
        assert told["num_tokens"] == 2

    async def test_a_text_that_looks_like_json_stays_text(self, gate: Gateway) -> None:
        body_, headers = form(("input", '["dog", 5]'))
        told = (await gate.client.post(ECHO, body_, headers=headers)).json()
        assert told["results"][0]["generated_text"] == '["dog", 5]'

    @pytest.mark.parametrize(
        ("parts", "status"),
        [
            ([("max_new_tokens", "2")], 422),
            ([("input", "x"), ("max_new_tokens", "zero")], 422),
            ([("input", "x"), ("webhook", "nowhere")], 400),
        ],
    )
    async def test_what_does_not_fit_is_refused(
        self, gate: Gateway, parts: list[tuple[str, str]], status: int
    ) -> None:
        body_, headers = form(*parts)
        assert (await gate.client.post(ECHO, body_, headers=headers)).status == status

    @pytest.mark.parametrize(
        ("raw", "kind"),
        [
            (b"no boundary at all", "multipart/form-data"),
            (b"", "multipart/form-data; boundary=xyz"),
            (b"\r\n--xyz\r\n" * 500, "multipart/form-data; boundary=xyz"),
            (b"--xyz\r\n\r\nnameless\r\n--xyz--", "multipart/form-data; boundary=xyz"),
        ],
    )
    async def test_what_is_no_form_is_a_bad_request(
        self, gate: Gateway, raw: bytes, kind: str
    ) -> None:
        answer = await gate.client.post(ECHO, raw, headers={"content-type": kind})
        assert answer.status in (400, 422)


class Test400:
    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"webhook": "nowhere"}, "webhook"),
            ({"response_format": {"type": "regex"}}, "regex"),
            ({"num_responses": 2, "stream": True}, "num_responses"),
        ],
    )
    async def test_what_is_not_supported_is_named(
        self, gate: Gateway, fields: dict[str, Any], name: str
    ) -> None:
        answer = await gate.client.post(ECHO, body(**fields))
        assert answer.status == 400
        assert name in answer.json()["detail"]["error"]


class Test401:
    async def test_the_native_shape(self, gate: Gateway) -> None:
        answer = await Client(gate.client.app, token=None).post(ECHO, body())
        assert answer.status == 401
        assert answer.json() == {"detail": {"error": "Not authenticated."}}


class Test404:
    @pytest.mark.parametrize("name", ["test/unknown", "a", "test/echo/more", "..", "deploy/x"])
    async def test_an_unknown_model(self, gate: Gateway, name: str) -> None:
        answer = await gate.client.post(f"/v1/inference/{name}", body())
        assert answer.status == 404
        assert "error" in answer.json()["detail"]


class Test422:
    @pytest.mark.parametrize(
        ("fields", "place"),
        [
            ({"max_new_tokens": 0}, "max_new_tokens"),
            ({"temperature": 101}, "temperature"),
            ({"num_responses": 10**9}, "num_responses"),
            ({"stop": ["a"] * 17}, "stop"),
            ({"input": 5}, "input"),
        ],
    )
    async def test_a_field_out_of_bounds_is_named_with_its_place(
        self, gate: Gateway, fields: dict[str, Any], place: str
    ) -> None:
        answer = await gate.client.post(ECHO, body() | fields)
        assert answer.status == 422
        assert answer.json()["detail"][0]["loc"] == ["body", place]

    async def test_a_missing_input(self, gate: Gateway) -> None:
        assert (await gate.client.post(ECHO, {})).status == 422
