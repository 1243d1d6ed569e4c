"""Exam files of every shape, their faults, and a model that sits one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shared_data import shared

from yunque.assemble.exams import Exam, ExamItem, questions_of, read_exam, write_replies
from yunque.assemble.models import load
from yunque.assemble.origins import origin_of
from yunque.cli import main
from yunque.config import ModelConfig, Recipe
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.conversations import Message
from yunque.data.tokenizer import train_tokenizer
from yunque.errors import InputError
from yunque.exam import Question, mark, marked, sit
from yunque.marking.answers import key_fault
from yunque.model.decoder import Decoder
from yunque.reports.exams import answers
from yunque.reports.log import Log, Record
from yunque.weights.folder import save_folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if isinstance(content, list):
        lines = (json.dumps(row, ensure_ascii=False) for row in content)
        content = "\n".join(lines) + "\n"
    path.write_text(str(content), encoding="utf-8")
    return path


def one(folder: Path, **fields: object) -> ExamItem:
    (item,) = read_exam(written(folder, "exam.jsonl", [fields]))
    return item


MGSM = "mgsm_es_001-125"


@pytest.mark.parametrize(
    "name",
    [
        f"{MGSM}.csv",
        f"{MGSM}.tsv",
        f"{MGSM}_alpaca.json",
        f"{MGSM}_messages.jsonl",
        f"{MGSM}_sharegpt.json",
    ],
)
def test_mgsm_as_it_is(name: str) -> None:
    items = read_exam(shared(f"maths/{name}"))
    assert len(items) == 125
    assert {item.check for item in items} == {"number"}
    assert [item.answer for item in items[:8]] == [
        "18",
        "3",
        "70000",
        "540",
        "20",
        "64",
        "260",
        "160",
    ]
    assert items[1].question.startswith("Una bata lleva 2 rollos de tela azul")
    assert items[4].question.endswith("si el tamaño de la bandada de Wendi es de 20 pollos?")
    system = [message.content for message in items[0].messages if message.role == "system"]
    assert system == (["Eres un tutor de matemáticas."] if "messages" in name else [])


def test_gsm8k_as_it_is() -> None:
    path = shared("maths/gsm8k_train.jsonl")
    items = read_exam(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(items) == len(rows) == 7473
    for item, row in zip(items, rows, strict=True):
        assert item.check == "number"
        assert item.question == row["question"]
        assert item.answer == row["answer"].split("#### ")[1]
    assert items[-1].where == f"{path}:7473"
    for item, row in list(zip(items, rows, strict=True))[::100]:
        question = Question((), item.answer, item.kind, item.question, item.check)
        assert mark(question, row["answer"])  # the solution itself is a right reply
        other = str(int(item.answer.replace(",", "")) + 1)
        assert not mark(Question((), other, "", "", "number"), row["answer"])


def test_mgsm_without_and_with_a_header(tmp_path: Path) -> None:
    rows = "¿Cuánto es 2 + 2?\t4\n¿Cuánto es 3 + 3?\t6\n"
    bare = read_exam(written(tmp_path, "bare.tsv", rows))
    assert [(item.question, item.answer) for item in bare] == [
        ("¿Cuánto es 2 + 2?", "4"),
        ("¿Cuánto es 3 + 3?", "6"),
    ]
    named = read_exam(written(tmp_path, "named.tsv", f"question\tanswer\n{rows}"))
    assert [item.question for item in named] == [item.question for item in bare]
    words = read_exam(written(tmp_path, "words.csv", "Capital of France?,Paris\nOf Italy?,Rome\n"))
    assert [(item.answer, item.check) for item in words] == [("Paris", "exact"), ("Rome", "exact")]


def test_the_huggingface_copy_of_mgsm(tmp_path: Path) -> None:
    item = one(
        tmp_path,
        question="Roger has 5 balls and buys 6. How many?",
        answer="Step by step: 5 + 6 = 11. The answer is 11.",
        answer_number=11,
        equation_solution="5 + 6 = 11.",
    )
    assert (item.answer, item.check) == ("11", "number")


@pytest.mark.parametrize(
    ("answer", "key", "check"),
    [
        ("2 + 2 = <<2+2=4>>4\n#### 4", "4", "number"),
        ("#### 1,234", "1,234", "number"),
        (r"So $x = \boxed{\frac{3}{4}}$.", r"\frac{3}{4}", "number"),
        ("12 km", "12 km", "number"),
        ("$18", "$18", "number"),
        ("forty-two", "forty-two", "number"),
        (7, "7", "number"),
        (0.5, "0.5", "number"),
        (1.234, "1.2340", "number"),
        (1e-7, "0.0000001", "number"),
        ("Paris", "Paris", "exact"),
        ("once", "once", "exact"),
        ("one", "one", "exact"),
        ("Apollo 11", "Apollo 11", "exact"),
        ("5 or 6", "5 or 6", "exact"),
        ("3:30", "3:30", "exact"),
        ("x + 1", "x + 1", "exact"),
    ],
)
def test_the_key_says_how_it_is_checked(
    tmp_path: Path, answer: object, key: str, check: str
) -> None:
    item = one(tmp_path, question="?", answer=answer)
    assert (item.answer, item.check, item.kind) == (key, check, check)
    assert key_fault(item.answer, item.check) == ""


def test_the_file_says_how_it_is_checked(tmp_path: Path) -> None:
    assert one(tmp_path, question="?", answer="4", check="exact").check == "exact"
    assert one(tmp_path, question="?", answer="once", check="number").check == "number"
    item = one(tmp_path, question="?", regex=r"\bsí\b", category="words")
    assert (item.answer, item.check, item.kind) == (r"\bsí\b", "regex", "words")


@pytest.mark.parametrize(
    ("fields", "letter"),
    [
        ({"choices": ["Oslo", "Rome"], "answer": "B"}, "B"),
        ({"choices": ["Oslo", "Rome"], "answer": "Rome"}, "B"),
        ({"choices": ["Oslo", "Rome"], "answer": 1}, "B"),  # as MMLU has it
        ({"choices": ["1", "2"], "answer": "2"}, "B"),
        ({"choices": {"text": ["Oslo", "Rome"], "label": ["1", "2"]}, "answerKey": "2"}, "B"),
        ({"A": "Oslo", "B": "Rome", "answer": "B"}, "B"),
        ({"options": "Oslo | Rome", "answer": "Rome"}, "B"),
        ({"options": '["Oslo", "Rome"]', "answer": "Rome"}, "B"),
    ],
)
def test_choices(tmp_path: Path, fields: dict[str, object], letter: str) -> None:
    item = one(tmp_path, question="The capital of Italy?", **fields)
    assert (item.answer, item.check) == (letter, "choice")
    first, second = item.choices
    assert item.question == f"The capital of Italy?\nA) {first}\nB) {second}"


def test_options_that_the_question_shows_are_not_shown_twice(tmp_path: Path) -> None:
    question = "Which one? A. Oslo B. Rome"
    assert (
        one(tmp_path, question=question, choices=["Oslo", "Rome"], answer="A").question == question
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"question": "?"}, "no answer in the columns question. Expected answer"),
        ({"question": "?", "anser": "4"}, "no answer .* Is 'anser' meant as 'answer'"),
        ({"qestion": "?", "answer": "4"}, "no question .* Is 'qestion' meant as 'question'"),
        ({"question": "?", "answer": None}, "the answer is None"),
        ({"question": "?", "answer": True}, "the answer is True"),
        ({"question": "", "answer": "4"}, "question is '', expected the text"),
        ({"q": "?", "a": "4"}, "no question in the columns q, a. Expected question and answer"),
        ({"question": "?", "answer": "4", "check": "numbr"}, "check: .*numbr.*number"),
        ({"question": "?", "answer": "four", "check": "number", "kind": "x"}, None),
        ({"question": "?", "answer": "many", "check": "number"}, "must be one number, got 'many'"),
        ({"question": "?", "answer": "5 or 6", "check": "number"}, "must be one number"),
        ({"question": "?", "choices": [True, False], "answer": "true"}, "expected a list of text"),
        (
            {"question": "?", "choices": {"text": ["a", "b"], "label": 5}, "answerKey": "A"},
            "label is 5, expected a list with one for each text",
        ),
        (
            {"question": "?", "choices": {"text": ["a", "b"], "label": ["1"]}, "answerKey": "2"},
            r"label is \['1'\], expected a list with one for each text",
        ),
        (
            {"question": "?", "choices": [f"o{n}" for n in range(27)], "answer": "o26"},
            "choices: expected 2 to 26, got 27",
        ),
        (
            {"question": "?", "choices": "[" * 9000, "answer": "A"},
            "expected 2 to 26 choices, got 1",
        ),
        ({"question": "?", "regex": "("}, "no regular expression"),
        ({"question": "?", "regex": "(a+)+$"}, r"'\(a\+\)\+\$' is not done with a text of 40"),
        ({"question": "?", "regex": ".*"}, "fits an empty reply"),
        ({"question": "?", "answer": "a", "check": "choice"}, "expected 2 to 26 choices, got 0"),
        ({"question": "?", "answer": "C", "choices": ["x", "y"]}, "a letter, A to B, or a choice"),
        ({"question": "?", "answer": "C", "choices": ["x", "X"]}, "two choices are the same"),
        ({"question": "?", "answer": 1, "choices": ["1", "2"]}, "index or label of another"),
        ({"question": "?", "answer": "First.\nThen."}, r"2 lines; no reply will be equal"),
        ({"messages": [{"role": "user", "content": "?"}]}, "no turn of the assistant"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": "4"},
                    {"role": "user", "content": "?"},
                ]
            },
            "the last turn is not the assistant's",
        ),
    ],
)
def test_faults_name_file_and_line(
    tmp_path: Path, fields: dict[str, object], words: str | None
) -> None:
    path = written(tmp_path, "exam.jsonl", [{"question": "2 + 2?", "answer": "4"}, fields])
    if words is None:
        assert len(read_exam(path)) == 2
        return
    with pytest.raises(InputError, match=rf"exam\.jsonl:2: .*{words}"):
        read_exam(path)


def test_files_that_are_no_exam(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_exam(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="a folder, expected an exam file"):
        read_exam(tmp_path)
    with pytest.raises(InputError, match=r"not from \.txt"):
        read_exam(written(tmp_path, "exam.txt", "2 + 2?"))
    with pytest.raises(InputError, match="no questions"):
        read_exam(written(tmp_path, "empty.jsonl", ""))


# A model sits an exam


def parrot(folder: Path, chat: bool) -> Path:
    """A model with random weights, of bytes, with or without a chat template."""
    special = (CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE) if chat else ()
    tokenizer = train_tokenizer("byte", lambda: iter(()), "<|endoftext|>", *special)
    shape = ModelConfig(context_length=96, num_layers=1, num_heads=2, hidden_size=16)
    model = Decoder(shape.resolved(tokenizer.vocab_size), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    save_folder(model, folder, tokenizer.save, {"eos_token_id": tokenizer.separator_id})
    return folder


EXAM = [
    {"question": "¿Cuánto es 2 + 2?", "answer": "4", "kind": "sums"},
    {"question": "Say anything, but say it.", "regex": "(?s).", "kind": "words"},
    {"question": "¿Y 3 + 3?", "answer": "6", "kind": "sums"},
]


@pytest.mark.parametrize("chat", [True, False])
def test_replies_are_the_greedy_ones(tmp_path: Path, chat: bool) -> None:
    model = load(parrot(tmp_path / "model", chat), device="cpu")
    items = read_exam(written(tmp_path, "exam.jsonl", EXAM))
    told: list[tuple[int, int]] = []
    result = model.exam(items, max_new_tokens=12, progress=lambda n, of: told.append((n, of)))
    for item, (question, reply, _) in zip(items, result.replies, strict=True):
        prompt = item.question if chat else f"User: {item.question}\nAssistant:"
        alone = model.generate(prompt, chat=chat, temperature=0.0, max_new_tokens=12)
        assert reply == alone.texts[0] != ""
        assert question.text == item.question
    assert (result.right, result.total) == (1, 3)
    assert result.by_kind == {"sums": (0, 2), "words": (1, 1)}
    assert told == [(3, 3)]


def test_a_base_without_template_is_asked_as_in_its_fine_tuning(tmp_path: Path) -> None:
    model = load(parrot(tmp_path, chat=False), device="cpu")
    talk = (Message("system", "Be brief."), Message("user", "2 + 2?"))
    item = ExamItem(talk, "4", "number", "number")
    (question,) = questions_of([item], model.tokenizer)
    assert bytes(question.prompt) == b"Be brief.\n\nUser: 2 + 2?\nAssistant:"
    base = origin_of(Recipe(base=str(tmp_path)))
    assert base.tokenizer is not None
    (again,) = questions_of([item], base.tokenizer)
    assert again.prompt == question.prompt


@pytest.mark.parametrize(("most", "calls"), [(0, [3, 2]), (24, [3, 1, 1]), (1, [1] * 5)])
def test_a_batch_of_the_exam_holds_no_more_tokens_than_allowed(most: int, calls: list[int]) -> None:
    """Rows of the longest prompt, a reply of 4 with each."""
    sizes = [4, 9, 2, 8, 3]
    questions = [Question(tuple(range(n)), str(n), "sum", check="number") for n in sizes]
    asked: list[list[int]] = []

    def ask(prompts: list[list[int]]) -> list[str]:
        asked.append([len(prompt) for prompt in prompts])
        return [str(len(prompt)) for prompt in prompts]

    result = sit(ask, questions, 3, batch_tokens=most, reply_tokens=4)
    assert [len(rows) for rows in asked] == calls
    assert (result.right, [n for rows in asked for n in rows]) == (5, [2, 3, 4, 8, 9])


SHARED = """
import sys
from yunque import runtime
from yunque.assemble.exams import shared_sitting
from yunque.config import MachineConfig
from yunque.exam import Question, sit

