"""Foreign templates: what chat templates need works, and nothing runs long or grows without end."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from typing import Any

import pytest

from yunque.data import sandbox
from yunque.data.sandbox import compile_template, run_template
from yunque.errors import InputError


def run(source: str, **values: Any) -> str:
    return run_template(compile_template(source), values, 100)


# Each doubles a value sixty times, by another way.
DOUBLE = "{{% set ns = namespace(x={0}) %}}{{% for i in range(60) %}}{1}{{% endfor %}}{2}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% set a = range(99999) | list %}{{ ([a] * 9999) | map('join') | list | length }}",
        "{% for i in range(99999) %}{% if big[1:] == big[1:] %}{% endif %}{% endfor %}",
        "{% for i in range(99999) %}{% if big.split('a') %}{% endif %}{% endfor %}",
        "{% for i in range(99999) %}{{ '0123456789012345678901234567890123456789' }}{% endfor %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ 10 ** 10 ** 10 }}",
        DOUBLE.format(3, "{% set ns.x = ns.x * ns.x %}", "{{ ns.x }}"),
        DOUBLE.format("'ab'", "{% set ns.x = ns.x + ns.x %}", "{{ ns.x }}"),
        DOUBLE.format("'ab'", "{% set ns.x = ns.x ~ ns.x %}", "{{ ns.x }}"),
        DOUBLE.format("'ab'", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}", ""),
        DOUBLE.format("'ab'", "{% set ns.x = [ns.x, ns.x] | join %}", "{{ ns.x }}"),
        DOUBLE.format("'ab'", "{% set ns.x = '%s%s' % (ns.x, ns.x) %}", "{{ ns.x }}"),
        DOUBLE.format("'ab'", "{% set ns.x = '{0}{0}'.format(ns.x) %}", "{{ ns.x }}"),
        DOUBLE.format("[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x }}"),
        DOUBLE.format("[1]", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{{ ns.x | tojson }}"),
        DOUBLE.format("[1]", "{% set ns.x = dict(a=ns.x, b=ns.x) %}", "{{ ns.x | length }}"),
        DOUBLE.format("[1]", "{% set ns.x = namespace(a=ns.x, b=ns.x) %}", "{{ ns.x }}"),
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a' | indent(10000000000) }}",
        "{{ big.replace('a', big) }}",
        "{{ big | replace('a', big) }}",
        "{{ big.join(range(99999) | map('string')) }}",
        "{{ big.format(big) ~ ''.join([big] * 1000) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ [big] * 1000 }}",
    ],
)
def test_no_template_runs_long_or_writes_without_end(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    caught: list[Exception] = []

    def work() -> None:
        try:
            run(source, messages=[1, 2], big="a" * 5_000_000)
        except Exception as error:
            caught.append(error)

    worker = threading.Thread(target=work)  # where no signal could stop it
    began = time.monotonic()
    worker.start()
    worker.join(20)
    assert time.monotonic() - began < 4
    assert len(caught) == 1
    assert isinstance(caught[0], InputError)
    assert str(caught[0]).startswith("chat template: ")


SPACED = "{% set s = 'x' * 99999 %}"
KEPT = (
    "{{% set ns = namespace(x=[]) %}}{0}{{% for i in range(9999) %}}{{% set ns.x = ns.x + [{1}] %}}"
)
KEPT += "{{% endfor %}}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(99999) | list | tojson(indent=5000) }}",
        SPACED + "{{ range(5000) | list | tojson(indent=s) }}",
        SPACED + "{{ range(5000) | list | tojson(separators=(s, ':')) }}",
        "{{ [range(5000) | list] | map('tojson', indent=99999) | list | length }}",
        "{{ deep | tojson(indent=16) }}",
        "{{ ('%999999d' * 400) % ((1,) * 400) }}",
        "{{ ('{0:999999}' * 400).format(1) }}",
        "{{ '{0:{1[w]}}'.format(1, {'w': 400000000}) }}",
        SPACED + "{{ ('{0[a]}' * 4000).format({'a': s}) }}",
        SPACED + "{{ ('%(a)s' * 4000) % {'a': s} }}",
        SPACED + "{{ ('%s' * 4000) % (([[s]],) * 4000) }}",
        SPACED + "{{ s | replace('x', [['a' * 5000]]) }}",
        "{{ [1000 ** 999] * 99999 }}",
        "{{ ([[1]] * 50) | map('batch', 999999, 'x') | map('list') | list | length }}",
        "{{ ([[1]] * 5) | map('slice', 999999) | map('list') | list | length }}",
        SPACED + "{{ s.encode() * 4000 }}",
        KEPT.format("", "'x' * 999999"),
        KEPT.format("{% set s = 'x' * 999999 %}", "s[1:]"),
        KEPT.format("{% set s = 'x' * 999999 + ':' %}", "s.partition(':')"),
    ],
)
def test_no_template_fills_the_memory(source: str) -> None:
    """Each would hold 400 million characters; tracemalloc's peak is of what Python allocates."""
    deep: list[Any] = list(range(80000))
    for _ in range(300):
        deep = [deep]
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"chat template"):
            run(source, deep=deep)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def test_limits_do_not_reach_honest_work() -> None:
    """Two thousand messages that a template walks over for each of them, and adds up."""
    messages = [{"content": "palabra " * 20}] * 2000
    text = run_template(
        compile_template(
            "{% set ns = namespace(all='') %}{% for m in messages %}{% set ns.all = ns.all + "
            "m.content %}{% if messages[loop.index0 - 1].content is string %}{% endif %}"
            "{% endfor %}{{ ns.all }}"
        ),
        {"messages": messages},
        2000 * 160,
    )
    assert text == "palabra " * 40_000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ namespace(__class__=1) }}", "may not begin with an underscore"),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}", "may not begin with an underscore"),
        ("{% include 'x' %}", "fails on these messages .*no loader"),
        ("{{ 'a'.translate({97: 'b'}) }}", "unsafe"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{{ 'a'.encode() }}", "unsafe"),
        ("{{ [1] | tojson(indent=17) }}", "tojson takes an indent of 0 to 16 spaces"),
        ("{{ [1] | tojson(indent='  ') }}", "tojson takes an indent of 0 to 16 spaces"),
        ("{{ [1] | tojson(separators=('  ' * 9, ':')) }}", "separators of a few characters"),
        ("{{ 1 + 'a' }}", "fails on these messages .TypeError"),
        ("{{ 'a' | random }}", r"chat template, line 1: No filter named 'random'"),
        ("{{ " + "(" * 90_000, "cannot be read as Jinja .RecursionError"),
    ],
)
def test_what_is_forbidden_is_named(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(source, messages=[])


def test_what_chat_templates_use_is_there() -> None:
    year = time.strftime("%Y")
    assert run("{{ strftime_now('%Y') }}") == year
    assert run("{{ {'b': 'é<', 'a': [1.5, none]} | tojson }}") == '{"b": "é<", "a": [1.5, null]}'
    assert run("{{ {'b': 1} | tojson(indent=2) }}") == json.dumps({"b": 1}, indent=2)
    tools = [{"a": {"b": [1, [2, {}]]}}]
    spaced = "{{ x | tojson(indent=4, separators=(', ', ' : ')) }}{{ x[0:][0].a.b[:1] }}"
    assert run(spaced, x=tools) == json.dumps(tools, indent=4, separators=(", ", " : ")) + "[1]"
    assert run("{{ '{{{0:>4}}}'.format('a') }} {{ '%5d' % 7 }}") == "{   a}     7"
    assert (
        run("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}")
        == "01"
    )
    assert run("{% generation %}{% set x = 1 %}a{{ x }}{% endgeneration %}{{ x }}") == "a1"
    assert run("{{ dict(a=1).a ~ namespace(b=2).b ~ ['x', 'y'] | join('-') }}") == "12x-y"
    assert run("{{ [1, 2] }}{{ (1, 'a') }}{{ none }}{{ missing }}") == "[1, 2](1, 'a')None"
    assert run("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') + 'b' * 2 }}") == "[a]bb"
    assert run("{{ 'a,b'.split(',')[::-1] | join }} {{ '%s-%d' % ('a', 3) }}") == "ba a-3"
