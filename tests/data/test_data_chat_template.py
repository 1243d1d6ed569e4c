"""Chat templates give the text and the ids that transformers gives, whoever made the template."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_templates import CHATML, TEMPLATES, ZEPHYR
from shared_data import shared
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from yunque.data.alignment import render, render_prompt
from yunque.data.chat_template import ChatTemplate, chat_template_of
from yunque.data.conversations import Conversation, Message, messages_of
from yunque.data.reader import Record
from yunque.data.rendered import encode_rendered
from yunque.data.template_manner import check_template, manner_of
from yunque.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from yunque.errors import InputError

CALL = {"type": "function", "function": {"name": "suma", "arguments": {"a": "dos", "b": 2}}}

# Answers with line ends and white space at their edges, characters of several bytes, and line ends
# where a token of ours spans the border between template and content.
TALKS: dict[str, list[dict[str, Any]]] = {
    "one": [
        {"role": "user", "content": "¿Cuánto es 2 + 2?"},
        {"role": "assistant", "content": "Cuatro, señor. 👍"},
    ],
    "many": [
        {"role": "system", "content": "Eres breve."},
        {"role": "user", "content": "hola"},
        {"role": "assistant", "content": "buenas\n\n- qué tal"},
        {"role": "user", "content": "¿2 + 2?"},
        {"role": "assistant", "content": "4"},
    ],
    "edges": [
        {"role": "user", "content": "\n hola \n"},
        {"role": "assistant", "content": "\n\n  buenas \n\n"},
        {"role": "user", "content": " y "},
        {"role": "assistant", "content": " adiós"},
    ],
    "thought": [
        {"role": "user", "content": "¿2 + 2?"},
        {"role": "assistant", "content": "<think>\ndos y dos\n</think>\n\n4"},
        {"role": "user", "content": "¿3 + 3?"},
        {"role": "assistant", "content": "<think>\ntres y tres\n</think>\n\n6"},
    ],
}
TOOL_TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "suma dos y 2"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"suma": 4}'},
    {"role": "assistant", "content": "Son 4."},
]
CORPUS = "\n\n".join(str(m["content"]) for talk in TALKS.values() for m in talk) + "\n\n"


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Any]]:
    """Each template with a small BPE of ours, and what AutoTokenizer makes of its files."""
    from transformers import AutoTokenizer

    made = {}
    for name, (template, control, bos, end) in TEMPLATES.items():
        tokens = [*control, *filter(None, [bos])]
        ours = train_tokenizer("bpe:400", lambda: iter([CORPUS] * 3), end, tokens, template)
        ours.named_tokens.update({"bos_token": bos} if bos else {})
        folder = tmp_path_factory.mktemp(name)
        ours.save(folder)
        made[name] = (ours, AutoTokenizer.from_pretrained(folder))
    return made


def conversation(talk: list[dict[str, Any]], tools: Any = None) -> Conversation:
    found = messages_of(Record({"messages": talk, "tools": tools}, "a", 1), {})
    assert isinstance(found, Conversation)
    return dataclasses.replace(found, where="")


def check_equal(
    ours: Tokenizer, theirs: Any, talk: list[dict[str, Any]], tools: Any = None
) -> None:
    """Text and ids equal theirs; the text that notes say was added stands behind them."""
    template = chat_template_of(ours)
    made = render(conversation(talk, tools), template)
    text = theirs.apply_chat_template(talk, tools=tools, tokenize=False)
    ids = theirs.apply_chat_template(talk, tools=tools, tokenize=True, return_dict=False)
    added = template.end_token if "end_added" in made.notes else ""
    assert made.text == text + added
    found, mask = encode_rendered(ours, made)
    assert found.tolist() == ids + ([ours.separator_id] if added else [])
    assert len(mask) == len(found)
    assert 0 < mask.sum() < len(mask)
    asked = [*talk[:-1]]
    made = render_prompt(conversation([*asked, talk[-1]]).messages[:-1], template)
    if tools is None:
        text = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids = theirs.apply_chat_template(
            asked, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert made.text == text
        assert encode_rendered(ours, made)[0].tolist() == ids
        assert made.loss == ()


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_ids_equal_transformers(
    name: str, talk: str, tokenizers: dict[str, tuple[Tokenizer, Any]]
) -> None:
    check_equal(*tokenizers[name], TALKS[talk])


def test_the_default_template_writes_tools_and_calls(
    tokenizers: dict[str, tuple[Tokenizer, Any]],
) -> None:
    tools = [{"type": "function", "function": {"name": "suma", "description": "Suma <dos>"}}]
    check_equal(*tokenizers["default"], TOOL_TALK, tools)
    ours = tokenizers["default"][0]
    made = render(conversation(TOOL_TALK, tools), chat_template_of(ours))
    assert made.text == (
        '<tools>\n{"type": "function", "function": {"name": "suma", "description": "Suma <dos>"}}\n'
        "</tools>\n<|user|>suma dos y 2<|assistant|><tool_call>\n"
        '{"name": "suma", "arguments": {"a": "dos", "b": 2}}\n</tool_call><|endoftext|>'
        '<|user|><tool_response>\n{"suma": 4}\n</tool_response><|assistant|>Son 4.<|endoftext|>'
    )
    assert [made.text[start:end] for start, end in made.loss] == [
        '<tool_call>\n{"name": "suma", "arguments": {"a": "dos", "b": 2}}\n</tool_call>'
        "<|endoftext|>",
        "Son 4.<|endoftext|>",
    ]


@pytest.mark.parametrize("talk", [*TALKS, "tools"])
def test_minimind(talk: str) -> None:
    """A published tokenizer with a template that looks into its messages."""
    from transformers import AutoTokenizer

    folder = shared("tokenizers/minimind")
    tools = [{"type": "function", "function": {"name": "suma"}}] if talk == "tools" else None
    given = TOOL_TALK if talk == "tools" else TALKS[talk]
    check_equal(load_tokenizer(folder), AutoTokenizer.from_pretrained(folder), given, tools)


def test_phi_2() -> None:
    """A tokenizer without a template and with 38 tokens of white space that are no control ones."""
    from transformers import AutoTokenizer

    folder = shared("tokenizers/phi-2")
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    talk = [TALKS["many"][1], {"role": "assistant", "content": "if x:\n        return  y\n\n\n1"}]
    for template in (CHATML, ZEPHYR):
        ours.chat_template = theirs.chat_template = template
        made = render(conversation(talk), chat_template_of(ours))
        ids = theirs.apply_chat_template(talk, tokenize=True, return_dict=False)
        assert any(id > 50256 for id in ids)
        # ChatML's marks are no control tokens here: the end token is added behind the last one.
        added = [50256] if template == CHATML else []
        assert encode_rendered(ours, made)[0].tolist() == ids + added


def sentencepiece_like(prepend: str, folder: Path) -> Tokenizer:
    """A vocabulary in Llama's manner: a mark for spaces, and before the text or its first part."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>"
    )
    backend.train_from_iterator([CORPUS] * 5, trainer)
    # Phi-3's control tokens swallow the white space behind them.
    backend.add_special_tokens([AddedToken("<|end|>", special=True, rstrip=True)])
    tokenizer = Tokenizer(backend, "</s>", TEMPLATES["zephyr"][0], {"bos_token": "<s>"})
    tokenizer.save(folder)
    return tokenizer


