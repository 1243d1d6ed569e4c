"""The marking of exams: what counts as the answer, and the sums over questions."""

from __future__ import annotations

from fractions import Fraction

import pytest

from yunque.errors import InputError
from yunque.exam import ExamResult, Question, compare, find_answer, mcnemar, right, sit


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


def result(goods: str) -> ExamResult:
    """One question a character; `1` is right."""
    replies = [
        (Question((n,), "1", "a", f"Question {n}"), f"reply {good}", good == "1")
        for n, good in enumerate(goods)
    ]
    return ExamResult(goods.count("1"), len(goods), {}, replies)


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    # By hand: 2 · Σ C(n, k) / 2^n over k up to the smaller one, at most 1.
    [
        (0, 0, Fraction(1)),
        (0, 1, Fraction(1)),
        (3, 3, Fraction(1)),
        (0, 5, Fraction(1, 16)),
        (6, 0, Fraction(1, 32)),
        (1, 9, Fraction(22, 1024)),
        (2, 8, Fraction(112, 1024)),
        (5, 15, Fraction(2 * (1 + 20 + 190 + 1140 + 4845 + 15504), 2**20)),
    ],
)
def test_mcnemar_by_hand(lost: int, gained: int, p_value: Fraction) -> None:
    assert mcnemar(lost, gained) == mcnemar(gained, lost) == p_value


def test_mcnemar_is_scipys_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    for lost in range(0, 40, 3):
        for gained in range(0, 200, 17):
            if lost + gained:
                theirs = stats.binomtest(lost, lost + gained, 0.5).pvalue
                assert float(mcnemar(lost, gained)) == pytest.approx(theirs, rel=1e-12)


def test_mcnemar_of_a_large_exam_is_still_exact() -> None:
    assert 0 < mcnemar(0, 5000) == Fraction(2, 2**5000)


def test_compare_pairs_the_questions() -> None:
    #             six lost, none gained: p = 1/32
    worse = compare(result("1111111100"), result("0000001100"))
    assert (worse.verdict, worse.p_value) == ("worse", Fraction(1, 32))
    assert (worse.before, worse.after, worse.total) == (8, 2, 10)
    assert [asked.text for asked, *_ in worse.lost] == [f"Question {n}" for n in range(6)]
    assert worse.lost[0][1:] == ("reply 1", "reply 0")
    assert worse.gained == []
    assert compare(result("0000001100"), result("1111111100")).verdict == "better"
    same_sums = compare(result("1100"), result("0011"))
    assert (same_sums.verdict, same_sums.p_value) == ("no different", Fraction(1))
    assert (len(same_sums.lost), len(same_sums.gained)) == (2, 2)
    # five of five in one direction are not enough at 5 %
    assert compare(result("11111"), result("00000")).verdict == "no different"


def test_compare_refuses_other_questions() -> None:
    with pytest.raises(InputError, match="cannot compare 2 questions with 3"):
        compare(result("11"), result("111"))
    other = ExamResult(1, 1, {}, [(Question((0,), "2", "a", "Question 0"), "", True)])
    with pytest.raises(InputError, match="question 1 is 'Question 0' in one exam"):
        compare(result("1"), other)


def test_sit_marks_each_question_by_its_own_check() -> None:
    replies = {1: "So it is 85 km.", 2: "paris", 3: "B) Rome", 4: "ab12", 5: "The answer is 85."}
    questions = [
        Question((1,), "85", "a", check="number"),
        Question((2,), "Paris", "b", check="exact"),
        Question((3,), "B", "c", check="choice", choices=("Oslo", "Rome")),
        Question((4,), r"^[a-z]+$", "d", check="regex"),
        Question((5,), "85", "e"),
    ]
    told: list[tuple[int, int]] = []
    done = sit(
        lambda prompts: [replies[prompt[0]] for prompt in prompts],
        questions,
        batch_size=2,
        progress=lambda answered, of: told.append((answered, of)),
    )
    assert [good for *_, good in done.replies] == [True, True, True, False, False]
    assert told == [(2, 5), (4, 5), (5, 5)]
    with pytest.raises(InputError, match="must be one number, got 'Paris'"):
        sit(lambda prompts: [""], [Question((1,), "Paris", "a", check="number")])
