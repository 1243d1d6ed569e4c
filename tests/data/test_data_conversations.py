"""Shapes of records: each recognised by its columns, each fault named with file and line."""

from __future__ import annotations

import csv
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from yunque.data.conversations import (
    Conversation,
    Message,
    Shape,
    columns_of,
    messages_of,
    recognise,
)
from yunque.data.reader import Record
from yunque.errors import InputError


def read(fields: dict[str, Any], columns: str = "", shape: Shape | None = None) -> Any:
    return messages_of(Record(fields, "a.jsonl", 7), columns_of(columns), shape)


def talk(fields: dict[str, Any], columns: str = "") -> list[tuple[str, str]]:
    found = read(fields, columns)
    assert isinstance(found, Conversation)
    assert found.where == "a.jsonl:7"
    return [(message.role, message.content) for message in found.messages]


def test_each_shape_becomes_messages() -> None:
    assert talk(
        {
            "messages": [
                {"role": "system", "content": "Eres breve."},
                {"role": "user", "content": [{"type": "text", "text": "2"}, {"text": "+2"}]},
                {"role": "assistant", "content": "4"},
            ]
        }
    ) == [("system", "Eres breve."), ("user", "2+2"), ("assistant", "4")]
    assert talk(
        {
            "conversations": [
                {"from": "human", "value": "hola"},
                {"from": "gpt", "value": "buenas"},
            ],
            "system": "Eres breve.",
        }
    ) == [("system", "Eres breve."), ("user", "hola"), ("assistant", "buenas")]
    assert talk({"instruction": "Suma", "input": "2 y 2", "output": "4"}) == [
        ("user", "Suma\n2 y 2"),
        ("assistant", "4"),
    ]
    assert talk(
        {
            "instruction": "¿Y 3 y 3?",
            "input": None,
            "output": "6",
            "system": "",
            "history": [["¿2 y 2?", "4"]],
        }
    ) == [("user", "¿2 y 2?"), ("assistant", "4"), ("user", "¿Y 3 y 3?"), ("assistant", "6")]
    assert talk({"prompt": "2+2=", "completion": "4"}) == [("user", "2+2="), ("assistant", "4")]
    assert talk({"prompt": "2+2=", "response": 4}) == [("user", "2+2="), ("assistant", "4")]
    assert talk({"pregunta": "¿2+2?", "respuesta": "4"}) == [("user", "¿2+2?"), ("assistant", "4")]
    assert talk({"question": "2+2?", "answer": "4", "id": "x"}) == [
        ("user", "2+2?"),
        ("assistant", "4"),
    ]
    assert read({"text": "En un lugar", "id": "1"}) == "En un lugar"
    assert read({"contenido": "En un lugar"}) == "En un lugar"


def test_lists_are_told_apart_by_what_is_in_them_and_not_by_their_name() -> None:
    here = {
        "conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    }
    assert recognise(here, {}) is Shape.MESSAGES
    assert talk(here) == [("user", "a"), ("assistant", "b")]
    there = {"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    assert recognise(there, {}) is Shape.SHAREGPT
    assert talk(there) == [("user", "a"), ("assistant", "b")]


def test_tools_and_calls_of_sharegpt_become_those_of_openai() -> None:
    found = read(
        {
            "conversations": [
                {"from": "human", "value": "¿Qué tiempo hace en León?"},
                {
                    "from": "function_call",
                    "value": '{"name": "tiempo", "arguments": {"a": "b"}}',
                },
                {"from": "observation", "value": '{"grados": 9}'},
                {"from": "gpt", "value": "Nueve grados."},
            ],
            "tools": '[{"name": "tiempo"}]',
        }
    )
    assert [m.role for m in found] == ["user", "assistant", "tool", "assistant"]
    call = {"type": "function", "function": {"name": "tiempo", "arguments": {"a": "b"}}}
    assert found.messages[1] == Message("assistant", "", {"tool_calls": [call]})
    assert found.messages[2].content == '{"grados": 9}'
    assert found.tools == ({"name": "tiempo"},)


def test_only_the_completion_of_a_list_of_messages_is_learnt() -> None:
    found = read(
        {
            "prompt": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
            ],
            "completion": [{"role": "assistant", "content": "d"}],
        }
    )
    assert [m.trained for m in found] == [False, False, False, True]


def test_weight_zero_takes_a_turn_out_of_the_loss_and_is_not_shown_to_the_template() -> None:
    found = read(
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "weight": 0},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d", "weight": 1},
            ]
        }
    )
    assert [m.trained for m in found] == [False, False, False, True]
    assert found.messages[1].as_dict() == {"role": "assistant", "content": "b"}


