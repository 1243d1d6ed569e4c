"""Hugging Face's Trainer: `trainer_state.json`, and the summary `all_results.json`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from yunque.reports.log import Log, Record, record, whole
from yunque.reports.rows import Rows, log_of

ASKED = ("max_steps", "num_train_epochs", "logging_steps", "eval_steps", "train_batch_size")


def read_trainer_state(file: Path, content: bytes, sha256: str) -> Log | None:
    """`trainer_state.json` of Hugging Face's Trainer (its JSON may hold NaN and Infinity)."""
    if b'"log_history"' not in content:
        return None
    try:
        state = json.loads(content)
        history = state["log_history"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(history, list):
        return None
    rows: Rows = [(n, e) for n, e in enumerate(history, 1) if isinstance(e, dict)]
    log = log_of("trainer_state", str(file), len(history), sha256, rows)
    summary = log.summary
    updates = whole(state.get("global_step"))
    asked = whole(state.get("max_steps"))
    epochs = state.get("num_train_epochs")
    one = state.get("train_batch_size") == 1
    return replace(
        log,
        total_steps=updates,
        asked_steps=asked or None,
        asked_epochs=float(epochs) if type(epochs) in (int, float) and epochs > 0 else None,
        epochs=record(0, state).epoch,
        examples=examples_of(log.steps, summary, updates) if one else None,
        kept=kept(state, log),
        settings={k: state[k] for k in ASKED if k in state},
    )


def kept(state: dict[str, Any], log: Log) -> str:
    """Where the model with the lowest validation loss was kept, if the log shows it."""
    best = state.get("best_model_checkpoint")
    name = re.split(r"[/\\]", best)[-1] if isinstance(best, str) else ""
    losses = [(v, r.step) for r in log.evals if (v := r.number("val_loss")) is not None]
    # The best model is the best by the metric that the user chose, which may be another.
    right = losses and name.removeprefix("checkpoint-") == str(min(losses)[1])
    return name + "/" if right else ""


def examples_of(
    steps: tuple[Record, ...], summary: Record | None, updates: int | None
) -> int | None:
    """Training examples, where the log proves them.

    The epoch of a row is (examples shown) / examples, so that with one example a micro-batch its
    reduced denominator divides their number. The rate of the summary pins the multiple: it counts
    either the examples of all epochs, or a full batch for every update.
    """
    denominators = []
    for row in steps[:100]:
        if row.epoch is None:
            return None
        share = Fraction(row.epoch).limit_denominator(1_000_000)
        if abs(float(share) - row.epoch) > 1e-12 * max(1.0, row.epoch):
            return None
        denominators.append(share.denominator)
    if not denominators or summary is None or not updates:
        return None
    rate = summary.number("train_samples_per_second")
    seconds, epochs = summary.number("train_runtime"), summary.epoch
    if not rate or not seconds or not epochs:
        return None
    unit = math.lcm(*denominators)
    slack = 0.0006 * seconds  # The rate is rounded to three places.
    batch_share = (steps[0].epoch or 0.0) / max(1, steps[0].step)
    fits = set()
    for shown in (epochs, batch_share * updates):
        times = round(rate * seconds / shown / unit) if shown else 0
        if times and abs(times * unit * shown - rate * seconds) <= slack:
            fits.add(times * unit)
    return fits.pop() if len(fits) == 1 else None


def read_results(file: Path, content: bytes, sha256: str) -> Log | None:
    """`all_results.json` or `train_results.json`: the figures of a whole run, and no curve."""
    if b'"train_runtime"' not in content:
        return None
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or "log_history" in values:
        return None
    summary = record(1, values)
    held = {"val_loss": values["eval_loss"]} if "eval_loss" in values else {}
    names = {"val_loss": "eval_loss"}
    step = whole(values.get("step")) or 0
    one = [record(1, {**held, "step": step, "epoch": values.get("epoch")}, names)] if held else []
    return Log(
        "trainer_results",
        str(file),
        1,
        sha256,
        evals=tuple(one),
        summary=summary,
        epochs=summary.epoch,
        runtime_seconds=summary.number("train_runtime"),
        mean_train_loss=summary.number("train_loss"),
        settings=values,
    )
