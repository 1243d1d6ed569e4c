"""Rewards of reinforcement and preference trainers: whether what they aim at was lost again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from yunque.reports.consistency import reward_name
from yunque.reports.curve import Curve, curve
from yunque.reports.findings import Finding, evidence, make
from yunque.reports.log import Log

LOST = 0.25
"""A reward has collapsed where it lost that part of its highest level, and half of its gain."""


def ends_of(c: Curve) -> tuple[float, float, int]:
    """(median of the first tenth of the rows, of the last tenth, rows in each)."""
    rows = max(3, len(c.values) // 10)
    return float(np.median(c.values[:rows])), float(np.median(c.values[-rows:])), rows


def reward_fell(log: Log) -> Finding | None:
    """The reward ended far below where it had been, or the preferred answers lost theirs."""
    name = reward_name(log)
    if log.objective == "prediction" or not name:
        return None
    c = curve(log.steps, name)
    if len(c.values) < 8:
        return None
    start, end, rows = ends_of(c)
    at = int(np.argmax(c.smooth))
    top = float(c.smooth[at])
    drop = top - end
    sure = c.moved(drop, rows / math.pi, 6.0)
    if not sure or drop <= LOST * abs(top) or drop <= 0.5 * (top - start):
        return chosen_fell(log)
    more: dict[str, Any] = {"start": start, "rows": rows, "end": end, "last_step": c.rows[-1].step}
    early = at < rows  # It was highest at its beginning.
    if not early:
        more |= {"top": top, "step": c.rows[at].step}
    return make(
        "reward_fell",
        "problem",
        evidence((c.rows[at], name), (c.rows[-1], name)),
        case="throughout" if early else "",
        name=name,
        **more,
    )


def chosen_fell(log: Log) -> Finding | None:
    """The preferred answers, too, became less likely than the reference model had them."""
    names = sorted({name for row in log.steps for name in row.values})
    name = next((n for n in names if n.endswith("rewards/chosen")), "")
    c = curve(log.steps, name)
    if len(c.values) < 8:
        return None
    start, end, rows = ends_of(c)
    if end >= 0 or not c.moved(start - end, rows / math.pi, 6.0):
        return None
    return make(
        "reward_fell",
        "info",
        evidence((c.rows[0], name), (c.rows[-1], name)),
        case="chosen",
        name=name,
        start=start,
        end=end,
        rows=rows,
        last_step=c.rows[-1].step,
    )
