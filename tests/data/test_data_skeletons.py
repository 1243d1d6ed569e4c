"""Rendering by the skeleton of a shape gives what rendering one by one gives."""

from __future__ import annotations

import itertools
import random

import pytest

from yunque.data.alignment import Conversation, aligned, copied, render
from yunque.data.chat_template import (
    DEFAULT_CHAT_TEMPLATE,
    PLAIN_CHAT_TEMPLATE,
    ChatTemplate,
)
from yunque.data.conversations import Message
from yunque.data.skeletons import copies
from yunque.errors import InputError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTENTS = ("4 + 4?", "  eight \n", "<|endoftext|>", "¿Qué? Ñ 中文 👩🏽‍🚀", "<|x|>\n", "x" * 500)


def templates() -> list[ChatTemplate]:
    return [
        ChatTemplate(DEFAULT_CHAT_TEMPLATE),
        ChatTemplate(PLAIN_CHAT_TEMPLATE),
        ChatTemplate(CHATML, "<|im_end|>", ("<|im_start|>", "<|im_end|>")),
    ]


@pytest.mark.parametrize("template", templates())
@pytest.mark.parametrize("asking", [False, True])
def test_equal_to_one_by_one(template: ChatTemplate, asking: bool) -> None:
    assert copies(template.source)
    rng = random.Random(3)
    by_skeleton = 0
    roles = ("system", "user", "assistant", "tool")
    for length in (1, 2, 3, 4):
        for shape in itertools.product(roles, repeat=length):
            talk = Conversation(
                tuple(
                    Message(role, rng.choice(CONTENTS), loss=rng.random() < 0.8) for role in shape
                )
            )
            try:
                want = aligned(talk, template, asking)
            except InputError:
                with pytest.raises(InputError):
                    _ = copied(talk, template, asking) or aligned(talk, template, asking)
                continue
            found = copied(talk, template, asking)
            if found is not None:
                by_skeleton += 1
                assert found == want
    assert by_skeleton >= 90  # most shapes in which the assistant only answers a user


@pytest.mark.parametrize(
    "source",
    [
        "{{ message['content'] | trim }}",
        "{% if 'x' in message['content'] %}{{ message['content'] }}{% endif %}",
        "{% set content = message['content'] %}{{ content }}",
        "{{ message['content'] if message['role'] == 'user' else '' }}",
        "{{ message.content[:10] }}",
        "{{ message[message['role']] }}",
        "{{ message | tojson }}",
        "{{ message['content'] * 2 }}",
        "{{ message['content'].strip() }}",
        "{% for value in message.values() %}{{ value }}{% endfor %}",
        "{{ message['values']() | first }}",
        "{% filter upper %}{{ message['content'] }}{% endfilter %}",
        "{% set said %}{{ message['content'] }}{% endset %}{{ said | upper }}",
        "{{ loop.previtem['content'] if not loop.first }}{{ message['content'] }}",
        "{% set other = message %}{{ other['content'] }}",
        "{{ messages[0]['content'] }}",
        "{{ messages | length }}{{ message['content'] }}",
        "{% macro say(m) %}{{ m }}{% endmacro %}{{ say(message['content']) }}",
        "{% generation %}{{ message['content'] | upper }}{% endgeneration %}",
    ],
)
def test_templates_that_look(source: str) -> None:
    assert not copies(f"{{% for message in messages %}}{source}{{% endfor %}}")
    assert copies("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def test_what_is_no_text_alone_goes_one_by_one() -> None:
    template = ChatTemplate()
    call = {"tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
    asked = Message("user", "4 + 4?")
    for talk in (
        Conversation((asked, Message("assistant", "I add.", call))),
        Conversation((asked, Message("assistant", " \n"))),
        Conversation((asked, Message("assistant", "a \U000f0001 mark"))),
        Conversation((asked, Message("assistant", "8")), tools=({"name": "add"},)),
    ):
        assert copied(talk, template, False) is None
        assert render(talk, template) == aligned(talk, template, False)


def test_a_refusal_names_its_conversation() -> None:
    talk = Conversation((Message("judge", "guilty"),), where="chats.jsonl:7")
    with pytest.raises(InputError, match=r"chats\.jsonl:7: chat template: the role must be"):
        render(talk, ChatTemplate())
