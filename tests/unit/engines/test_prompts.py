"""Prompts with tools and thinking: what templates see, what models are taught, what holds them."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.catalog.gguf_header import read_header
from inferd.engines.chat_template import ChatTemplate
from inferd.engines.grammar import Follower
from inferd.engines.llama_prompt import LlamaPrompts
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_generation import (
    ChatPrompt,
    Constraint,
    Message,
    TextGenerationRequest,
    Tool,
    ToolCall,
    ToolUse,
)
from tests.weights import smollm2_cut_path

HERMES = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls %}<tool_call>{{ c.function.arguments | tojson }}</tool_call>"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
THINKING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking %}<think>\n{% else %}<think></think>{% endif %}{% endif %}"
)
TOOLS = ToolUse((Tool("f", "Does it.", {"type": "object"}),))
CALLED = (
    Message("user", "hi"),
    Message("assistant", "", tool_calls=(ToolCall("c", "f", '{"x": [1]}'),)),
    Message("tool", "7", tool_call_id="c"),
    Message("tool", "8", tool_call_id="d"),
)


def test_a_template_that_knows_tools_gets_them_and_arguments_as_objects() -> None:
    text = ChatTemplate(HERMES).render(ChatPrompt(CALLED, TOOLS)).text
    assert '"name": "f"' in text
    assert '<tool_call>{"x": [1]}</tool_call>' in text
    assert "<tool>7" in text


def test_one_that_does_not_is_taught_and_sees_plain_turns() -> None:
    rendered = ChatTemplate(None).render(ChatPrompt(CALLED, TOOLS)).text
    assert rendered.startswith("system: You can call functions.")
    assert '"description":"Does it."' in rendered
    assert (
        'assistant: <tool_call>\n{"name": "f", "arguments": {"x": [1]}}\n</tool_call>' in rendered
    )
    # Results of parallel calls are one turn.
    results = "<tool_response>\n7\n</tool_response>\n<tool_response>\n8\n</tool_response>"
    assert f"user: {results}" in rendered
    own = (Message("system", "Be kind."), Message("user", "hi"))
    taught = ChatTemplate(None).render(ChatPrompt(own, TOOLS)).text
    assert taught.startswith("system: Be kind.\n\nYou can call functions.")


def test_a_message_is_continued_where_it_ends() -> None:
    messages = (Message("user", "count"), Message("assistant", "one"))
    rendered = ChatTemplate(None).render(ChatPrompt(messages, continue_final=True))
    assert rendered.text == "user: count\nassistant: one"
    hidden = "{% for m in messages %}{{ m.role }}{% endfor %}"
    with pytest.raises(BadRequest, match="continue"):
        ChatTemplate(hidden).render(ChatPrompt(messages, continue_final=True))


@pytest.mark.parametrize("thinks", [True, False])
def test_the_template_decides_where_the_answer_begins(thinks: bool) -> None:
    kwargs: dict[str, str | int | bool] = {"enable_thinking": thinks}
    prompt = ChatPrompt((Message("user", "hi"),), template_kwargs=kwargs)
    assert ChatTemplate(THINKING).render(prompt).in_thought is thinks


@pytest.mark.engine
class TestGrammars:
    @pytest.fixture
    def prompts(self) -> LlamaPrompts:
        made = LlamaPrompts(read_header(smollm2_cut_path()), 2048)
        made.template = ChatTemplate(THINKING)
        return made

    def follows(self, prompts: LlamaPrompts, answer: str, **wishes: Any) -> bool:
        kwargs: dict[str, str | int | bool] = {"enable_thinking": wishes.pop("inside", False)}
        prompt = ChatPrompt((Message("user", "hi"),), wishes.pop("use", None), kwargs)
        prepared = prompts.prepare(TextGenerationRequest("m", prompt, **wishes))
        follower = Follower(prepared.grammar)
        try:
            follower.feed(answer)
        except EngineFailed:
            return False
        return follower.complete

    def test_thinking_comes_before_a_format(self, prompts: LlamaPrompts) -> None:
        number = Constraint("regex", pattern="[0-9]+")
        for answer in ("7", "<think>so, 6 + 1</think>\n\n7"):
            assert self.follows(prompts, answer, constraint=number)
        assert self.follows(prompts, "so, 6 + 1</think>\n7", constraint=number, inside=True)
        assert not self.follows(prompts, "so, 6 + 1", constraint=number)

    def test_thinking_comes_before_a_call(self, prompts: LlamaPrompts) -> None:
        call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
        must = ToolUse(TOOLS.tools, required=True)
        assert self.follows(prompts, f"<think>hm</think>\n{call}", use=must)
        assert not self.follows(prompts, "No.", use=must)
        assert self.follows(prompts, "No.", use=TOOLS)
        assert self.follows(prompts, f"Yes.\n{call}", use=TOOLS)
        assert not self.follows(prompts, f"Yes.\n{call.replace('f', 'g', 1)}", use=TOOLS)

    def test_a_format_or_a_call_where_both_are_free(self, prompts: LlamaPrompts) -> None:
        call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
        json = Constraint("json_object")
        for answer in ('{"a": 1}', call):
            assert self.follows(prompts, answer, use=TOOLS, constraint=json)
        assert not self.follows(prompts, "words", use=TOOLS, constraint=json)

    def test_several_calls_where_they_are_allowed(self, prompts: LlamaPrompts) -> None:
        call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
        for parallel in (True, False, None):
            use = ToolUse(TOOLS.tools, required=True, parallel=parallel)
            assert self.follows(prompts, f"{call}\n{call}", use=use) is (parallel is True)