def test_reasoning_is_known_by_each_of_its_names() -> None:
    for name in ("reasoning", "thinking", "reasoning_content"):
        turn = {"role": "assistant", "content": "4", name: "dos y dos"}
        found = read({"messages": [{"role": "user", "content": "2+2"}, turn]})
        extra = found.messages[1].extra
        assert extra["reasoning_content"] == extra["thinking"] == "dos y dos"


def test_columns_are_named_by_the_user() -> None:
    assert columns_of("") == {}
    assert columns_of(" prompt=q , completion=a") == {"prompt": "q", "completion": "a"}
    assert talk({"q": "2+2", "a": "4"}, "prompt=q,completion=a") == [
        ("user", "2+2"),
        ("assistant", "4"),
    ]
    assert talk(
        {"chat": [{"quién": "human", "qué": "a"}, {"quién": "gpt", "qué": "b"}]},
        "conversations=chat,from=quién,value=qué",
    ) == [("user", "a"), ("assistant", "b")]
    # A column that was given another meaning has lost its own one: no ambiguity with "text".
    assert talk({"text": "2+2", "a": "4"}, "prompt=text,completion=a") == [
        ("user", "2+2"),
        ("assistant", "4"),
    ]


def test_columns_are_known_whatever_their_capitals() -> None:
    found = read({" Question": "¿dos?", "ANSWER ": "2", "Id": 7})
    assert [message.content for message in found] == ["¿dos?", "2"]
    assert read({"Text": "hola", "id": 1}) == "hola"
    # No one is guessed of two, and capitals do not decide between shapes.
    with pytest.raises(InputError, match="no known shape"):
        read({"TEXT": "hola", "Text": "adiós", "id": 1})
    with pytest.raises(InputError, match="fit more than one shape"):
        read({"text": "hola", "Prompt": "a", "Completion": "b"})


