"""Each refusal in each dialect's own shape."""

from __future__ import annotations

import msgspec
import pytest

from inferd.api.errors import FieldInvalid, RouteNotFound, render, stream_event
from inferd.errors import BadRequest, MethodNotAllowed, TooManyRequests, Unauthorized


def test_openai_errors_have_message_type_param_and_code() -> None:
    status, body, _ = render(BadRequest("No.", param="n"), "openai")
    assert status == 400
    assert msgspec.json.decode(body) == {
        "error": {
            "message": "No.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "bad_request",
        }
    }


def test_native_errors_are_wrapped_in_detail() -> None:
    status, body, headers = render(Unauthorized("Not authenticated."), "native")
    assert status == 401
    assert msgspec.json.decode(body) == {"detail": {"error": "Not authenticated."}}
    assert (b"www-authenticate", b"Bearer") in headers


def test_a_field_that_does_not_fit_is_422_with_its_place_on_native_routes_only() -> None:
    error = FieldInvalid("Too big.", param="messages.0.role")
    status, body, _ = render(error, "native")
    assert status == 422
    assert msgspec.json.decode(body)["detail"][0]["loc"] == ["body", "messages", 0, "role"]
    lacking = FieldInvalid(
        "inputs: Field required.", param="inputs", fault="missing", said="Field required", given={}
    )
    assert msgspec.json.decode(render(lacking, "native")[1]) == {
        "detail": [
            {"type": "missing", "loc": ["body", "inputs"], "msg": "Field required", "input": {}}
        ]
    }
    assert render(error, "openai")[0] == 400


@pytest.mark.parametrize(("seconds", "header"), [(0.2, b"1"), (1.2, b"2"), (30, b"30")])
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, header: bytes) -> None:
    _, _, headers = render(TooManyRequests("Full.", retry_after_seconds=seconds), "openai")
    assert (b"retry-after", header) in headers


@pytest.mark.parametrize(
    "error", [RouteNotFound("Not Found"), MethodNotAllowed("Method Not Allowed")]
)
def test_unknown_routes_answer_like_the_original(error: BadRequest) -> None:
    _, body, _ = render(error, "openai")
    assert msgspec.json.decode(body) == {"detail": error.message}


def test_a_stream_ends_with_an_error_that_both_kinds_of_client_read() -> None:
    event = stream_event(BadRequest("Too long."))
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    body = msgspec.json.decode(event[6:])
    assert body["error"]["message"] == body["error_message"] == "Too long."
    assert body["error_type"] == "bad_request"
