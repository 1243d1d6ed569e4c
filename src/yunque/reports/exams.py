"""What the exams of a run say: how many right, and whether that differs from before training."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yunque.exam import wilson
from yunque.reports.log import Log, Record, whole

SURE = 0.05
"""The level of the paired test."""
ANSWERS_LIMIT_BYTES = 50_000_000
FORGOT_NATS = 0.05
"""The general text is short: no smaller change of its loss is judged."""


@dataclass(frozen=True)
class Paired:
    """An exam held against that of step 0, question by question."""

    base: Record
    row: Record
    lost: int
    """Answers that were right before training and are wrong now."""
    gained: int
    p_value: float
    verdict: str
    """better, no different, worse."""


def exam_score(row: Record) -> tuple[float, float] | None:
    """(right, total) of an exam row."""
    right, total = row.number("right"), row.number("total")
    return (right, total) if right is not None and total and 0 <= right <= total else None


def sat(log: Log) -> list[Record]:
    """The exams that say how many answers were right."""
    return [row for row in log.exams if exam_score(row) is not None]


def accuracy(row: Record) -> float:
    """The share of right answers."""
    right, total = exam_score(row) or (0.0, 1.0)
    return right / total


def paired(log: Log, row: Record) -> Paired | None:
    """The comparison that an exam row carries; None where it has none, or one that cannot be.

    It must agree with the exam of step 0 and with itself: the change of the right answers is what
    was gained less what was lost, and the verdict follows from the p-value.
    """
    rows = sat(log)
    lost, gained = whole(row.values.get("lost")), whole(row.values.get("gained"))
    p_value, verdict = row.number("p_value"), row.values.get("verdict")
    if not rows or rows[0].step != 0 or lost is None or gained is None or p_value is None:
        return None
    (before, total), (after, of) = exam_score(rows[0]) or (0, 0), exam_score(row) or (0, 1)
    if total != of or after - before != gained - lost or not 0 <= p_value <= 1:
        return None
    follows = "no different"
    if p_value < SURE:
        follows = "better" if gained > lost else "worse"
    if verdict != follows:
        return None
    return Paired(rows[0], row, lost, gained, p_value, follows)


def last_paired(log: Log) -> Paired | None:
    """The comparison that the last exam carries."""
    rows = sat(log)
    return paired(log, rows[-1]) if len(rows) > 1 else None


def exam_change(log: Log) -> tuple[Record, Record, float] | None:
    """First and last exam, and the change of the share of right answers in standard errors."""
    rows = sat(log)
    if len(rows) < 2:
        return None
    (r1, n1), (r2, n2) = exam_score(rows[0]) or (0, 1), exam_score(rows[-1]) or (0, 1)
    pooled = (r1 + r2 + 1) / (n1 + n2 + 2)  # Laplace: no spread of 0 where all is right or wrong.
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    return rows[0], rows[-1], (r2 / n2 - r1 / n1) / spread


def exam_better(log: Log) -> bool:
    """Whether the last model, or the kept one, is better at the exam than the first.

    By the paired test where it was made. The kept one may be the best of many by luck: its p-value
    counts for as many as were tried (Bonferroni).
    """
    last, kept, tries = last_paired(log), best_kept(log), len(sat(log)) - 1
    held = None if kept is None else paired(log, kept)
    if last is None:
        change = exam_change(log)
        return change is not None and change[2] > 2
    lucky = held is None or held.verdict != "better" or held.p_value * tries >= SURE
    return last.verdict == "better" or not lucky


def exam_worse(log: Log) -> bool:
    """Whether the kept model, else the last one, is worse at the exam by the paired test."""
    kept = best_kept(log)
    held = last_paired(log) if kept is None else paired(log, kept)
    return held is not None and held.verdict == "worse"


def exam_numbers(name: str, row: Record) -> dict[str, Any]:
    """The figures of one exam for a sentence."""
    right, total = exam_score(row) or (0.0, 1.0)
    values = {"right": int(right), "total": int(total), "step": row.step}
    return {f"{name}_{key}": value for key, value in values.items()}


def paired_numbers(held: Paired) -> dict[str, Any]:
    """The figures of a comparison for a sentence."""
    counts = {"lost": held.lost, "gained": held.gained, "p_value": held.p_value}
    return {**exam_numbers("first", held.base), **exam_numbers("last", held.row), **counts}


def best_kept(log: Log) -> Record | None:
    """The exam of the model in `best/`, None where the log shows none."""
    if log.kept_step is None:
        return None
    return next((row for row in sat(log) if row.step == log.kept_step), None)


def with_accuracy(log: Log) -> tuple[Record, ...]:
    """The exams with their right answers in percent and the interval (low, high), for a curve."""
    found = []
    for row in sat(log):
        low, high = wilson(*(exam_score(row) or (0.0, 1.0)))
        drawn = {"accuracy": 100 * accuracy(row), "low": 100 * low, "high": 100 * high}
        found.append(dataclasses.replace(row, values={**row.values, **drawn}))
    return tuple(found)


def forgetting(log: Log) -> tuple[str, dict[str, Any]] | None:
    """(case, figures) of the loss on the general text; None where it was measured but once.

    rose and fell need FORGOT_NATS; a smaller change is "still".
    """
    rows = [row for row in log.evals if row.number("general_loss") is not None]
    if len(rows) < 2:
        return None
    first, last = rows[0].number("general_loss") or 0.0, rows[-1].number("general_loss") or 0.0
    case = "still"
    if abs(last - first) >= FORGOT_NATS:
        case = "rose" if last > first else "fell"
    return case, {
        "first": first,
        "first_step": rows[0].step,
        "last": last,
        "last_step": rows[-1].step,
        "change": abs(last - first),
        "judged": FORGOT_NATS,
    }


def answers(log: Log, row: Record) -> dict[str, bool] | None:
    """Question → whether it was answered rightly, as RUN/exam holds it for an exam of the run.

    None where the file is absent, damaged, asks a question twice or does not agree with the row.
    """
    file = Path(log.path).parent / "exam" / f"step-{row.step:08d}.jsonl"
    if log.format != "yunque" or not file.is_file() or file.stat().st_size > ANSWERS_LIMIT_BYTES:
        return None
    found: dict[str, bool] = {}
    lines = 0
    try:
        # Not splitlines(): a reply may hold other line separators than the one of the file.
        for line in filter(None, file.read_text(encoding="utf-8").split("\n")):
            one = json.loads(line)
            asked = [one["question"], one["key"], one.get("check"), one.get("choices")]
            found[json.dumps(asked)] = bool(one["right"])
            lines += 1
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole_exam = exam_score(row) == (sum(found.values()), len(found))
    return found if whole_exam and lines == len(found) else None
