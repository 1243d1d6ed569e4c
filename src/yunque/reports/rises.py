"""Losses that rose where no overfitting and no divergence explains it."""

from __future__ import annotations

from typing import Any

import numpy as np

from yunque.reports.curve import Curve, above_lowest, fell, whole_fall
from yunque.reports.findings import Finding, evidence, make
from yunque.reports.log import Log

FAR = 0.1
"""A rise to act on: that part of the whole fall before it."""


def ended_worse(log: Log, train: Curve, val: Curve) -> Finding | None:
    """The last loss lies far above the lowest: of validation, else of training.

    For runs whose end neither overfitting nor divergence explains.
    """
    if len(val.values) < 2:
        return training_end(train)
    case = validation_end(val)
    if not case:
        return None
    low, last = val.rows[val.lowest], val.rows[-1]
    best, end = float(val.values[val.lowest]), float(val.values[-1])
    won = whole_fall(val.values)
    part: dict[str, Any] = {"won": won, "part": (end - best) / won} if won > 0 else {}
    return make(
        "ended_worse",
        "problem" if end > val.values[0] and not log.kept else "warning",
        evidence((low, val.name), (last, val.name)),
        case=f"kept_{case}" if log.kept else case,
        also="report.ended_worse.part" if part else "",
        step=low.step,
        best=best,
        last_step=last.step,
        last=end,
        kept=log.kept,
        **part,
    )


def validation_end(val: Curve) -> str:
    """`validation` where the end lies far above the lowest value, `last` where only the last value
    does, else empty."""
    far = float(val.values[val.lowest]) + FAR * whole_fall(val.values)
    if val.values[-1] <= far or not above_lowest(val, float(val.values[-1])):
        return ""
    before = float(val.values[-2])
    single = val.lowest < len(val.values) - 2 and before <= far
    return "last" if single or val.lowest == len(val.values) - 2 else "validation"


def training_end(train: Curve) -> Finding | None:
    """The training loss of the last tenth of the rows lies far above its lowest level."""
    if len(train.values) < 8:
        return None
    tail = max(3, len(train.values) // 10)
    at = int(np.argmin(train.smooth))
    best, end = float(train.smooth[at]), float(np.median(train.values[-tail:]))
    won = whole_fall(train.smooth)
    if not fell(train) or end - best <= max(6 * train.noise, FAR * won):
        return None
    return make(
        "ended_worse",
        "warning",
        evidence((train.rows[at], train.name), (train.rows[-1], train.name)),
        case="training",
        also="report.ended_worse.part",
        step=train.rows[at].step,
        best=best,
        last_step=train.rows[-1].step,
        last=end,
        rows=tail,
        won=won,
        part=(end - best) / won,
    )
