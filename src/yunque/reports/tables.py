"""Tables: CSV and TSV exports (W&B, trackio, Lightning, Keras), JSON lines, JSON lists."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from yunque.reports.log import Log
from yunque.reports.names import meanings
from yunque.reports.rows import Rows, log_of

csv.field_size_limit(10_000_000)


def text_of(content: bytes) -> str:
    """The text of a file, byte-order marks understood, what is no text marked."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "replace")


def csv_rows(content: bytes) -> tuple[list[str], Rows, int] | None:
    """(columns, rows, lines left out) of a table with a header line; None where it is none.

    Its cells are parted by commas, semicolons, tabs, or stand in line, parted by spaces (fastai).
    """
    if b"\0" in content[:1000] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return None
    text = text_of(content)
    head = text.lstrip().partition("\n")[0]
    if not head or head[0] in "{[":
        return None
    mark = max(",;\t", key=head.count)
    if not head.count(mark):
        return spaced_rows(text)
    lines = csv.reader(io.StringIO(text), delimiter=mark)
    rows: Rows = []
    names: list[str] = []
    unread = 0
    try:
        for cells in lines:
            if not any(cells):
                continue
            if not names:
                names = [cell.strip() for cell in cells]
            elif any(cells[len(names) :]):
                unread += 1
            else:
                if mark == ";":  # A decimal comma goes with it.
                    cells = [c.replace(",", ".") if c.count(",") == 1 else c for c in cells]
                rows.append((lines.line_num, dict(zip(names, cells, strict=False))))
    except csv.Error:
        return None
    return names, rows, unread


def spaced_rows(text: str) -> tuple[list[str], Rows, int] | None:
    """The same of columns parted by two spaces or more; each row has a cell for each of them."""
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    names = re.split(r"\s{2,}", lines[0][1]) if lines else []
    rows: Rows = []
    for number, line in lines[1:]:
        cells = re.split(r"\s+", line)
        if len(names) < 2 or len(cells) != len(names):
            return None
        rows.append((number, dict(zip(names, cells, strict=True))))
    return (names, rows, 0) if rows else None


def read_csv(
    file: Path, content: bytes, sha256: str, mapped: Mapping[str, str] | None = None
) -> Log | None:
    """A table with a header line, its cells parted by commas, semicolons, tabs or spaces."""
    table = csv_rows(content)
    if table is None:
        return None
    names, rows, unread = table
    lightning = {"epoch", "step"} <= set(names) and file.name == "metrics.csv"
    log = log_of(
        "lightning_csv" if lightning else "csv",
        str(file),
        len(rows),
        sha256,
        rows,
        mapped,
        unread=unread,
    )
    return counted_epochs(log) if held(log) and placed(names, mapped) else None


def placed(names: Iterable[str], mapped: Mapping[str, str] | None = None) -> bool:
    """Whether these columns say at which step or epoch a row stands, or are a run's beyond doubt.

    That are those with both losses, or with one that the user named: their rows stand in order.
    """
    found = set(meanings(names, mapped)[0])
    losses = {"train_loss", "val_loss"}
    return bool({"step", "epoch"} & found or losses <= found or losses & set(mapped or {}))


def held(log: Log) -> bool:
    """Whether the table has losses, and steps that go with them."""
    losses = [r for r in (*log.steps, *log.evals) if {"train_loss", "val_loss"} & set(r.values)]
    steps = {r.step for r in losses}
    numbers = [r.values.get(k) for r in losses for k in ("train_loss", "val_loss")]
    real = sum(isinstance(v, int | float) for v in numbers)
    return len(losses) > 0 and len(steps) > len(losses) // 3 and real >= len(losses)


def counted_epochs(log: Log) -> Log:
    """Epochs that are counted from 0 as whole numbers (Lightning, Keras): of each the number begun.

    Whole numbers that never change say nothing about passes over the data.
    """
    marks = [r.epoch for r in (*log.steps, *log.evals) if r.epoch is not None]
    if not marks or any(not e.is_integer() for e in marks) or min(marks) != 0 or log.asked_epochs:
        return log
    begin = min(r.step for r in (*log.steps, *log.evals))
    # A training loss of epoch 0 is that of the first pass, where the log counts nothing finer.
    trained = log.counted == "epochs" and any(r.step == 0 for r in log.steps)
    if log.format not in ("lightning_csv", "tensorboard") and begin == 0 and not trained:
        return log
    more = 1.0 if max(marks) > 0 else None

    def moved(row: Any) -> Any:
        return replace(row, epoch=None if more is None or row.epoch is None else row.epoch + more)

    return replace(
        log,
        steps=tuple(moved(r) for r in log.steps),
        evals=tuple(moved(r) for r in log.evals),
        other_evals={k: tuple(moved(r) for r in v) for k, v in log.other_evals.items()},
    )


