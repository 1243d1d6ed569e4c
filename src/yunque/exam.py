"""Exams: questions whose answers a program can check, asked of a model, marked and compared.

The model, its tokenizer and the chat template are passed in as one function, `ask`. How a reply is
held against its key is the matter of `marking`; the tutor's own rule, the number after `####`, is
here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from yunque.errors import InputError
from yunque.marking.answers import Check, is_right, key_fault

MARK = "####"
"""What stands before the final answer, as in GSM8K (Cobbe et al. 2021)."""

# Digits with separators between them; no digit that belongs to a word or a unit (m2).
NUMBER = re.compile(r"(?<![\w.,])([-−]?) ?([0-9]+(?:[.,' \u00a0\u202f][0-9]+)*)")

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


@dataclass(frozen=True)
class Question:
    """One question, ready to be asked."""

    prompt: tuple[int, ...]
    """Token ids, up to where the reply begins."""
    answer: str
    """The key."""
    kind: str
    """What the scores are grouped by."""
    text: str = ""
    """The question as a reader should see it."""
    check: Check | Literal["mark"] = "mark"
    """How the reply is held against the key; "mark": the number after `####` and nothing else."""
    choices: tuple[str, ...] = ()
    """The texts of the options, for the check "choice"."""


@dataclass(frozen=True)
class ExamResult:
    """The marks."""

    right: int
    total: int
    by_kind: dict[str, tuple[int, int]]
    """Kind → (right, total)."""
    replies: list[tuple[Question, str, bool]]
    """In the order of the questions: what was asked, what came, whether it was right."""

    @property
    def accuracy(self) -> float:
        """Right answers as a fraction, 0 to 1."""
        return self.right / self.total

    def marks(self) -> dict[str, Any]:
        """`right`, `total` and `kinds` as the run log and the JSON outputs hold them."""
        kinds = {kind: list(marks) for kind, marks in sorted(self.by_kind.items())}
        return {"right": self.right, "total": self.total, "kinds": kinds}

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return wilson(self.right, self.total)


def wilson(right: float, total: float) -> tuple[float, float]:
    """The 95 % interval of a share of right answers.

    Source: Wilson 1927, without correction for continuity.
    """
    share, square = right / total, Z_95**2 / total
    middle = share + square / 2
    reach = Z_95 * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))


def sit(
    ask: Callable[[list[list[int]]], list[str]],
    questions: Sequence[Question],
    batch_size: int = 128,
    progress: Callable[[int, int], None] | None = None,
    batch_tokens: int = 0,
    reply_tokens: int = 0,
) -> ExamResult:
    """Ask every question once and mark the replies.

    Args:
        ask: prompts (token ids, of any lengths) → the replies as text, without the prompts.
        batch_size: prompts in one call; those of like length go together, to spare padding.
        progress: called with the number of questions answered and of all questions.
        batch_tokens: most tokens of one call, each row as long as its longest prompt and
            `reply_tokens`; at least one prompt is asked. 0: no bound.

    Raises:
        InputError: there are no questions, or a key cannot be checked.
    """
    if not questions:
        raise InputError("exam: got no questions, expected at least one.")
    for question in questions:
        check_key(question)
    replies = [""] * len(questions)
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt))
    done = 0
    while done < len(order):
        batch = order[done : done + batch_size]
        if batch_tokens:
            sizes = [len(questions[index].prompt) + reply_tokens for index in batch]
            rows = (n for n, size in enumerate(sizes, 1) if n * size <= batch_tokens)
            batch = batch[: max(rows, default=1)]
        texts = ask([list(questions[index].prompt) for index in batch])
        for index, text in zip(batch, texts, strict=True):
            replies[index] = text
        done += len(batch)
        if progress:
            progress(done, len(order))
    return marked(questions, replies)


def marked(questions: Sequence[Question], replies: Sequence[str]) -> ExamResult:
    """The marks of one reply for each question.

    Raises:
        InputError: a key is not of the kind that its check needs.
    """
    found = [
        (question, reply, mark(question, reply))
        for question, reply in zip(questions, replies, strict=True)
    ]
    by_kind: dict[str, tuple[int, int]] = {}
    for question, _, good in found:
        had, of = by_kind.get(question.kind, (0, 0))
        by_kind[question.kind] = (had + good, of + 1)
    return ExamResult(sum(good for *_, good in found), len(found), by_kind, found)


def check_key(question: Question) -> None:
    """Refuse a key that no reply could be held against.

    Raises:
        InputError: the key is not of the kind that its check needs.
    """
    if question.check == "mark":
        expected(question.answer)
    elif fault := key_fault(question.answer, question.check, question.choices):
        raise InputError(f"exam: {fault}")


def mark(question: Question, reply: str) -> bool:
    """Whether a reply answers its question rightly.

    Raises:
        InputError: the key is not of the kind that its check needs.
    """
    if question.check == "mark":
        return right(reply, question.answer)
    return is_right(reply, question.answer, question.check, question.choices)


Verdict = Literal["better", "no different", "worse"]


@dataclass(frozen=True)
class Comparison:
    """Two exams of the same questions, before and after."""

    before: int
    after: int
    """Right answers."""
    total: int
    lost: list[tuple[Question, str, str]]
    """Right before and wrong after: question, reply before, reply after."""
    gained: list[tuple[Question, str, str]]
    """Wrong before and right after."""
    p_value: Fraction
    verdict: Verdict
    """Of the two, at 5 %. "no different" means: not shown to differ by this exam."""


def compare(before: ExamResult, after: ExamResult) -> Comparison:
    """Hold an exam against an earlier one of the same questions, question by question.

    Raises:
        InputError: the two exams did not ask the same questions.
    """
    if len(before.replies) != len(after.replies):
        raise InputError(
            f"exam: cannot compare {len(before.replies)} questions with {len(after.replies)}. "
            "Both must be the same exam."
        )
    lost, gained = [], []
    pairs = zip(before.replies, after.replies, strict=True)
    for number, ((asked, reply, was), (again, later, now)) in enumerate(pairs, 1):
        if identity(asked) != identity(again):
            raise InputError(
                f"exam: question {number} is {again.text[:60]!r} in one exam and "
                f"{asked.text[:60]!r} in the other. Both must be the same exam."
            )
        if was and not now:
            lost.append((again, reply, later))
        if now and not was:
            gained.append((again, reply, later))
    p_value = mcnemar(len(lost), len(gained))
    verdict: Verdict = "no different"
    if p_value < Fraction(5, 100):
        verdict = "better" if len(gained) > len(lost) else "worse"
    return Comparison(before.right, after.right, after.total, lost, gained, p_value, verdict)


def identity(question: Question) -> tuple[object, ...]:
    """What makes two questions the same one; the prompt's tokens may differ between models."""
    return question.text, question.answer, question.check, question.choices


