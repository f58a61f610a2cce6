"""Stop strings, chat templates, slots, budgets: the parts of engines that touch text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engines.budget import output_budget
from inferd.engines.chat_template import ChatTemplate
from inferd.engines.llama_slots import LlamaSlots
from inferd.engines.registry import ENGINES, engine_class
from inferd.engines.stop_strings import StopStrings
from inferd.errors import BadRequest, ContextLengthExceeded, EngineFailed
from inferd.tasks.text_generation import ChatPrompt, Message

letters = st.text("ab ", max_size=40)


@given(letters, st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_cut_alike_however_the_text_is_chunked(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(found)[1]] if found else text
    machine, shown, rest = StopStrings(tuple(stops)), "", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        shown += machine.feed(rest[:size])
        rest = rest[size:]
    shown += machine.flush()
    assert shown == expected
    assert bool(machine.matched) is bool(found)


def test_adversarial_text_is_linear() -> None:
    machine = StopStrings(("a" * 1024,) * 16)
    began = time.process_time()
    for _ in range(2000):
        machine.feed("a" * 100 + "b")
    assert time.process_time() - began < 20


def said(text: str) -> ChatPrompt:
    return ChatPrompt((Message("user", text),))


def test_a_template_sees_roles_and_contents() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
        bos_token="^",
    )
    assert template.render(said("hi {{ 7*7 }}")).text == "^<user>hi {{ 7*7 }}<assistant>"


def test_a_model_without_a_template_gets_a_plain_one() -> None:
    assert ChatTemplate(None).render(said("hi")).text == "user: hi\nassistant:"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ raise_exception('no such role') }}",
        "{{ 1 / 'x' }}",
    ],
)
def test_what_a_template_may_not_do_is_refused(source: str) -> None:
    with pytest.raises(BadRequest, match="chat template"):
        ChatTemplate(source).render(said("hi"))


def test_a_broken_template_fails_at_load() -> None:
    with pytest.raises(EngineFailed):
        ChatTemplate("{% for %}")


def test_a_slot_is_reused_by_its_own_scope_and_cleared_for_others() -> None:
    slots = LlamaSlots(2)
    (first,) = slots.take("a", 1)
    slots.give_back([first])
    (again,) = slots.take("a", 1)
    assert (again.index, again.reuse) == (first.index, True)
    (other,) = slots.take("b", 1)
    assert (other.index != first.index, other.reuse) == (True, False)
    slots.give_back([again, other])
    third = slots.take("c", 2)
    assert [slot.reuse for slot in third] == [False, False]


@given(st.integers(1, 10_000), st.integers(0, 12_000), st.none() | st.integers(1, 12_000))
def test_prompt_and_output_never_exceed_the_context(
    context: int, prompt: int, asked: int | None
) -> None:
    if prompt + (asked or 1) > context:
        with pytest.raises(ContextLengthExceeded, match=str(context)):
            output_budget(context, prompt, asked)
        return
    budget = output_budget(context, prompt, asked)
    assert budget >= 1
    assert prompt + budget <= context
    assert asked is None or budget == asked


def test_every_registered_engine_is_there_and_an_unknown_one_is_named() -> None:
    for name in ENGINES:
        assert hasattr(engine_class(name), "run")
    with pytest.raises(BadRequest, match="nonsense"):
        engine_class("nonsense")