def read_json_lines(
    file: Path, content: bytes, sha256: str, mapped: Mapping[str, str] | None = None
) -> Log | None:
    """One JSON object a line: LLaMA-Factory's trainer_log.jsonl and its kin."""
    table = json_line_rows(content)
    if table is None:
        return None
    rows, bad = table
    columns = {str(k) for _, cells in rows for k in cells}
    factory = {"current_steps", "total_steps", "percentage"} <= columns
    form = "llamafactory" if factory else "jsonl"
    log = log_of(form, str(file), len(rows), sha256, rows, mapped, unread=bad)
    if not held(log) or not placed(columns, mapped):
        return None
    log = counted_epochs(log) if log.counted else log
    if factory:
        last = rows[-1][1]
        total, done = last.get("total_steps"), last.get("current_steps")
        times = [r.seconds for r in (*log.steps, *log.evals) if r.seconds is not None]
        log = replace(
            log,
            asked_steps=total if isinstance(total, int) and total > 0 else None,
            total_steps=done if isinstance(done, int) else None,
            runtime_seconds=max(times, default=None),
        )
    return log


def json_line_rows(content: bytes) -> tuple[Rows, int] | None:
    """(rows, lines left out) of JSON objects, one a line; None where most lines are none."""
    rows: Rows = []
    bad = 0
    lines = text_of(content).split("\n")  # JSON may hold what splitlines() takes for an end
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError):
            cells = None
        if isinstance(cells, dict):
            rows.append((number, flat(cells)))
        else:
            bad += 1
            if bad > 20 + len(rows):  # No JSON lines: do not read on.
                return None
    if not rows or bad > len(rows) // 10 + 1:
        return None
    return rows, bad


def flat(cells: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested objects as `outer/inner`."""
    found: dict[str, Any] = {}
    for key, value in cells.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{before}{key}/"))
        else:
            found[f"{before}{key}"] = value
    return found


def json_rows(content: bytes) -> tuple[Rows, bool] | None:
    """(rows, whether they were columns) of a JSON list of rows or an object of columns."""
    if content.lstrip()[:1] not in (b"[", b"{"):
        return None
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None
    by_columns = isinstance(data, dict)
    if isinstance(data, dict):
        lists = [v for v in data.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        inner = data.get("history")
        columns = inner if isinstance(inner, dict) else data
        equal = {k: v for k, v in columns.items() if isinstance(v, list)}
        longest = max(map(len, equal.values()), default=0)
        same = {k: v for k, v in equal.items() if len(v) == longest}
        by_columns = not lists
        data = (
            max(lists, key=len)
            if lists
            else [dict(zip(same, row, strict=True)) for row in zip(*same.values(), strict=True)]
        )
    if not isinstance(data, list):
        return None
    rows: Rows = [(n, flat(cells)) for n, cells in enumerate(data, 1) if isinstance(cells, dict)]
    return (rows, by_columns) if rows else None


def read_json(
    file: Path, content: bytes, sha256: str, mapped: Mapping[str, str] | None = None
) -> Log | None:
    """A JSON list of rows, or an object of columns (Keras' history)."""
    table = json_rows(content)
    if table is None:
        return None
    rows, by_columns = table
    log = log_of("json", str(file), len(rows), sha256, rows, mapped)
    # A list in which the rows stand in order needs no step.
    if not held(log) or not (by_columns or placed(flat(rows[0][1]), mapped)):
        return None
    return counted_epochs(log) if log.counted else log


def columns_of(content: bytes) -> tuple[str, ...]:
    """The columns of a table of two rows or more, whatever they hold; empty for anything else."""
    if table := csv_rows(content):
        rows = table[1]
    elif by_line := json_line_rows(content):
        rows = by_line[0]
    else:
        by_list = json_rows(content)
        rows = by_list[0] if by_list else []
    if len(rows) < 2:
        return ()
    return tuple(dict.fromkeys(str(key) for _, cells in rows for key in cells))
