"""The model against its own beginning: what the run made, and the base that it came from."""

from __future__ import annotations

from typing import Any

from yunque.reports.curve import Curve
from yunque.reports.exams import (
    best_kept,
    exam_change,
    exam_numbers,
    exam_score,
    last_paired,
    paired_numbers,
    sat,
)
from yunque.reports.findings import Finding, evidence, make
from yunque.reports.log import Log, Record


def worse_than_base(log: Log, val: Curve) -> Finding | None:
    """The run ended worse than it began, or nothing that it made was better than its beginning.

    The exam decides by its paired test, where that was made; where it shows no difference, or was
    not made, the plain figures of the exam and the validation loss do.
    """
    held = last_paired(log)
    if held is not None and held.verdict == "worse":
        names = ("right", "total", "lost", "gained", "p_value", "verdict")
        case, also, more = "paired", "", dict[str, Any]()
        kept = best_kept(log)
        if kept is not None:
            also = f"report.worse_than_base.kept_{'other' if kept.step else 'first'}"
            more = exam_numbers("kept", kept)
        return make(
            "worse_than_base",
            "problem",
            evidence((held.base, "right"), *[(held.row, name) for name in names]),
            case=case,
            also=also,
            **paired_numbers(held),
            **more,
        )
    if log.kept_step == 0 and (found := nothing_better(log)) is not None:
        return found
    change = exam_change(log)
    if held is not None and held.verdict == "better":
        return None
    if held is not None or change is None or change[0].step != 0 or change[2] > -2:
        rise = float(val.values[-1] - val.values[0]) if len(val.values) >= 4 else 0.0
        if rise <= 0 or val.steps[0] > 0 or not val.moved(rise) or log.kept or log.counted:
            return None
        return make(
            "worse_than_base",
            "problem",
            evidence((val.rows[0], "val_loss"), (val.rows[-1], "val_loss")),
            case="loss",
            first=float(val.values[0]),
            last=float(val.values[-1]),
            last_step=val.rows[-1].step,
        )
    first, last, _ = change
    return make(
        "worse_than_base",
        "problem",
        evidence((first, "right"), (first, "total"), (last, "right"), (last, "total")),
        **exam_numbers("first", first),
        **exam_numbers("last", last),
    )


def nothing_better(log: Log) -> Finding | None:
    """`best/` is the model of step 0: no later evaluation was better by what the run watched."""
    # While the run goes on, something better may still come.
    severity = "problem" if log.stop is not None else "warning"
    if log.by_exam:
        rows = sat(log)
        return from_exams(rows, severity) if len(rows) > 1 else None
    name = "val_loss" if any(r.number("val_loss") is not None for r in log.evals) else "train_loss"
    rows = [row for row in log.evals if row.number(name) is not None]
    if len(rows) < 2 or rows[0].step != 0:
        return None
    low = min(rows[1:], key=lambda row: row.number(name) or 0.0)
    return make(
        "worse_than_base",
        severity,
        evidence((rows[0], name), (low, name)),
        case=f"kept_{name}",
        first=rows[0].number(name),
        later=len(rows) - 1,
        low=low.number(name),
        low_step=low.step,
    )


def from_exams(rows: list[Record], severity: str) -> Finding:
    """`nothing_better` by the exams."""
    top = max(rows[1:], key=lambda row: (exam_score(row) or (0, 1))[0])
    return make(
        "worse_than_base",
        severity,
        evidence((rows[0], "right"), (rows[0], "total"), (top, "right"), (top, "total")),
        case="kept_exam",
        later=len(rows) - 1,
        **exam_numbers("first", rows[0]),
        **exam_numbers("top", top),
    )
