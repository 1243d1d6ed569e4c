"""The embedded data set: held-out problems are unseen in every form, and every line is true."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE, ChatTemplate
from yunque.data.tutor import (
    KINDS,
    LANGUAGES,
    Operation,
    Problem,
    is_step,
    make,
    messages,
    split_of,
    working,
)
from yunque.errors import InputError
from yunque.exam import find_answer

Triple = tuple[int, ...]


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def asked(problem: Problem) -> Triple:
    """The three numbers of a problem, read from its text alone."""
    triple = tuple(sorted([*numbers(problem.question), problem.answer]))
    assert len(triple) == 3, problem
    return triple


def stated(text: str) -> Iterator[Triple]:
    """The three numbers of each fact with two operands that a working states."""
    for left, sign, right, result in re.findall(r"(\d+) ([-+×÷]) (\d+)(?: = (\d+))?", text):
        a, b = int(left), int(right)
        if sign == "÷":  # the fact is quotient × divisor, which the line states as well
            continue
        value = {"+": a + b, "-": a - b, "×": a * b}[sign]
        assert not result or int(result) == value
        yield tuple(sorted((a, b, value)))


def every_operation() -> Iterator[Operation]:
    """All operations that a problem may ask for."""
    for a in range(10, 100):
        for b in range(10, 100):
            yield Operation(a, "+", b, a + b)
            if a >= b:
                yield Operation(a, "-", b, a - b)
    for a in range(2, 100):
        for b in range(2, 10):
            yield Operation(a, "×", b, a * b)
            yield Operation(a * b, "÷", b, a)


def test_splits_share_no_three_numbers_whatever_the_seed() -> None:
    seen = {
        split: {asked(p) for seed in (1, 2) for p in make(split, count, seed)}
        for split, count in (("train", 6000), ("val", 600), ("exam", 600))
    }
    assert not seen["train"] & seen["exam"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["exam"]
    assert all(len(triples) > 150 for triples in seen.values())


def test_every_form_of_the_same_numbers_is_in_one_split() -> None:
    forms = (Operation(12, "+", 47, 59), Operation(47, "+", 12, 59), Operation(59, "-", 12, 47))
    assert {form.triple for form in forms} == {(12, 47, 59)}
    assert Operation(204, "÷", 6, 34).triple == Operation(34, "×", 6, 204).triple == (6, 34, 204)


def test_no_working_of_a_training_problem_states_a_held_out_fact() -> None:
    steps = 0
    for operation in every_operation():
        if split_of(operation.triple) != "train":
            continue
        for triple in stated(working("en", operation)):
            steps += 1
            assert split_of(triple) == "train", (operation, triple)  # type: ignore[arg-type]
    assert steps > 20_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_equation_of_every_working_is_true(language: str) -> None:
    for operation in every_operation():
        text = working(language, operation)
        for chain in re.findall(r"\d[\d +×-]* = \d+", text):
            formula, _, value = chain.partition(" = ")
            assert eval(formula.replace("×", "*")) == int(value), (operation, chain)
        for a, b, quotient, rest in re.findall(
            r"(\d+) ÷ (\d+) (?:is|es) (\d+)(?:.*(?:remainder|resto) (\d+))?", text
        ):
            assert int(b) * int(quotient) + int(rest or 0) == int(a), (operation, text)


def test_workings_are_these() -> None:
    assert working("en", Operation(47, "+", 38, 85)) == (
        "Units: 7 + 8 = 15. Write 5, carry 1.\nTens: 4 + 3 + 1 = 8."
    )
    assert working("es", Operation(52, "-", 27, 25)) == (
        "Unidades: 2 es menor que 7, pido una decena: 12 - 7 = 5.\nDecenas: 5 - 1 - 2 = 2."
    )
    assert working("es", Operation(34, "×", 6, 204)) == (
        "Unidades: 4 × 6 = 24. Escribo 4 y me llevo 2.\nDecenas: 3 × 6 = 18, 18 + 2 = 20."
    )
    assert working("en", Operation(204, "÷", 6, 34)) == (
        "20 ÷ 6 is 3: 3 × 6 = 18, remainder 2.\nBring down the 4: 24 ÷ 6 is 4."
    )
    assert working("en", Operation(42, "÷", 6, 7)) == "From the table: 7 × 6 = 42."


def test_answers_follow_from_the_questions() -> None:
    """The answer is the sum, difference, product or quotient of the two numbers asked about."""
    for problem in make("train", 3000, 3):
        a, b = sorted(numbers(problem.question))
        want = {
            "addition": {a + b},
            "subtraction": {b - a},
            "multiplication": {a * b},
            "division": {b // a},
        }.get(problem.kind, {a + b, b - a, a * b, b // a})
        assert problem.answer in want, problem


def test_missing_number_solves_its_equation() -> None:
    for problem in [p for p in make("train", 3000, 4) if p.kind == "missing"]:
        found = re.search(r"([\d?]+) ([-+×÷]) ([\d?]+) = ([\d?]+)", problem.question)
        assert found is not None
        left, sign, right, result = (
            problem.answer if part == "?" else part for part in found.groups()
        )
        a, b, c = int(left), int(right), int(result)
        assert {"+": a + b == c, "-": a - b == c, "×": a * b == c, "÷": a == b * c}[str(sign)]


def test_conversation_ends_with_the_marked_answer() -> None:
    problem = Problem("addition", "en", "What is 47 + 38?", 85, "47 + 38\nTens: 8.")
    assert messages(problem) == [
        {"role": "user", "content": "What is 47 + 38?"},
        {"role": "assistant", "content": "47 + 38\nTens: 8.\n#### 85"},
    ]
    for problem in make("val", 120, 5):
        assert find_answer(messages(problem)[1]["content"]) == str(problem.answer)


def test_an_exam_is_balanced_and_repeats_no_question() -> None:
    exam = make("exam", 300, 1)
    assert Counter((p.kind, p.language) for p in exam) == {
        (kind, language): 25 for kind in KINDS for language in LANGUAGES
    }
    assert len({p.question for p in exam}) == 300
    assert len({asked(p) for p in exam}) > 150


def test_the_seed_alone_decides() -> None:
    assert make("train", 200, 7) == make("train", 200, 7)
    assert make("train", 200, 7) != make("train", 200, 8)


def test_steps_are_always_training() -> None:
    assert is_step((7, 8, 15))
    assert is_step((6, 7, 42))
    assert is_step((2, 18, 20))
    assert not is_step((12, 47, 59))
    assert not is_step((6, 34, 204))
    assert not is_step((3, 19, 22))


def test_too_large_an_exam_is_refused() -> None:
    with pytest.raises(InputError, match="at most 2000 different problems for exam, got 2001"):
        make("exam", 2001, 1)


def test_spanish_opens_its_questions_and_agrees() -> None:
    for problem in make("train", 3000, 6):
        if problem.language == "es":
            assert problem.question.count("¿") == problem.question.count("?") - (
                problem.kind == "missing"
            )
            for thing in ("canicas", "manzanas", "galletas"):
                assert f"cuántos {thing}" not in problem.question.lower()
            for thing in ("libros", "lápices", "cromos"):
                assert f"cuántas {thing}" not in problem.question.lower()


# Conversations to text

TALK = [
    {"role": "system", "content": "You are a tutor."},
    {"role": "user", "content": "  ¿2 + 2?\n"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And <b>3</b> + 3?"},
]


def test_the_default_template_writes_this() -> None:
    assert ChatTemplate().run(TALK, add_generation_prompt=True) == (
        "You are a tutor.<|user|>  ¿2 + 2?\n<|assistant|>4<|endoftext|>"
        "<|user|>And <b>3</b> + 3?<|assistant|>"
    )
    assert ChatTemplate(end_token="</s>").run(TALK[1:3]).endswith("<|assistant|>4</s>")


@pytest.mark.parametrize("ask", [True, False])
def test_transformers_renders_the_same(ask: bool) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), eos_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(CHAT_TOKENS)})
    # A template with indented blocks shows that both trim white space alike.
    indented = "{% for m in messages %}\n  {% if m.role %}\n [{{ m.role }}] {{ m.content }}\n" + (
        "  {% endif %}\n{% endfor %}\n{{ eos_token }}"
    )
    for template in (DEFAULT_CHAT_TEMPLATE, indented):
        tokenizer.chat_template = template
        theirs = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=ask)
        assert ChatTemplate(template).run(TALK, add_generation_prompt=ask) == theirs


def test_a_broken_forbidden_or_unwilling_template_is_named() -> None:
    with pytest.raises(InputError, match=r"chat template, line 2: .* Expected a Jinja template"):
        ChatTemplate("text\n{% for %}").run(TALK)
    with pytest.raises(InputError, match=r"chat template: .*__class__"):
        ChatTemplate("{{ messages.__class__.__mro__ }}").run(TALK)
    with pytest.raises(InputError, match="system, user, assistant or tool, got narrator"):
        ChatTemplate().run([{"role": "narrator", "content": "x"}])
