"""The marking of exams: what counts as the answer, and the sums over questions."""

from __future__ import annotations

import pytest

from yunque.errors import InputError
from yunque.exam import ExamResult, Question, find_answer, right, sit


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 85", "85"),
        ("####85", "85"),
        ("7 + 8 = 15.\nTens: 8.\n#### 85", "85"),
        ("#### 12\nNo, wait.\n#### 85", "85"),
        ("#### 85\n<|user|>What is 3 + 4?", "85"),
        ("####\n85", "85"),
        ("#### 85.", "85"),
        ("#### 85 manzanas.", "85"),
        ("#### 85km", "85"),
        ("#### 85 m2", "85"),
        ("#### $85", "85"),
        ("#### 85 €", "85"),
        ("#### **85**", "85"),
        ("#### x = 85", "85"),
        ("#### -5", "-5"),
        ("#### - 5", "-5"),
        ("#### −5", "-5"),
        ("#### -0", "0"),
        ("#### 007", "7"),
        ("#### 0", "0"),
        ("#### 100", "100"),
        ("#### 1,234", "1234"),
        ("#### 1.234", "1234"),
        ("#### 1 234", "1234"),
        ("#### 1\u202f234\u00a0567", None),  # two kinds of thousands separators
        ("#### 1\u202f234\u202f567", "1234567"),
        ("#### 1,234,567.50", "1234567.5"),
        ("#### 1.234.567,50", "1234567.5"),
        ("#### 3.5", "3.5"),
        ("#### 3,5", "3.5"),
        ("#### 0,125", "0.125"),
        ("#### 1234.567", "1234.567"),
        ("#### 85.0", "85"),
        ("#### 85 (85)", "85"),
        ("#### 8 5", None),
        ("#### 12 or 13", None),
        ("#### 1,23,45", None),
        ("#### ", None),
        ("####", None),
        ("#### none", None),
        ("85", None),
        ("### 85", None),
        ("", None),
    ],
)
def test_find_answer(text: str, answer: str | None) -> None:
    assert find_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer", "verdict"),
    [
        ("#### 85", "85", True),
        ("#### 85.00", "85", True),
        ("#### 1,234", "1234", True),
        ("#### 1234", "1.234", True),
        ("#### 850", "85", False),
        ("#### 8", "85", False),
        ("#### -85", "85", False),
        ("85", "85", False),
    ],
)
def test_right(text: str, answer: str, verdict: bool) -> None:
    assert right(text, answer) is verdict


def test_an_answer_that_is_no_number_is_refused_before_anything_is_asked() -> None:
    def ask(prompts: list[list[int]]) -> list[str]:
        raise AssertionError("asked")

    with pytest.raises(InputError, match="must be one number, got 'many'"):
        sit(ask, [Question((1,), "5", "a"), Question((1,), "many", "a")])
    with pytest.raises(InputError, match="got no questions"):
        sit(ask, [])


def test_sit_asks_like_lengths_together_and_keeps_the_order_of_the_questions() -> None:
    asked: list[list[list[int]]] = []

    def ask(prompts: list[list[int]]) -> list[str]:
        asked.append(prompts)
        return [f"#### {sum(prompt)}" for prompt in prompts]

    questions = [
        Question((4, 5, 6), "15", "long"),
        Question((1,), "1", "short"),
        Question((2, 3), "6", "long"),
        Question((7,), "7", "short"),
    ]
    result = sit(ask, questions, batch_size=2)
    assert asked == [[[1], [7]], [[2, 3], [4, 5, 6]]]
    assert [reply for _, reply, _ in result.replies] == ["#### 15", "#### 1", "#### 5", "#### 7"]
    assert [good for *_, good in result.replies] == [True, True, False, True]
    assert [question for question, *_ in result.replies] == questions
    assert result.by_kind == {"long": (1, 2), "short": (2, 2)}
    assert (result.right, result.total, result.accuracy) == (3, 4, 0.75)


def test_a_reply_too_few_is_our_fault_and_shows() -> None:
    with pytest.raises(ValueError, match="shorter"):
        sit(lambda prompts: ["#### 1"], [Question((1,), "1", "a"), Question((2,), "1", "a")])


@pytest.mark.parametrize(
    ("right_answers", "total", "low", "high"),
    # Wilson's score interval; 81 of 263 is the example of Newcombe 1998, table I.
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval(right_answers: int, total: int, low: float, high: float) -> None:
    result = ExamResult(right_answers, total, {}, [])
    assert result.interval == pytest.approx((low, high), abs=5e-5)
