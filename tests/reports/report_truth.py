"""Runs whose truth is known, because they are made of it: a curve without noise, then noise.

Everything random comes from one generator; a seed makes a run. Losses fall as exponentials, as
powers of the step, or as sums of two exponentials; noise is Gaussian or skewed, a part of the
level or constant; rows come at every 1st to 50th step.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "healthy": 30,
    "healthy_no_val": 8,
    "overfit": 22,
    "diverged": 8,
    "nan_end": 5,
    "nan_once": 5,
    "spiked": 8,
    "rate_zero": 4,
    "flat": 4,
    "repeated": 6,
}
"""Kind → how many of a hundred runs."""


@dataclass
class Run:
    """A run and what is true of it."""

    kind: str
    steps: np.ndarray
    train: np.ndarray
    rates: np.ndarray
    norms: np.ndarray
    eval_steps: np.ndarray
    val: np.ndarray
    epochs: float
    form: str
    warmup: int
    findings: set[str] = field(default_factory=set)
    onset: int | None = None
    """The evaluation at which the noiseless validation loss is lowest."""
    stop: int | None = None
    """The first evaluation whose noiseless loss is as good as that, but for two deviations."""
    spikes: list[int] = field(default_factory=list)


def kind_of(seed: int) -> str:
    """The kind of the run of this seed: the same mixture in any hundred."""
    place = seed * 37 % 100
    for kind, share in KINDS.items():
        place -= share
        if place < 0:
            return kind
    raise AssertionError


def fall(random: np.random.Generator) -> Any:
    """A loss without noise as a function of the part of the run that is done, 1 → towards 0."""
    form = random.choice(["exponential", "two", "power"])
    a, b = random.uniform(4, 12), random.uniform(2, 4)
    if form == "exponential":
        return lambda u: np.exp(-a * u)
    if form == "two":
        return lambda u: 0.7 * np.exp(-3 * a * u) + 0.3 * np.exp(-b * u)
    return lambda u: (1 + 40 * u) ** -random_power(a)


def random_power(a: float) -> float:
    """A decay exponent between 0.4 and 0.9."""
    return 0.4 + 0.5 * (a - 4) / 8


def rates_of(form: str, steps: np.ndarray, total: int, warmup: int, peak: float) -> np.ndarray:
    """The learning rate at these steps, written from its definition."""
    u = np.clip((steps - warmup) / max(1, total - warmup), 0, 1)
    after = {
        "constant": np.ones_like(u),
        "linear": 1 - u,
        "cosine": (1 + np.cos(np.pi * u)) / 2,
        "inverse_sqrt": np.sqrt(max(warmup, 1) / np.maximum(steps, 1)),
        "decay_at_end": np.where(u < 0.8, 1.0, (1 - u) / 0.2),
    }[form]
    return peak * np.where(steps < warmup, steps / max(warmup, 1), after)


def make(seed: int) -> Run:
    """The run of this seed."""
    random = np.random.default_rng(seed)
    kind = kind_of(seed)
    total = int(10 ** random.uniform(2.5, 4.2))
    every = int(max(1, random.choice([1, 5, 10, 25, 50])))
    every = max(1, min(every, total // 60))
    steps = np.arange(every, total + 1, every)
    total = int(steps[-1])
    evals = int(random.integers(10, 41))
    # An evaluation comes with a row, as trainers write it.
    each = max(every, total // evals // every * every)
    eval_steps = np.arange(each, total + 1, each)
    floor, height = random.uniform(0.5, 2.5), random.uniform(1.0, 6.0)
    shape = fall(random)
    clean = floor + height * shape(steps / total)
    relative = 10 ** random.uniform(-2.3, -1.1)
    noise = random.normal(0, 1, len(steps))
    if random.random() < 0.3:
        noise = (np.exp(0.5 * noise) - math.exp(0.125)) / 0.604  # skewed, deviation 1
    train = clean * (1 + relative * noise)
    gap = random.uniform(0, 0.3)
    sigma = (floor + gap) * 10 ** random.uniform(-3.3, -2.2)
    val_clean = floor + gap + height * shape(eval_steps / total)
    form = str(random.choice(["constant", "linear", "cosine", "inverse_sqrt", "decay_at_end"]))
    warmup = int(total * random.choice([0.0, 0.03, 0.1]))
    if form == "inverse_sqrt":
        warmup = max(warmup, total // 30)
    warmup = 0 if warmup < 2 * every else warmup
    if form == "inverse_sqrt" and not warmup:
        form = "cosine"
    rates = rates_of(form, steps, total, warmup, 10 ** random.uniform(-5, -3))
    norms = np.exp(random.normal(0, 0.25, len(steps)))
    run = Run(
        kind,
        steps,
        train,
        rates,
        norms,
        eval_steps,
        val_clean,
        float(random.uniform(0.3, 3.0)),
        form,
        warmup,
    )
    run.findings.add("schedule")
    if kind in ("overfit",):
        begin = random.uniform(0.15, 0.6) * total
        after = np.maximum(0, eval_steps - begin) / (total - begin)
        after = after ** random.choice([1.0, 1.5])
        # At the end the loss stands above its lowest by a part of what was won, and by 12
        # deviations or more: the fall that still goes on under the rise is made good first.
        rise = max(random.uniform(0.05, 0.6) * height, 12 * sigma)
        run.val = val_clean + rise * after
        run.val = run.val + after * max(0.0, run.val.min() + rise - run.val[-1])
        run.findings.add("overfitting")
    elif kind == "diverged":
        at = int(random.uniform(0.1, 0.85) * len(steps))
        run.train[at:] = (
            clean[at]
            + (height + 1)
            * random.uniform(0.8, 2)
            * (1 - np.exp(-np.arange(len(steps) - at) / max(1, len(steps) / 50)))
            + random.normal(0, 0.05, len(steps) - at)
        )
        run.findings.add("diverged")
        run.onset = int(steps[at - 1])
    elif kind == "nan_end":
        at = int(random.uniform(0.3, 0.9) * len(steps))
        run.train[at:] = math.nan
        run.findings.add("non_finite")
    elif kind == "nan_once":
        run.train[int(random.uniform(0.1, 0.9) * len(steps))] = math.nan
        run.findings.add("non_finite")
    elif kind == "spiked":
        places = random.choice(
            np.arange(40, len(steps) - 40) if len(steps) > 120 else np.arange(12, len(steps) - 12),
            size=2,
            replace=False,
        )
        for place in places:
            run.train[place] = clean[place] * (1 + max(30 * relative, 0.4))
            run.spikes.append(int(steps[place]))
        run.findings.add("loss_spike")
    elif kind == "rate_zero":
        run.rates = np.zeros_like(rates)
        run.train = (floor + height) * (1 + relative * noise)
        run.val = np.full(len(eval_steps), floor + height)
        run.findings = {"learning_rate_zero"}
    elif kind == "flat":
        run.train = (floor + height) * (1 + relative * noise)
        run.val = np.full(len(eval_steps), floor + height)
    elif kind == "repeated":
        run.epochs = float(random.uniform(12, 60))
        run.train = 0.02 + (floor + height) * np.exp(-9 * steps / total) * (1 + relative * noise)
        run.val = np.empty(0)
        run.eval_steps = np.empty(0)
        run.findings.add("memorisation_risk")
    if kind in ("healthy_no_val", "repeated"):
        run.val, run.eval_steps = np.empty(0), np.empty(0)
        run.findings.add("no_validation")
    else:
        truth = run.val
        low = int(np.argmin(truth))
        if kind in ("healthy", "overfit", "spiked", "nan_once"):
            run.onset = int(run.eval_steps[low]) if kind == "overfit" else None
            slack = max(2 * sigma, 0.002 * truth[low])
            run.stop = int(run.eval_steps[np.flatnonzero(truth <= truth[low] + slack)[0]])
        run.val = truth + random.normal(0, sigma, len(truth))
    return run


def write(run: Run, file: Path, seed: int) -> Path:
    """The run as a Hugging Face log, a table or JSON lines, by its seed."""
    total = int(run.steps[-1])
    rows: list[dict[str, Any]] = []
    for i, step in enumerate(run.steps):
        row = {
            "step": int(step),
            "epoch": run.epochs * int(step) / total,
            "loss": float(run.train[i]),
            "learning_rate": float(run.rates[i]),
            "grad_norm": float(run.norms[i]),
        }
        rows.append(row)
    for step, value in zip(run.eval_steps, run.val, strict=True):
        epoch = run.epochs * int(step) / total
        rows.append({"step": int(step), "epoch": epoch, "eval_loss": float(value)})
    rows.sort(key=lambda row: row["step"])
    if seed % 3 == 0:
        file.write_text(json.dumps({"global_step": total, "log_history": rows}))
    elif seed % 3 == 1:
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    else:
        names = ["step", "epoch", "loss", "learning_rate", "grad_norm", "eval_loss"]
        lines = [",".join(str(row.get(n, "")) for n in names) for row in rows]
        file.write_text("\n".join([",".join(names), *lines]) + "\n")
    return file
