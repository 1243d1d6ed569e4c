"""Measures of what was held out that are no loss: which one to tell of."""

from __future__ import annotations

from yunque.reports.curve import Curve, curve
from yunque.reports.log import Log
from yunque.reports.names import higher_is_better


def held_out_measure(log: Log) -> tuple[Curve, bool] | None:
    """(the measure that most evaluations name, the first by name; whether higher is better)."""
    names = sorted({name for row in log.evals for name in row.values})
    known = [(name, up) for name in names if (up := higher_is_better(name)) is not None]
    found = [(curve(log.evals, name), up) for name, up in known]
    return max(
        (one for one in found if len(one[0].values)),
        key=lambda one: len(one[0].values),
        default=None,
    )
