"""What a model server is asked for beyond text, and what becomes of its calls and thoughts."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.errors import BadRequest, UpstreamFailed
from inferd.tasks.base import Usage
from inferd.tasks.text_generation import (
    CallDelta,
    ChatPrompt,
    Constraint,
    Done,
    Message,
    Text,
    TextGenerationRequest,
    TokenizeRequest,
    TokenPrompt,
    Tool,
    ToolCall,
    ToolUse,
)
from tests.contract.test_model_server import DONE, WHOLE, event, events_of, sending, upstream, usage

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


def chunk(reason: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def call(arguments: str, index: int = 0, id_: str | None = None, name: str | None = None) -> Any:
    piece: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if id_ is not None:
        piece |= {"id": id_, "type": "function"}
        piece["function"]["name"] = name
    return [piece]


def request(prompt: Any = None, **wishes: Any) -> TextGenerationRequest:
    return TextGenerationRequest("t/m", prompt or ChatPrompt((Message("user", "hi"),)), **wishes)


async def asked(wish: TextGenerationRequest) -> tuple[bytes, Any]:
    async with upstream(sending(WHOLE)) as mock:
        await events_of(mock.card(), wish)
    return mock.asked[0]


async def test_every_wish_travels_under_its_name() -> None:
    tools = ToolUse((Tool("f", "d", SCHEMA), Tool("g")), required=True, parallel=False)
    messages = (
        Message("user", "hi"),
        Message("assistant", "", tool_calls=(ToolCall("c1", "f", "{}"),)),
        Message("tool", "7", tool_call_id="c1"),
    )
    kwargs: dict[str, str | int | bool] = {"enable_thinking": True, "reasoning_effort": "high"}
    prompt = ChatPrompt(messages, tools, kwargs)
    _, body = await asked(
        request(
            prompt,
            constraint=Constraint("json_schema", SCHEMA),
            logprobs=3,
            logit_bias=((5, -1.0),),
            stop_token_ids=(2,),
            ignore_eos=True,
        )
    )
    assert body["tool_choice"] == "required"
    assert body["parallel_tool_calls"] is False
    assert [tool["function"]["name"] for tool in body["tools"]] == ["f", "g"]
    assert body["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert body["messages"][2]["tool_call_id"] == "c1"
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
    assert (body["logit_bias"], body["stop_token_ids"]) == ({"5": -1.0}, [2])
    assert body["ignore_eos"] is True
    assert (body["chat_template_kwargs"], body["reasoning_effort"]) == (kwargs, "high")


async def test_one_required_tool_is_named_and_tokens_travel_as_they_are() -> None:
    prompt = ChatPrompt((Message("user", "hi"),), ToolUse((Tool("f"),), required=True))
    _, body = await asked(request(prompt))
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    head, body = await asked(request(TokenPrompt((1, 2, 3)), logprobs=2, echo=True))
    assert b"/v1/completions" in head
    assert (body["prompt"], body["logprobs"], body["echo"]) == ([1, 2, 3], 2, True)


async def test_calls_and_thoughts_come_through_with_one_id() -> None:
    stream = [
        chunk(role="assistant", reasoning_content="hm "),
        chunk(reasoning="so"),
        chunk(tool_calls=call("", id_="c9", name="f")),
        chunk(tool_calls=call('{"x"')),
        chunk(tool_calls=call(": 1}")),
        chunk("tool_calls"),
        event(
            {
                "choices": [],
                "usage": usage(7, 9) | {"completion_tokens_details": {"reasoning_tokens": 4}},
            }
        ),
        DONE,
    ]
    async with upstream(sending(*stream)) as mock:
        seen = await events_of(mock.card(), request())
    texts = [one for one in seen if isinstance(one, Text)]
    assert "".join(one.reasoning for one in texts) == "hm so"
    calls = [piece for one in texts for piece in one.calls]
    assert calls[0] == CallDelta(0, "c9", "f", "")
    assert {piece.id for piece in calls} == {"c9"}
    assert "".join(piece.arguments for piece in calls) == '{"x": 1}'
    assert seen[-1] == Done(("tool_calls",), Usage(7, 0, 9, reasoning_tokens=4))


async def test_logprobs_come_through() -> None:
    listed = [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Hi", "logprob": -0.5}]}]
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": listed}}
    stream = event({"choices": [choice]}) + chunk("stop") + DONE
    async with upstream(sending(stream)) as mock:
        seen = await events_of(mock.card(), request(logprobs=1))
    (token,) = [token for one in seen if isinstance(one, Text) for token in one.tokens]
    assert (token.text, token.logprob, token.top) == ("Hi", -0.5, ((-1, "Hi", -0.5),))


async def test_a_call_without_an_id_is_the_servers_fault() -> None:
    async with upstream(sending(chunk(tool_calls=call("{}")) + DONE)) as mock:
        with pytest.raises(UpstreamFailed, match="id"):
            await events_of(mock.card(), request())


async def test_its_tokenizer_is_out_of_reach() -> None:
    async with upstream() as mock:
        wish: Any = TokenizeRequest("t/m", ChatPrompt((Message("user", "hi"),)))
        with pytest.raises(BadRequest, match="tokenizer"):
            await events_of(mock.card(), wish)
