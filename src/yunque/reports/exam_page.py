"""The exams of a run on its page: each against the base, by kind of question, and forgetting."""

from __future__ import annotations

import numpy as np

from yunque.exam import wilson
from yunque.reports.exams import accuracy, exam_score, forgetting, paired, sat
from yunque.reports.log import Log, Record
from yunque.reports.markup import both, foreign, section, spans, table
from yunque.words.exam import WORDS as KINDS
from yunque.words.report import tell

EXAMS = 40
"""Rows of the table at most; the first, the best, the kept and the last are always among them."""


def exams(log: Log) -> str:
    """The table of the exams, and right answers by kind of question."""
    rows = sat(log)
    if not rows:
        return ""
    body = sittings(log, rows)
    by_kind = kinds(rows)
    if by_kind:
        body += f"<h3>{both('report.exam.kinds')}</h3>{by_kind}"
    return section("report.exam", body)


def sittings(log: Log, rows: list[Record]) -> str:
    """One row an exam: right answers with their interval, and what changed since step 0."""
    even = {int(i) for i in np.linspace(0, len(rows) - 1, min(EXAMS, len(rows)))}
    best = max(range(len(rows)), key=lambda i: accuracy(rows[i]))
    kept = log.kept_step if log.kept_step is not None else -1
    chosen = [i for i, row in enumerate(rows) if i in (even | {best}) or row.step == kept]
    compared = [paired(log, row) for row in rows[1:]]
    # The verdict stands where a narrow screen still shows it.
    head = ["step", "right", "interval"]
    if any(compared):
        head = ["step", "right", "verdict", "interval", "lost", "gained", "p_value"]
    body = []
    for i in chosen:
        row = rows[i]
        right, total = exam_score(row) or (0.0, 1.0)
        low, high = wilson(right, total)
        cells = [
            both(f"report.exam.{'best' if row.step == kept else 'plain'}", step=row.step),
            both("report.exam.marks", right=right, total=total),
        ]
        interval = both("report.exam.range", low=low, high=high)
        held = compared[i - 1] if i else None
        if held is not None:
            cells += [
                both(f"report.exam.{held.verdict.replace(' ', '_')}"),
                interval,
                both("report.ledger.count", value=held.lost),
                both("report.ledger.count", value=held.gained),
                both("report.exam.p", value=held.p_value),
            ]
        elif any(compared):
            cells += [both("report.exam.base") if row.step == 0 else "-", interval, "-", "-", "-"]
        else:
            cells.append(interval)
        body.append(cells)
    found = table(
        both("report.exam"), [both(f"report.exam.{name}") for name in head], body, figures=True
    )
    notes = [both("report.exam.how")] if any(compared) else []
    if len(chosen) < len(rows):
        notes.append(both("report.exam.shown", shown=len(chosen), total=len(rows)))
    return found + "".join(f'<p class="small">{note}</p>' for note in notes)


def kinds(rows: list[Record]) -> str:
    """Right answers by kind of question: at the first exam, at the best, at the last."""
    best = max(rows, key=accuracy)
    shown = sorted(
        {row.row: row for row in (rows[0], best, rows[-1])}.values(), key=lambda r: r.row
    )
    names = sorted({str(kind) for row in shown for kind in kinds_of(row)})
    body = [[kind_name(k), *[score(kinds_of(row).get(k)) for row in shown]] for k in names]
    body.append([both("report.exam.all"), *[score(exam_score(row)) for row in shown]])
    head = [both("report.exam.kind"), *[both("report.at_step", step=row.step) for row in shown]]
    return table(both("report.exam.kinds"), head, body, figures=True) if names else ""


def forgotten(log: Log) -> str:
    """What became of the loss on a general text."""
    told = forgetting_text(log)
    return section("report.forgetting", f"<p>{spans(told)}</p>") if told else ""


def forgetting_text(log: Log) -> dict[str, str] | None:
    """What became of the loss on a general text, as a sentence; None where it was not measured."""
    found = forgetting(log)
    if found is None:
        return None
    case, numbers = found
    text = tell(f"report.forgetting.{case}", **numbers)
    kept = next((row for row in log.evals if row.step == log.kept_step), None)
    loss = None if kept is None else kept.number("general_loss")
    if kept is None or loss is None or kept.step == numbers["last_step"]:
        return text
    more = tell("report.forgetting.kept", kept_step=kept.step, kept_loss=loss)
    return {lang: f"{one} {more[lang]}" for lang, one in text.items()}


def kind_name(kind: str) -> str:
    """Our own kinds of question in the reader's language, others as they stand."""
    key = f"exam.kind.{kind}"
    return both(key) if key in KINDS else foreign(kind)


def kinds_of(row: Record) -> dict[str, tuple[float, float]]:
    """{kind: (right, total)} of an exam row, what has another form left out."""
    kinds = row.values.get("kinds")
    if not isinstance(kinds, dict):
        return {}
    return {
        str(kind): (pair[0], pair[1])
        for kind, pair in kinds.items()
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
    }


def score(pair: tuple[float, float] | None) -> str:
    """One cell of the exam table."""
    if pair is None:
        return "-"
    right, total = pair
    part = right / total if total else None
    return both("report.exam.score", right=right, total=total, part=part)