@pytest.mark.parametrize("prepend", ["first", "always", "never"])
@pytest.mark.parametrize("name", ["llama2", "zephyr", "phi3"])
def test_sentencepiece_like(name: str, prepend: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = sentencepiece_like(prepend, tmp_path)
    ours.chat_template = TEMPLATES[name][0]
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    theirs.chat_template = TEMPLATES[name][0]
    for talk in ("one", "edges"):
        check_equal(ours, theirs, TALKS[talk])


def faulty(change: tuple[str, str], template: str = CHATML) -> ChatTemplate:
    assert change[0] in template
    return ChatTemplate(template.replace(*change), "<|im_end|>", ("<|im_start|>", "<|im_end|>"))


SWAPPED = ("message['role'] +", "{'user': 'assistant', 'assistant': 'user'}[message['role']] +")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (ChatTemplate("### User: {prompt}\n### Assistant:"), r"no Jinja, it holds neither"),
        (ChatTemplate("text\n{% for %}"), r"chat template, line 2: .* Expected a Jinja template"),
        (ChatTemplate("{{ .System }} {{ .Prompt }}"), r"chat template, line 1: unexpected '\.'"),
        (ChatTemplate("{{ '(' * 3 }}" * 10_000), r"130,000 characters, at most 100,000"),
        (
            faulty(("for message in messages", "for message in messages if message.role=='user'")),
            r"it drops the assistant's answer, there would be nothing to learn",
        ),
        (
            faulty(("for message in messages", "for message in messages[1:]")),
            r"it drops the user's words",
        ),
        (
            ChatTemplate("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}"),
            r"nothing marks the assistant's turn, its answer follows the question with '\\n'",
        ),
        (faulty(SWAPPED), r"it swaps the roles, .*behind '<\|im_end\|>\\n<\|im_start\|>user\\n'"),
        (
            faulty(("start|>assistant", "start|>user"), CHATML.replace(*SWAPPED)),
            r"it swaps the roles",
        ),
        (
            ChatTemplate(
                "{% for m in messages %}{% if m.role == 'assistant' %}[INST] {{ m.content }} "
                "[/INST]{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}",
                "</s>",
                ("<s>", "</s>"),
            ),
            r"it swaps the roles",
        ),
        (
            ChatTemplate(
                "{% for m in messages %}{% for a in range(99999) %}{% for b in range(99999) %}"
                "{% endfor %}{% endfor %}{{ m.content }}{% endfor %}"
            ),
            r"stopped, it (was not done after 3 seconds|takes more than 5,000,000 steps)",
        ),
        (
            ChatTemplate("{% for a in range(99999) %}{{ messages[0].content }}{% endfor %}"),
            r"characters come of",
        ),
        (
            ChatTemplate("{{ raise_exception('No, thank you.') }}"),
            r"chat template: No, thank you\. Change the messages or use a template that takes them",
        ),
        (ChatTemplate("{{ messages.__class__.__mro__ }}"), r"unsafe"),
        (
            ChatTemplate("{{ messages[0].content }} answer: {{ messages[1].content | length }}"),
            r"it (drops the assistant's answer|writes other texts)",
        ),
    ],
)
def test_each_fault_of_a_template_is_named_before_the_first_record(
    template: ChatTemplate, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_template(template)


def named_template(name: str) -> ChatTemplate:
    template, control, bos, end = TEMPLATES[name]
    named = (("bos_token", bos),) if bos else ()
    return ChatTemplate(template, end, (*control, *filter(None, [bos]), end), named)


def test_sound_templates_raise_no_alarm_and_doubts_are_told() -> None:
    doubts = {
        name: [check.key for check in check_template(named_template(name))] for name in TEMPLATES
    }
    assert doubts == {name: [] for name in TEMPLATES} | {"alpaca": ["data.template_no_end"]}
    assert check_template(named_template("alpaca"))[0].text("es").startswith("La plantilla de chat")
    other = faulty(("start|>assistant", "start|>modelo"))
    assert [(check.key, check.numbers) for check in check_template(other)] == [
        (
            "data.template_prompt_differs",
            {
                "trained": "<|im_end|>\n<|im_start|>assistant",
                "prompt": "<|im_end|>\n<|im_start|>modelo",
            },
        )
    ]
    dated = ChatTemplate("{{ strftime_now('%Y') }}" + TEMPLATES["default"][0])
    assert [check.key for check in check_template(dated)] == ["data.template_date"]


def test_manners() -> None:
    ends = {name: manner_of(named_template(name)).end_of_turn for name in TEMPLATES}
    assert ends == {
        "default": "<|endoftext|>",
        "chatml": "<|im_end|>",
        "llama2": "</s>",
        "llama3": "<|eot_id|>",
        "mistral": "</s>",
        "zephyr": "</s>",
        "phi3": "<|end|>",
        "thinking": "<|im_end|>",
        "alpaca": None,
    }
    assert manner_of(named_template("llama2")).prompt == " [/INST]"
    assert manner_of(named_template("llama3")).openers == {
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
    }


def test_what_a_template_refuses_is_told_with_file_and_line() -> None:
    talk = [Message("user", "a"), Message("user", "b"), Message("assistant", "c")]
    with pytest.raises(InputError, match=r"^b\.json:3: chat template: Conversation roles must alt"):
        render(Conversation(tuple(talk), where="b.json:3"), named_template("llama2"))
    assert np.array_equal(  # where the template takes it, so do we
        [render(talk, named_template("chatml")).text.count("<|im_start|>user")], [2]
    )
