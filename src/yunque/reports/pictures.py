"""The little picture of a finding: the curve that it is about, with the rows that prove it."""

from __future__ import annotations

from html import escape

import numpy as np

from yunque.reports.charts import Line, line
from yunque.reports.findings import Finding
from yunque.reports.log import Log
from yunque.words.report import tell

WIDTH, HEIGHT, EDGE = 220, 56, 5
SERIES = ("val_loss", "train_loss", "grad_norm", "learning_rate", "tokens_per_second")
FALLBACK = {"schedule": "learning_rate", "gradient_spike": "grad_norm"}
POINTS = 160


def little_picture(log: Log, one: Finding) -> str:
    """An SVG of the first series that the evidence names; empty where it names none."""
    named = {e["field"] for e in one.evidence}
    for name in sorted(SERIES, key=lambda n: n != FALLBACK.get(one.id)):
        rows = log.evals if name == "val_loss" else log.steps
        drawn = line(rows, name, f"report.{LABELS.get(name, name)}", "")
        names = {name, *(row.names.get(name, name) for row in drawn.rows[:1])}
        if named & names and len(drawn.rows) > 1:
            wanted = {e["row"] for e in one.evidence if e["field"] in names}
            return picture(drawn, wanted)
    return ""


LABELS = {"val_loss": "validation", "train_loss": "train_rows"}


def picture(drawn: Line, wanted: set[int]) -> str:
    """The line, thinned to POINTS, with a dot at each row of `wanted`."""
    x, y = np.array(drawn.x(), dtype=float), np.array(drawn.y(), dtype=float)
    spans = [max(float(np.ptp(v)), 1e-300) for v in (x, y)]
    left = EDGE + (x - x.min()) / spans[0] * (WIDTH - 2 * EDGE)
    top = HEIGHT - EDGE - (y - y.min()) / spans[1] * (HEIGHT - 2 * EDGE)
    kept = list(range(len(x)))
    if len(x) > POINTS:
        parts = np.array_split(np.arange(len(x)), POINTS // 2)
        both = {int(p[i]) for p in parts for i in (y[p].argmin(), y[p].argmax())}
        kept = sorted(both | {0, len(x) - 1})
    path = "L".join(f"{left[i]:.1f} {top[i]:.1f}" for i in kept)
    dots = "".join(
        f'<circle cx="{left[i]:.1f}" cy="{top[i]:.1f}" r="3.5"></circle>'
        for i, row in enumerate(drawn.rows)
        if row.row in wanted
    )
    # An attribute holds no spans: the name stands in both languages.
    name = " / ".join(dict.fromkeys(tell(drawn.label).values()))
    return (
        f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'preserveAspectRatio="xMinYMid" aria-label="{escape(name)}">'
        f'<path d="M{path}"></path>{dots}</svg>'
    )