def mcnemar(lost: int, gained: int) -> Fraction:
    """Exact two-sided p-value of the changes: each was as likely to be a loss as a gain.

    Source: McNemar 1947, with the binomial distribution in place of its approximation.
    """
    changes = lost + gained
    tail = sum(math.comb(changes, k) for k in range(min(lost, gained) + 1))
    return min(Fraction(1), Fraction(2 * tail, 2**changes))


def right(text: str, answer: str) -> bool:
    """Whether the final answer in `text` is the number `answer`.

    Raises:
        InputError: `answer` is no number.
    """
    return find_answer(text) == expected(answer)


def expected(answer: str) -> str:
    """A right answer in plain form.

    Raises:
        InputError: it is no number.
    """
    number = only_number(answer)
    if number is None:
        raise InputError(f"exam: the right answer must be one number, got {answer!r}.")
    return number


def find_answer(text: str) -> str | None:
    """The number after the last `####`, in plain form ("-1234.5"), else None.

    Only the first line that is not empty counts, for a model may go on writing. Units, currency
    signs and a full stop are passed over. Two different numbers are no answer.
    """
    _, mark, after = text.rpartition(MARK)
    if not mark or not after.strip():
        return None
    return only_number(after.strip().splitlines()[0])


def only_number(line: str) -> str | None:
    """The one number of a line in plain form; None where there is none or more than one."""
    found = {plain(sign, digits) for sign, digits in NUMBER.findall(line)}
    return found.pop() if len(found) == 1 else None


def plain(sign: str, digits: str) -> str | None:
    """Digits with separators → plain form, None where the separators make no sense.

    Two kinds of separators: the last one is the decimal mark. One kind: a thousands separator
    where it cuts off groups of exactly three digits (1,234 and 1.234 are both 1234), else the
    decimal mark.
    """
    groups = re.split(r"[^0-9]", digits)
    marks = re.findall(r"[^0-9]", digits)
    fraction = ""
    decimal = bool(marks) and marks[-1] in ".," and marks.count(marks[-1]) == 1
    if decimal and not (len(marks) == 1 and are_thousands(groups)):
        fraction = groups.pop()
        marks.pop()
    if len(set(marks)) > 1 or (marks and not are_thousands(groups)):
        return None
    value = Decimal("".join(groups) + "." + (fraction or "0"))
    text = f"{value:f}".rstrip("0").rstrip(".")
    return f"-{text}" if sign and value else text


def are_thousands(groups: list[str]) -> bool:
    """Whether the groups of digits are those of a number written with thousands separators."""
    first, *rest = groups
    return len(first) <= 3 and not first.startswith("0") and all(len(g) == 3 for g in rest)
