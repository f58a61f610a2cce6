"""Templates inside model files, made to break out or to compute for ever (A12)."""

from __future__ import annotations

import os

import pytest

from inferd.engines.chat_template import ChatTemplate
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.text_generation import ChatPrompt, Message
from tests.awake import Stopwatch
from tests.hostile.attack import leaks

PROMPT = ChatPrompt((Message("user", "hi"),))

BREAK_OUTS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch /tmp/inferd-was-here').read() }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ raise_exception.__globals__['secrets'] }}",
    "{{ strftime_now.__globals__ }}",
    "{{ namespace.__init__.__globals__['os'].environ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ '{a.__class__.__mro__}'.format_map({'a': messages}) }}",
    "{{ messages|map(attribute='__class__')|list|string }}",
    "{{ (''|attr('__class__')).__mro__ }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ joiner.__init__['__globals__'] }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('id') }}",
    "{% extends '/etc/passwd' %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages.clear() }}",
    "{{ self._TemplateReference__context.environment }}",
]
BOMBS = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set turns = range %}{% for i in 'x' * 9999 %}{% for j in 'x' * 9999 %}{% endfor %}"
    "{% endfor %}",
    "{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ ('a' * 10**10)|length }}",
    "{{ ([0] * 10**10)|length }}",
    "{{ 9**(9**9) }}",
    "{{ 10**4000 * 10**4000 * 10**4000 }}",
    "{{ ('a'|center(10**10))|length }}",
    "{{ ('a\\nb'|indent(10**10))|length }}",
    "{{ 'a'.ljust(10**10)|length }}",
    "{{ 'a'.zfill(10**10)|length }}",
    "{{ ('%9999999999d' % 1)|length }}",
    "{{ '{:>9999999999}'.format(1)|length }}",
    "{{ '{:>{}}'.format(1, 10**10)|length }}",
    "{{ '{a:>{w}}'.format_map({'a': 1, 'w': 10**10})|length }}",
    "{{ ('%*d' % (10**10, 1))|length }}",
    "{{ ('%9999999999d'|format(1))|length }}",
    "{{ messages|batch(10**10, 0)|list|length }}",
    "{{ messages|slice(10**10)|list|length }}",
    "{{ ('a' * 99999).replace('a', 'b' * 99999)|length }}",
    "{{ ('a' * 99999).join(['b'] * 99999)|length }}",
    "{{ lipsum(n=100000) }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
]


def rendered(source: str) -> str:
    """What a template makes, or the sentence that refuses it."""
    try:
        return ChatTemplate(source).render(PROMPT).text
    except (BadRequest, EngineFailed) as refusal:
        return refusal.message


@pytest.mark.parametrize("source", BREAK_OUTS)
def test_a_template_reaches_nothing_but_its_messages(source: str) -> None:
    before = PROMPT.messages
    said = rendered(source)
    assert not leaks(said.encode())
    for word in ("environ(", "__builtins__'", "root:", "<module", "<function", "subprocess"):
        assert word not in said
    assert PROMPT.messages == before
    assert not os.path.exists("/tmp/inferd-was-here")


@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:40])
def test_a_template_that_would_compute_for_ever_is_refused(source: str) -> None:
    clock = Stopwatch()
    said = rendered(source)
    assert clock.seconds() < 5
    assert "template" in said


def test_what_real_templates_do_still_works() -> None:
    source = (
        "{%- for m in messages -%}{{ loop.index }}/{{ loop.length }} {{ loop.last }} "
        "{{ '%-6s|' % m.role }}{{ ('=' * 3) }}{{ m.content|indent(2) }}{%- endfor -%}"
        "{% set ns = namespace(n=0) %}{% for i in range(0, 10, 3) %}"
        "{% if i == 6 %}{% break %}{% endif %}{% set ns.n = ns.n + i * 2 %}{% endfor %}{{ ns.n }}"
        "{% for x in [] %}{% else %} none{% endfor %}"
    )
    template = ChatTemplate(source)
    for _ in range(3):
        assert template.render(PROMPT).text == "1/1 True user  |===hi6 none"