def test_where_two_shapes_fit_the_user_says_which() -> None:
    fields = {"instruction": "Suma", "input": "2 y 2", "output": "4", "text": "Suma 2 y 2: 4"}
    with pytest.raises(
        InputError,
        match=r"^a\.jsonl:7: the columns instruction, input, output, text fit more than one shape: "
        r"alpaca \(instruction, output\) and text \(text\)\. Say which is meant .*"
        r"--columns instruction=instruction,output=output\.$",
    ):
        read(fields)
    assert talk(fields, "instruction=instruction,output=output")[0] == ("user", "Suma\n2 y 2")
    assert read(fields, "text=text") == "Suma 2 y 2: 4"
    both = {"question": "a", "answer": "b", "pregunta": "c", "respuesta": "d"}
    with pytest.raises(InputError, match=r"question, answer\) and question/answer \(pregunta"):
        read(both)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prompt", r"'prompt' is not NAME=COLUMN, as in 'prompt=q,completion=a'"),
        ("promt=q", r"unknown name 'promt'\. Did you mean 'prompt'\?"),
        ("prompt=a,prompt=b", r"prompt is named twice"),
        ("prompt=q,completion=q", r"'q' cannot be both prompt and completion"),
    ],
)
def test_a_broken_mapping_is_named(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        columns_of(setting)


def turns(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize(
    ("fields", "columns", "message"),
    [
        (
            {"q": "a", "a": "b"},
            "",
            r"no known shape has the columns q, a\. Known are messages: messages; sharegpt: "
            r"conversations; alpaca: instruction, output; prompt/completion: prompt, completion or "
            r"prompt, response; .* Name yours, for example --columns prompt=q,completion=a",
        ),
        ({"q": "a"}, "prompt=frage", r"no column 'frage' \(named for prompt\); the columns are q"),
        (turns(("user", "a"), ("assistant", " \n")), "", r"the answer is empty \(message 2, assis"),
        (turns(("user", ""), ("assistant", "b")), "", r"the question is empty \(message 1, user"),
        (turns(("user", "a"), ("assistant", None)), "", r"the answer is empty"),
        ({"prompt": "a", "completion": ""}, "", r"the answer is empty"),
        (turns(("user", "a")), "", r"no turn of the assistant, so there is nothing to learn"),
        (turns(("user", "a"), ("bot", "b")), "", r"message 2: unknown role 'bot'\."),
        (turns(("user", "a"), ("assitant", "b")), "", r"Did you mean 'assistant'\?"),
        ({"messages": [{"content": "a"}]}, "", r"message 1 has no 'role'; its keys are content"),
        ({"messages": [["user", "a"]]}, "", r"message 1 is a list, expected an object with role"),
        ({"messages": []}, "", r"messages is an empty list, expected a list of messages"),
        ({"messages": "a"}, "", r"messages is text \('a'\), expected a list of messages"),
        (
            turns(("user", 3), ("assistant", "b")),
            "",
            r"message 1 \(user\): content is a number \(3\)",
        ),
        (
            turns(("user", [{"type": "image_url", "image_url": "x"}]), ("assistant", "b")),
            "",
            r"message 1 \(user\): content holds a part of type 'image_url'; only text can",
        ),
        ({"question": "a", "answer": None}, "", r"answer is null, expected text"),
        ({"question": "a", "answer": 1.5}, "", r"answer is a number \(1\.5\), expected text"),
        ({"q": "a", "r": True}, "question=q,answer=r", r"answer \(column 'r'\) is a truth value"),
        ({"text": 3}, "", r"text is a number \(3\), expected text"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gtp", "value": "b"}]},
            "",
            r"message 2: unknown role 'gtp'\. Did you mean 'gpt'\?",
        ),
        (
            {"conversations": [{"from": "function_call", "value": "tiempo(León)"}]},
            "",
            r"message 1 \(function_call\): expected a JSON object with name and arguments, .*got "
            r"'tiempo\(León\)'",
        ),
        (
            {"instruction": "a", "output": "b", "history": ["a"]},
            "",
            r"history, item 1: expected \[",
        ),
        ({"prompt": "a", "completion": "b", "tools": "[{"}, "", r"tools: not JSON"),
        ({"prompt": "a", "completion": "b", "tools": "3"}, "", r"tools is a number \(3\)"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b", "weight": 0},
                ]
            },
            "",
            r"no turn of the assistant carries loss \(weight is 0 in all\)",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}]},
            "",
            r"message 1: tool_calls, item 1 has no name; expected function: name, arguments",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": "f()"}]},
            "",
            r"message 1: tool_calls is text \('f\(\)'\), expected a list",
        ),
        (
            {"messages": [{"role": "user", "content": "a", "weight": 2}]},
            "",
            r"message 1: weight is 2, expected 0 \(no loss\) or 1",
        ),
    ],
)
def test_a_fault_is_named_with_file_and_line(
    fields: dict[str, Any], columns: str, message: str
) -> None:
    with pytest.raises(InputError, match=r"^a\.jsonl:7: .*" + message):
        read(fields, columns)


