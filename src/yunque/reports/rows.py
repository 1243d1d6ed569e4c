"""Rows of named cells, from any tool → a Log. Every table-like format ends here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from yunque.errors import InputError
from yunque.reports.log import Log, Record, figure, record
from yunque.reports.names import (
    HELD_OUT,
    higher_is_better,
    is_perplexity,
    meanings,
    objective,
    words_of,
)

CLOCK = re.compile(r"(?:(\d+) days?, ?)?(\d+):(\d\d):(\d\d(?:\.\d+)?)")

Rows = list[tuple[int, Mapping[str, Any]]]


def seconds(value: object) -> object:
    """`1 day, 6:48:06` → seconds; anything else as it is."""
    match = CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return figure(value)
    days, h, m, s = match.groups()
    return int(days or 0) * 86400 + int(h) * 3600 + int(m) * 60 + float(s)


def moment(value: object) -> object:
    """`2025-01-01T00:00:10` → seconds since 1970; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return value


def whole_epochs(rows: Rows, named: Mapping[str, str]) -> bool:
    """Whether every epoch is a whole number, and no training loss shares it with the one before."""
    name, loss = named["epoch"], named.get("train_loss", "")
    marks = [figure(cells[name]) for _, cells in rows if cells.get(name) not in (None, "")]
    trained = [figure(cells.get(name)) for _, cells in rows if cells.get(loss) not in (None, "")]
    whole = all(isinstance(mark, int | float) and float(mark).is_integer() for mark in marks)
    return whole and all(a != b for a, b in pairwise(trained))


def loss_of(perplexity: object) -> object:
    """The loss whose e-th power a perplexity is; anything else as it is."""
    if not isinstance(perplexity, int | float) or isinstance(perplexity, bool):
        return perplexity
    return math.log(perplexity) if 0 < perplexity < math.inf else math.nan


def parted(rows: Rows) -> tuple[Rows, Rows]:
    """The rows of the curves, and those that sum a run up (Hugging Face's train_runtime).

    A summary's `train_loss` is the mean over the run: it is no row of the curve.
    """
    sums = [row for row in rows if row[1].get("train_runtime") not in (None, "")]
    return [row for row in rows if row not in sums] if sums else rows, sums


def half_digit(value: object) -> float:
    """Half a unit of the last place of a number as it was written."""
    mantissa, _, power = str(value).lower().partition("e")
    return 0.5 * 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))


def updates_an_epoch(rows: Rows, epoch: str, summary: Mapping[str, Any]) -> float | None:
    """Updates in an epoch, where the summary's pace and time pin their number.

    And only where every row then falls on a whole update, as exactly as its epoch is written.
    """
    names = ("train_steps_per_second", "train_runtime", "epoch")
    told = Record(0, 0, None, None, None, {name: figure(summary.get(name)) for name in names})
    pace, time, passes = (told.number(name) for name in names)
    if not pace or not time or not passes:
        return None
    off_pace, off_time = half_digit(summary[names[0]]), half_digit(summary[names[1]])
    error = off_pace * time + off_time * pace
    total = round(pace * time)
    if error >= 0.5 or abs(pace * time - total) > error:
        return None
    each = total / passes
    for _, cells in rows:
        mark = figure(cells.get(epoch))
        if not isinstance(mark, int | float):
            return None
        off = min(0.4, half_digit(cells[epoch]) * each + 1e-6)
        if abs(mark * each - round(mark * each)) > off:
            return None
    return each


