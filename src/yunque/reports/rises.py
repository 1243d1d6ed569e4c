"""Losses that went elsewhere than the one judged by: an end above the best, another held-out set
that rose, losses that never moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from yunque.reports.curve import CLEAR, FEW, Curve, above_lowest, curve, fell, whole_fall
from yunque.reports.findings import Finding, evidence, make
from yunque.reports.log import Log

FAR = 0.1
"""A rise to act on: that part of the whole fall before it."""
MUCH = 0.25
"""A rise after which the last model cannot be said to have worked."""


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


def lost_much(worse: Finding) -> bool:
    """Whether a bad end gave back so much that the last model is not the one that was trained."""
    return worse.numbers.get("part", 1.0) >= MUCH


def validation_end(val: Curve) -> str:
    """`validation` where the end lies far above the lowest value, `last` where only the last value
    does, else empty."""
    low = float(val.values[val.lowest])
    far, end = low + FAR * whole_fall(val.values), float(val.values[-1])
    few = len(val.values) < FEW and end - low <= CLEAR * abs(low)
    if few or end <= far or not above_lowest(val, end):
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


def other_set_rose(log: Log) -> Finding | None:
    """A further held-out set on which the loss rose, beside the one that the verdict goes by."""
    rising: list[tuple[float, str, Curve]] = []
    for name, rows in log.other_evals.items():
        c = curve(rows, "val_loss")
        if len(c.values) < 4 or c.lowest > len(c.values) - 3:
            continue
        low, level = float(c.values[c.lowest]), float(np.median(c.values[c.lowest + 1 :][-3:]))
        if level - low > FAR * whole_fall(c.values) and above_lowest(c, level):
            rising.append(((level - low) / abs(low) if low else 0.0, name, c))
    if not rising:
        return None
    _, name, c = max(rising, key=lambda one: one[0])
    low_row, last = c.rows[c.lowest], c.rows[-1]
    return make(
        "other_set_rose",
        "warning",
        evidence((low_row, c.name), (last, c.name)),
        set=name,
        main=log.eval_set,
        step=low_row.step,
        best=float(c.values[c.lowest]),
        last_step=last.step,
        last=float(c.values[-1]),
        others=len(log.other_evals),
        rose=len(rising),
    )


def validation_unmoved(train: Curve, val: Curve) -> Finding | None:
    """The training loss fell, and no evaluation differs from another by much of that fall."""
    if len(val.values) < FEW or len(train.values) < FEW or not fell(train):
        return None
    won, least, most = whole_fall(train.smooth), float(val.values.min()), float(val.values.max())
    if most - least > 0.05 * won or won < 0.1 * abs(float(train.smooth[0])):
        return None
    low, high = val.rows[val.lowest], val.rows[int(np.argmax(val.values))]
    return make(
        "validation_unmoved",
        "problem",
        evidence((low, val.name), (high, val.name), (train.rows[0], train.name))
        + evidence((train.rows[-1], train.name)),
        evals=len(val.values),
        least=least,
        most=most,
        first=float(train.values[0]),
        last=float(train.values[-1]),
    )


def training_flat(train: Curve) -> Finding | None:
    """The training loss did not fall beyond its noise. Of losses that are all 0 another finding
    tells."""
    if len(train.values) < FEW or fell(train, 3.0) or not np.any(train.values):
        return None
    half = len(train.values) // 2
    low, high = train.rows[train.lowest], train.rows[int(np.argmax(train.values))]
    return make(
        "training_flat",
        "problem",
        evidence((low, train.name), (high, train.name)),
        early=float(train.values[:half].mean()),
        late=float(train.values[half:].mean()),
        least=float(train.values.min()),
        most=float(train.values.max()),
        loss_rows=len(train.values),
    )