where = runtime.start(MachineConfig(device="cpu"))
questions = [Question((n, n), str(n), "sum", check="number") for n in range(5)]
told = []

def part(own):
    replies = lambda prompts: [f"¡{prompt[0]}!" for prompt in prompts]
    told.append(f"asked {len(own)}")
    return sit(replies, own)

marks = shared_sitting(part, questions, where)
told.append(f"marks {marks.right} {[reply for _, reply, _ in marks.replies]}")
told.append(f"alone {shared_sitting(part, questions[:1], where).right}")
with open(f"{sys.argv[1]}/{where.rank}.txt", "w", encoding="utf-8") as file:
    file.write("\\n".join(told))
where.wait()
"""


def sitting(folder: Path, key: str = "4") -> tuple[Exam, Any]:
    """An exam of two questions, and a tokenizer for it."""
    items = [
        ExamItem((Message("user", "2 + 2?"),), key, "number", "sum", (), "e.jsonl:1"),
        ExamItem(
            (Message("user", "Which? A) one B) two"),), "A", "choice", "c", ("one", "two"), "e:2"
        ),
    ]
    return Exam(items, folder), train_tokenizer("byte", lambda: iter(()), "<|fin|>")


def test_replies_are_read_as_they_were_written(tmp_path: Path) -> None:
    exam, tokenizer = sitting(tmp_path / "exam")
    questions = questions_of(exam.items, tokenizer)
    replies = ["uno\u2028dos\u2029tres\x85\x1c\x0b\x0c\r\n#### 4", "B\u2028"]
    made = marked(questions, replies)
    assert made.right == 1
    write_replies(made, exam.file(0))
    read = exam.replies(0, tokenizer)
    assert [reply for _, reply, _ in read.replies] == replies
    # The reader of reports finds the same replies, each question with its options.
    (tmp_path / "log.jsonl").touch()
    row = Record(1, 0, None, None, None, {"right": 1, "total": 2})
    log = Log("yunque", str(tmp_path / "log.jsonl"), 1, "")
    assert answers(log, row) == {
        json.dumps(["2 + 2?", "4", "number", None]): True,
        json.dumps(["Which? A) one B) two", "A", "choice", ["one", "two"]]): False,
    }


def test_replies_to_another_exam_are_not_marked(tmp_path: Path) -> None:
    exam, tokenizer = sitting(tmp_path)
    write_replies(marked(questions_of(exam.items, tokenizer), ["4", "A"]), exam.file(0))
    other, _ = sitting(tmp_path, key="5")
    with pytest.raises(
        InputError, match=r"line 1: a reply to '2 \+ 2\?' with the key '4', but e.j"
    ):
        other.replies(0, tokenizer)


def test_two_processes_share_an_exam(tmp_path: Path) -> None:
    """Each writes a file of its own: what both print to one stream may come out mixed."""
    (tmp_path / "shared.py").write_text(SHARED, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "shared.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    marks = f"marks 5 {[f'¡{n}!' for n in range(5)]}"
    told = [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8") for rank in (0, 1)]
    # Of one question nothing is left for the second process, which gets the mark all the same.
    assert told[0].splitlines() == ["asked 3", marks, "asked 1", "alone 1"]
    assert told[1].splitlines() == ["asked 2", marks, "alone 1"]


def test_a_question_that_fills_the_context_is_refused(tmp_path: Path) -> None:
    model = load(parrot(tmp_path / "model", chat=True), device="cpu")
    exam = written(tmp_path, "exam.jsonl", [EXAM[0], {"question": "a" * 94, "answer": "4"}])
    with pytest.raises(InputError, match=r"exam\.jsonl:2: the question has 96 tokens.* 96"):
        model.exam(read_exam(exam))
    exam = written(tmp_path, "exam.jsonl", [{"question": "a" * 93, "answer": "4"}])
    assert model.exam(read_exam(exam), max_new_tokens=1).total == 1


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_evaluate_with_an_exam(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, exam = parrot(tmp_path / "model", chat=True), written(tmp_path, "exam.jsonl", EXAM)
    out = tmp_path / "replies.jsonl"
    words = ("evaluate", folder, "--exam", exam, "--exam-out", out, "--max-new-tokens", "12")
    code, shown, told = answer(capsys, *words, "--device", "cpu", "--json", "--lang", "en")
    assert code == 0
    value = json.loads(shown)
    low, high = value["exam"].pop("interval")
    assert value == {
        **dict.fromkeys(("loss", "perplexity", "bits_per_byte", "tokens", "bytes")),
        "exam": {
            "right": 1,
            "total": 3,
            "accuracy": 1 / 3,
            "kinds": {"sums": [0, 2], "words": [1, 1]},
        },
    }
    assert (low, high) == pytest.approx((0.0615, 0.7923), abs=5e-5)
    assert "Exam: questions answered 100%" in told
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["question"], row["key"], row["right"]) for row in rows] == [
        ("¿Cuánto es 2 + 2?", "4", False),
        ("Say anything, but say it.", "(?s).", True),
        ("¿Y 3 + 3?", "6", False),
    ]
    assert all(row["reply"] for row in rows)

    text = written(tmp_path, "text.txt", "Un texto cualquiera.\n")
    code, shown, _ = answer(
        capsys, "evaluate", folder, text, *words[2:], "--device", "cpu", "--lang", "es"
    )
    assert code == 0
    assert "nats por token" in shown
    assert "Examen: 1 de 3 bien, 33,3\u00a0% (intervalo del 95 %: de 6\u00a0% a 79\u00a0%)" in shown
    assert "  sums      0/2" in shown
    assert "  words     1/1" in shown
    assert f"están en {out}" in shown


def test_evaluate_says_when_there_is_no_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, exam = parrot(tmp_path / "model", chat=False), written(tmp_path, "exam.jsonl", EXAM)
    words = ("evaluate", folder, "--exam", exam, "--max-new-tokens", "4", "--device", "cpu")
    code, _, told = answer(capsys, *words, "--lang", "en")
    assert code == 0
    assert "no chat template: each question is asked in plain words" in told


def test_evaluate_wants_something_to_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = answer(capsys, "evaluate", tmp_path)
    assert code == 2
    assert "nothing to evaluate" in told
    code, _, told = answer(capsys, "evaluate", tmp_path, "text.txt", "--exam-out", "x.jsonl")
    assert code == 2
    assert "give --exam FILE too" in told