def log_of(
    format: str,
    file: str,
    content_rows: int,
    sha256: str,
    rows: Rows,
    mapped: Mapping[str, str] | None = None,
    **more: Any,
) -> Log:
    """The rows as a log: a row may hold a training loss, validation losses, or both.

    A log without a step counts its epochs instead, and without whole ones its training losses.

    Raises:
        InputError: `mapped` names a column that is not there.
    """
    there = {str(key): None for _, cells in rows for key in cells}
    for ours, theirs in (mapped or {}).items():
        if theirs not in there:
            raise InputError(
                f"{file}: --columns {ours}={theirs}: no column {theirs!r}; it has the columns: "
                f"{', '.join(there)}."
            )
    rows, sums = parted(rows)
    told = {key: figure(value) for key, value in sums[-1][1].items()} if sums else {}
    summary = (
        record(sums[-1][0], {k: v for k, v in told.items() if v is not None}) if sums else None
    )
    columns = {str(key): None for _, cells in rows for key in cells}
    named, sets, runs = meanings(columns, mapped)
    perplexed = {k for k in ("train_loss", "val_loss") if k in named and is_perplexity(named[k])}
    counted = "" if "step" in named else "rows"
    if counted and "epoch" in named and whole_epochs(rows, named):
        named["step"], counted = named["epoch"], "epochs"
    reckoned = False
    if counted == "rows" and "epoch" in named and sums:
        each = updates_an_epoch(rows, named["epoch"], sums[-1][1])
        if each is not None:
            at = named["epoch"]
            rows = [(n, {**c, "step": round(float(str(figure(c[at]))) * each)}) for n, c in rows]
            named["step"], counted, reckoned = "step", "", True
    names = {ours: theirs for ours, theirs in named.items() if ours != theirs}
    names |= {ours: f"ln({named[ours]})" for ours in perplexed}
    steps: list[Record] = []
    evals: list[Record] = []
    others: dict[str, list[Record]] = {name: [] for name in sets}
    zero_time: Any = None
    place: Any = 0
    epoch: Any = 0.0
    count = 0
    trained = any(cells.get(named.get("train_loss", "")) not in (None, "") for _, cells in rows)
    for row, cells in rows:
        # An evaluation stands where the training row before it stands.
        count += not trained or cells.get(named["train_loss"]) not in (None, "")
        values = {
            ours: seconds(cells[theirs]) if ours == "seconds" else figure(cells[theirs])
            for ours, theirs in named.items()
            if cells.get(theirs) not in (None, "")
        }
        values |= {ours: loss_of(values[ours]) for ours in perplexed & set(values)}
        # Lightning leaves cells empty that did not change; a step that is missing is the last.
        step = values.get("step", count if "step" not in named else place)
        place = values["step"] = step if isinstance(step, int | float) else place
        if "epoch" in named and "epoch" in values:
            epoch = values["epoch"]
        elif "epoch" in named:
            values["epoch"] = epoch
        wall = moment(values.pop("wall_time", None))
        if isinstance(wall, int | float) and "seconds" not in values:
            zero_time = wall if zero_time is None else zero_time
            values["seconds"] = wall - zero_time
        rest = {
            str(k): figure(v)
            for k, v in cells.items()
            if k not in named.values() and v not in (None, "") and not str(k).startswith("__")
        }
        metrics = {k: v for k, v in rest.items() if set(HELD_OUT) & set(words_of(k))}
        held = {k: values.pop(k) for k in ("val_loss",) if k in values}
        # A row may hold a training loss and a measure of what was held out.
        measured = any(higher_is_better(k) is not None for k in metrics)
        if held or measured or (metrics and "train_loss" not in values):
            evals.append(record(row, {**values, **held, **metrics}, names))
        for name, theirs in sets.items():
            if cells.get(theirs) not in (None, ""):
                own = {**values, **metrics, "val_loss": figure(cells[theirs])}
                others[name].append(record(row, own, {**names, "val_loss": theirs}))
        if any(k in values for k in ("train_loss", "learning_rate", "grad_norm")):
            steps.append(
                record(row, {**values, **{k: rest[k] for k in rest if k not in metrics}}, names)
            )
    others = {name: found for name, found in others.items() if found}
    first = next(iter(others), "") if not any("val_loss" in r.values for r in evals) else ""
    if first:
        evals = others.pop(first)
    return Log(
        format,
        file,
        content_rows,
        sha256,
        steps=tuple(steps),
        evals=tuple(evals),
        eval_set=first,
        other_evals={k: tuple(v) for k, v in others.items()},
        other_runs=runs,
        counted=counted,
        reckoned=reckoned,
        perplexities=bool(perplexed),
        summary=summary,
        runtime_seconds=summary.number("train_runtime") if summary else None,
        mean_train_loss=summary.number("train_loss") if summary else None,
        objective=objective(columns),
        **more,
    )
