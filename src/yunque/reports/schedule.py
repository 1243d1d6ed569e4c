"""The learning rate of a run: its form, and whether it was zero or too high."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from yunque.reports.curve import Curve, curve, fell
from yunque.reports.findings import Finding, evidence, make
from yunque.reports.log import Log, Record

TOLERANCE = 0.01
"""A form is recognised where no row lies further from it than this part of the peak."""


@dataclass(frozen=True)
class Schedule:
    """A recognised schedule."""

    form: str
    """One of `yunque.words.report.FORMS`; "rising" where the log ends in the warm-up."""
    peak: float
    warmup_steps: int
    end: float
    """The last rate that was logged."""


def schedule_of(rates: Curve, total: int | None) -> Schedule | None:
    """The schedule that these rates follow; None below five rows."""
    steps, values = rates.steps, rates.values
    top = float(values.max()) if len(values) else 0.0
    if len(values) < 5 or top <= 0:
        return None
    first = int(np.flatnonzero(values >= 0.999 * top)[0])
    climbed = first >= len(values) - 2 and values[0] < 0.95 * top and values[-1] >= 0.999 * top
    if climbed and np.all(np.diff(values[: first + 1]) > 0):
        return Schedule("rising", top, 0, float(values[-1]))
    before = float(steps[first - 1]) if first else float(steps[0])
    form, peak = shape(steps[first:], values[first:], total, top, before)
    if form == "other" and first and len(values) - first > 5:
        # The highest row may still belong to the warm-up.
        form, peak = shape(steps[first + 1 :], values[first + 1 :], total, top, float(steps[first]))
    warmup = 0
    if first and values[0] < 0.95 * top:
        warmup = round(warmup_end(steps[: first + 1], values[: first + 1], peak))
    return Schedule(form, peak, warmup, float(values[-1]))


def warmup_end(steps: np.ndarray, values: np.ndarray, peak: float) -> float:
    """The step at which a rising rate reaches its peak; the last of these rows is there.

    Between two rows it is where the line of the warm-up meets the peak, or, for warm-ups that go
    with the logarithm of the step (DeepSpeed's), where that curve does.
    """
    rise, rates = steps[:-1], values[:-1]
    if len(rise) >= 2 and rates[-1] > rates[0]:
        (slope, base), error = fit(np.column_stack([rise, np.ones_like(rise)]), rates)
        if slope > 0 and error <= 0.005 * peak:
            zero = -base / slope
            meet = (peak - base) / slope - (zero if -1 <= zero <= 2 else 0)
            return float(min(max(meet, rise[-1]), steps[-1]))
        if np.all(rise > 1) and np.all(rates > 0):
            ends = np.log(rise) * peak / rates
            if np.ptp(ends) < 0.01 * ends.mean():
                return float(min(max(math.exp(ends.mean()), rise[-1]), steps[-1]))
    elif len(rise) == 1 and 0 < rates[0] < peak and rise[0] > 0:
        return float(min(max(rise[0] * peak / rates[0], rise[0]), steps[-1]))
    return float(steps[-1])


def shape(
    steps: np.ndarray, values: np.ndarray, total: int | None, top: float, before: float
) -> tuple[str, float]:
    """(form, peak) of the rates from their peak on."""
    if np.all(np.abs(values - top) <= 1e-3 * top):
        return "constant", top
    if len(values) < 4:
        return "other", top
    begin, end = float(steps[0]), float(max(total or 0, steps[-1]))
    tries: list[tuple[float, str, float]] = []
    line = fit(np.column_stack([steps, np.ones_like(steps)]), values)
    if line[0][0] < 0:
        tries.append((line[1], "linear", top))
    for finish in {end, float(steps[-1]), end + 1}:
        for start in (begin, begin - 1, before, (begin + before) / 2, 0.0):
            u = np.clip((steps - start) / max(finish - start, 1e-9), 0, 1)
            wave = (1 + np.cos(math.pi * u)) / 2
            (height, floor), error = fit(np.column_stack([wave, np.ones_like(wave)]), values)
            if height > 0 and floor > -0.02 * top:
                tries.append((error, "cosine", min(float(height + floor), 1.02 * top)))
            power, error = fit(((1 - u) ** 2)[:, None], values)
            tries.append((error, "polynomial", min(float(power[0]), 1.02 * top)))
    if np.all(values > 0) and np.all(steps > 0):
        # Rates are multiplied alike from step to step, or with the root of the step.
        for name, x in (("exponential", steps), ("inverse_sqrt", np.log(steps))):
            (grade, base), _ = fit(np.column_stack([x, np.ones_like(x)]), np.log(values))
            error = float(np.abs(np.exp(grade * x + base) - values).max())
            if grade < 0 and (name == "exponential" or abs(grade + 0.5) < 0.02):
                tries.append((error, name, top))
    best = min(tries, default=(math.inf, "other", top))
    # Forms with more to fit come second where a line says the same.
    if line[0][0] < 0 and line[1] <= TOLERANCE * top / 2:
        best = (line[1], "linear", top)
    if best[0] <= TOLERANCE * top:
        return best[1], best[2]
    flat = values >= 0.999 * top
    # A run stopped early may have no rate at the top that its first rows promised.
    last_flat = int(max(np.flatnonzero(flat), default=-1))
    held = last_flat >= len(values) // 10 and bool(np.all(flat[: last_flat + 1]))
    falls = len(values) - last_flat > 3 and bool(np.all(np.diff(values[last_flat:]) <= 0))
    if held and falls and len(np.unique(values)) > 8:
        return "decay_at_end", top
    if len(np.unique(values)) <= max(2, len(values) // 5) and np.all(np.diff(values) <= 0):
        return "steps", top
    return "other", top


def fit(columns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares: (coefficients, the largest error)."""
    found, *_ = np.linalg.lstsq(columns, values, rcond=None)
    return found, float(np.abs(columns @ found - values).max())


def schedule(log: Log, rates: Curve, norms: Curve) -> Finding | None:
    """The form of the learning rate, its warm-up and peak."""
    one = schedule_of(rates, log.asked_steps or log.total_steps)
    if one is None:
        return None
    top, last = rates.rows[int(np.argmax(rates.values))], rates.rows[-1]
    also, more, proof = "", {}, [(top, "learning_rate"), (last, "learning_rate")]
    if one.warmup_steps and len(norms.values) >= 8:
        peak = int(np.argmax(norms.values))
        row = norms.rows[peak]
        gap = float(np.median(np.diff(norms.steps)))
        # Twice the median: a peak that a reader sees without measuring.
        if abs(row.step - one.warmup_steps) <= gap and norms.values[peak] > 2 * float(
            np.median(norms.values)
        ):
            also = "report.gradient_peak"
            more = {"norm": float(norms.values[peak]), "norm_step": row.step}
            proof.append((row, "grad_norm"))
    return make(
        "schedule",
        "info",
        evidence(*proof),
        case=("warm_" if one.warmup_steps else "") + one.form,
        also=also,
        form=one.form,
        warmup_steps=one.warmup_steps,
        peak=one.peak,
        end=one.end,
        last_step=last.step,
        **more,
    )


FINISHED = 0.05
"""A rate at or below that part of its peak moves a model no more: the schedule is done."""


def finished(rates: Curve) -> bool:
    """Whether the learning rate had decayed to its end: what fell meanwhile fell by the decay."""
    return len(rates.values) >= 5 and 0 <= rates.values[-1] <= FINISHED * rates.values.max() > 0


def learning_rate_zero(rates: Curve, train: Curve) -> Finding | None:
    """The rate was 0 over the run, or over its end: these updates changed nothing.

    Unless the training loss fell meanwhile: then the log rounds small rates to 0.
    """
    if len(rates.values) < 3:
        return None
    zero = rates.values == 0
    if zero.all():
        rows = [(rates.rows[0], "learning_rate"), (rates.rows[-1], "learning_rate")]
        learned = fell(train)
        return make(
            "learning_rate_zero",
            "info" if learned else "problem",
            evidence(*rows),
            case="rounded" if learned else "all",
            rows=len(zero),
            step=rates.rows[0].step,
            last_step=rates.rows[-1].step,
        )
    begin = int(np.flatnonzero(~zero)[-1]) + 1
    span = float(rates.steps[-1] - rates.steps[0])
    part = float(rates.steps[-1] - rates.steps[begin]) / span if begin < len(zero) and span else 0.0
    if part < 0.1:
        return None
    row, last = rates.rows[begin], rates.rows[-1]
    if fell(curve(tuple(r for r in train.rows if r.step >= row.step), train.name)):
        return None
    return make(
        "learning_rate_zero",
        "warning",
        evidence((row, "learning_rate"), (last, "learning_rate")),
        case="tail",
        step=row.step,
        last_step=last.step,
        part=part,
    )


def learning_rate_too_high(rates: Curve, train: Curve, onset: int | None) -> Finding | None:
    """The loss broke away while the rate rose to its peak, or within a tenth of the run after."""
    if onset is None or not len(rates.values) or rates.values.max() <= 0:
        return None
    row = train.rows[onset]
    at = min(int(np.searchsorted(rates.steps, row.step, side="right")), len(rates.values) - 1)
    top = int(np.argmax(rates.values))
    rate, peak = float(rates.values[at]), float(rates.values[top])
    if row.step > rates.steps[top] + 0.1 * train.steps[-1] or rate <= 0:
        return None  # Later on, the data or the numbers may be to blame as well.
    here: Record = rates.rows[at]
    return make(
        "learning_rate_too_high",
        "problem",
        evidence((here, "learning_rate"), (rates.rows[top], "learning_rate"), (row, "train_loss")),
        step=row.step,
        rate=rate,
        rate_step=here.step,
        peak=peak,
        peak_step=rates.rows[top].step,
    )