def test_a_record_of_another_shape_than_the_first_is_a_bad_one() -> None:
    with pytest.raises(
        InputError,
        match=r"^a\.jsonl:7: no column instruction, which the first record of the file has; the "
        r"columns are prompt, completion\.",
    ):
        read({"prompt": "a", "completion": "b"}, shape=Shape.ALPACA)
    with pytest.raises(InputError, match=r"message 1 has no 'role'; its keys are from, value"):
        read({"messages": [{"from": "human", "value": "a"}]}, shape=Shape.MESSAGES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "name"]),
            inner | st.sampled_from(["user", "assistant", "human", "gpt", "function_call", "tool"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)
NAMES = "messages conversations instruction output input prompt completion history tools text q"


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES.split()), JSON, max_size=4))
def test_any_record_becomes_a_conversation_or_a_text_or_an_error_with_its_place(
    fields: dict[str, Any],
) -> None:
    try:
        found = read(fields)
    except InputError as error:
        found = error
    if isinstance(found, InputError):
        assert str(found).startswith("a.jsonl:7: ")
    else:
        assert isinstance(found, str) or any(message.trained for message in found)


def test_the_shared_files_have_the_shapes_that_they_are_known_for() -> None:
    found = {}
    for name in (
        "formats/alpaca_en_demo.json",
        "formats/alpaca_rasbt_instruction-data.json",
        "formats/identity.json",
        "formats/litgpt_alpaca_fixture.json",
        "formats/sharegpt_glaive_toolcall_en_demo.json",
        "maths/gsm8k_train.jsonl",
        "maths/mgsm_es_001-125.csv",
        "maths/mgsm_es_001-125_alpaca.json",
        "maths/mgsm_es_001-125_messages.jsonl",
        "maths/mgsm_es_001-125_sharegpt.json",
    ):
        text = shared(name).read_text(encoding="utf-8")
        if name.endswith(".csv"):
            rows = list(csv.DictReader(text.splitlines()))
        elif name.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines()]
        else:
            rows = json.loads(text)
        shape = recognise(rows[0], {})
        roles: Counter[str] = Counter()
        bad = 0
        for number, row in enumerate(rows, 1):
            try:
                conversation = messages_of(Record(row, name, number), {}, shape)
            except InputError:
                bad += 1
                continue
            assert isinstance(conversation, Conversation)
            roles.update(message.role for message in conversation)
        found[name.split("/")[1]] = (str(shape), len(rows), bad, roles["user"], roles["assistant"])
    assert found == {
        # shape, records, bad ones, turns of the user, turns of the assistant (calls of tools too)
        "alpaca_en_demo.json": ("alpaca", 999, 0, 999, 999),
        "alpaca_rasbt_instruction-data.json": ("alpaca", 1100, 0, 1100, 1100),
        "identity.json": ("alpaca", 91, 0, 91, 91),
        "litgpt_alpaca_fixture.json": ("alpaca", 23, 0, 23, 23),
        "sharegpt_glaive_toolcall_en_demo.json": ("sharegpt", 300, 0, 746, 957),
        "gsm8k_train.jsonl": ("question/answer", 7473, 0, 7473, 7473),
        "mgsm_es_001-125.csv": ("question/answer", 125, 0, 125, 125),
        "mgsm_es_001-125_alpaca.json": ("alpaca", 125, 0, 125, 125),
        "mgsm_es_001-125_messages.jsonl": ("messages", 125, 0, 125, 125),
        "mgsm_es_001-125_sharegpt.json": ("sharegpt", 125, 0, 125, 125),
    }


def test_a_misspelt_column_is_recognised_in_the_message() -> None:
    with pytest.raises(InputError, match=r"columns question, anser. Is 'anser' meant as 'answer'?"):
        recognise({"question": "?", "anser": "4"}, {})
    with pytest.raises(InputError, match=r"no column 'qest' .*Did you mean 'quest'?"):
        recognise({"quest": "?", "a": "4"}, {"question": "qest", "answer": "a"})
