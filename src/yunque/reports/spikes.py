"""Single events in a noisy series: spikes of the loss and of the gradient norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from yunque.reports.curve import Curve, curve, noise
from yunque.reports.findings import Finding, divergence_onset, evidence, make
from yunque.reports.log import Log, Record

SIDES = (3, 7, 15, 31)
"""Points on either side that say what is usual; a wide bump shows only against a wide side."""
DEVIATIONS = 8.0
"""A spike is at least 8 robust deviations high."""
RARE = 7.0
"""And so high that a run like this one holds such a row by chance once in exp(7) = 1,100 times."""


def heights(values: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(how far each point lies above the medians on both its sides, the higher of these).

    Above both: in a steep fall the points before are higher, in a rise those after.
    """
    n = len(values)
    if n < 2 * side + 1:
        return np.zeros(n), values
    windows = np.median(np.lib.stride_tricks.sliding_window_view(values, side), axis=1)
    usual = np.full(n, math.inf)
    usual[side : n - side] = np.maximum(windows[: n - 2 * side], windows[side + 1 :])
    return np.where(np.isfinite(usual), values - usual, 0.0), usual


def spread(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Robust deviation about each point: of the whole series, or of its surroundings if more."""
    whole = noise(steps, values)
    width = 31
    if len(values) < 2 * width:
        return np.full(len(values), whole)
    rough = np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2) / math.sqrt(1.5)
    local = 1.4826 * np.median(np.lib.stride_tricks.sliding_window_view(rough, width), axis=1)
    ends = (len(values) - len(local)) // 2
    padded = np.pad(local, (ends, len(values) - len(local) - ends), mode="edge")
    return np.maximum(padded, whole)


def spikes(values: np.ndarray, steps: np.ndarray, least: float) -> dict[int, float]:
    """Index of each spike → what was usual there. Neighbouring points are one spike, its highest.

    Args:
        values: one point a row.
        steps: where the rows stand.
        least: a spike is at least that high, however small the noise.
    """
    if len(values) < 16:
        return {}
    wide = spread(values, steps)
    unsure = 1 + 3 / math.sqrt(len(values))  # Of the noise itself, where the rows are few.
    limit = np.maximum(unsure * max(DEVIATIONS, tail(values, wide)) * wide, least)
    found: dict[int, float] = {}
    for side in SIDES:
        height, usual = heights(values, side)
        for i in np.flatnonzero(height > limit):
            # A spike with a long tail has high neighbours: a wider side says what is usual.
            found[int(i)] = min(float(usual[i]), found.get(int(i), math.inf))
    merged: dict[int, float] = {}
    group: list[int] = []
    for here in (*sorted(found), len(values) + 10):
        if group and here > group[-1] + 2:
            top = max(group, key=lambda k: float(values[k]))
            merged[top] = found[top]
            group = []
        group.append(here)
    return merged


def tail(values: np.ndarray, wide: np.ndarray) -> float:
    """How many deviations high the highest row is where the noise is skewed, as batch losses are.

    The heights above the running median fall off as an exponential (or faster) from their third
    quartile on; up to one row in 14 may be a spike itself.
    """
    n, side = len(values), 7
    if n < 4 * side or not np.all(wide > 0):
        return 0.0
    middle = np.median(np.lib.stride_tricks.sliding_window_view(values, 2 * side + 1), axis=1)
    heights_ = (values[side : n - side] - middle) / wide[side : n - side]
    quarter, high = np.quantile(heights_, [0.75, 0.93])
    scale = (high - quarter) / math.log(0.25 / 0.07)
    return float(quarter + scale * (math.log(0.25 * n) + RARE))


def spike_steps(log: Log) -> dict[str, int]:
    """Finding → the step of the spike that it names, for whoever knows which rows that update read.

    Of a run that was resumed with changes only the steps since then: before, other rows may have
    been read than those that the recipe now gives.
    """
    train, norms = curve(log.steps, "train_loss"), curve(log.steps, "grad_norm")
    found = (loss_spike(log, train, divergence_onset(train)), gradient_spike(log, norms))
    since = max((r.step for r in log.warnings if r.values.get("id") == "changed"), default=0)
    named = {one.id: int(one.numbers["step"]) for one in found if one is not None}
    return {id: step for id, step in named.items() if step > since}


def rows_read(log: Log, id: str, row: Record) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """(sentence, evidence, numbers) of what the spike's update had read, as the log's end tells."""
    stop = log.stop
    if stop is None or stop.number(f"{id}_step") != row.step:
        return "", [], {}
    names = {name: stop.values.get(f"{id}_{name}") for name in ("read", "first", "source")}
    if not names["read"] or not names["first"]:
        return "", [], {}
    case = "source" if names["source"] else "token"
    shown = ["read", "source" if names["source"] else "first"]
    numbers = {name: names[name] for name in shown}
    if (worst := stop.number(f"{id}_worst")) is not None:
        numbers |= {"worst": worst, "middle": stop.number(f"{id}_middle")}
        case += "_worst"
    proof = evidence(*[(stop, f"{id}_{name}") for name in numbers])
    return f"report.spike_rows.{case}", proof, numbers


def loss_spike(log: Log, train: Curve, onset: int | None) -> Finding | None:
    """Losses far above what lies around them, after which the loss came back down."""
    end = len(train.values) if onset is None else onset + 1
    values, steps = train.values[:end], train.steps[:end]
    if len(values) < 16:
        return None
    found = spikes(values, steps, 0.02 * float(np.median(np.abs(values))))
    if not found:
        return None
    top = max(found, key=lambda i: values[i] - found[i])
    row = train.rows[top]
    also, proof, more = rows_read(log, "loss_spike", row)
    return make(
        "loss_spike",
        "info",
        evidence((row, "train_loss")) + proof,
        also=also,
        rows=len(found),
        step=row.step,
        loss=float(values[top]),
        around=found[top],
        **more,
    )


def gradient_spike(log: Log, norms: Curve) -> Finding | None:
    """Gradient norms several times those around them; judged by ratios, as norms spread so."""
    kept = np.flatnonzero(norms.values > 0)
    if len(kept) < 16:
        return None
    logs, steps = np.log(norms.values[kept]), norms.steps[kept]
    unsure = 1 + 3 / math.sqrt(len(logs))
    limit = np.clip(5 * unsure * spread(logs, steps), math.log(2.5), math.log(16))
    found: dict[int, float] = {}
    for side in SIDES[:2]:
        height, usual = heights(logs, side)
        for i in np.flatnonzero(height > limit):
            found[int(i)] = min(float(usual[i]), found.get(int(i), math.inf))
    if not found:
        return None
    top = max(found, key=lambda i: logs[i] - found[i])
    row = norms.rows[int(kept[top])]
    also, proof, more = rows_read(log, "gradient_spike", row)
    return make(
        "gradient_spike",
        "info",
        evidence((row, "grad_norm")) + proof,
        also=also,
        rows=len(found),
        step=row.step,
        norm=row.number("grad_norm"),
        around=math.exp(found[top]),
        **more,
    )
