"""Rows of named cells, from any tool → a Log. Every table-like format ends here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from yunque.reports.log import Log, Record, figure, record
from yunque.reports.names import HELD_OUT, PARTS, bare, meanings, objective

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


def whole_epochs(rows: Rows, name: str) -> bool:
    """Whether every epoch is a whole number; rows within an epoch have no such step."""
    marks = [figure(cells[name]) for _, cells in rows if cells.get(name) not in (None, "")]
    return all(isinstance(mark, int | float) and float(mark).is_integer() for mark in marks)


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

    A log without a step counts its epochs instead, and without whole ones its rows.
    """
    columns = {str(key): None for _, cells in rows for key in cells}
    named, sets, runs = meanings(columns, mapped)
    counted = "" if "step" in named else "rows"
    if counted and "epoch" in named and whole_epochs(rows, named["epoch"]):
        named["step"], counted = named["epoch"], "epochs"
    names = {ours: theirs for ours, theirs in named.items() if ours != theirs}
    steps: list[Record] = []
    evals: list[Record] = []
    others: dict[str, list[Record]] = {name: [] for name in sets}
    zero_time: Any = None
    place: Any = 0
    epoch: Any = 0.0
    for count, (row, cells) in enumerate(rows, 1):
        values = {
            ours: seconds(cells[theirs]) if ours == "seconds" else figure(cells[theirs])
            for ours, theirs in named.items()
            if cells.get(theirs) not in (None, "")
        }
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
        metrics = {k: v for k, v in rest.items() if set(HELD_OUT) & set(PARTS.split(bare(k)))}
        held = {k: values.pop(k) for k in ("val_loss",) if k in values}
        if held or (metrics and "train_loss" not in values):
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
        objective=objective(columns),
        **more,
    )
