"""Logs of kinds that the other tests do not have: what the report says of them must be true."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from yunque.reports.report import Report, report


def falling(step: float, steps: float, first: float, last: float) -> float:
    """A loss on its way from `first` towards `last`."""
    return last + (first - last) * math.exp(-5 * step / steps)


def said(made: Report) -> dict[str, str]:
    """Finding id → its English sentence."""
    return {f.id: f.text["en"] for f in made.analysis.findings}


def lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def csv_file(file: Path, names: str, rows: list[list[Any]]) -> Path:
    """A table; None is an empty cell."""
    text = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    file.write_text("\n".join([names, *text]) + "\n")
    return file


def two_runs(folder: Path, rows: int, evals_at_0: bool) -> Path:
    """Two runs in one file; their losses fall to 3 and to 2, validation 0.1 above."""
    found: list[dict[str, Any]] = []
    for last in (3.0, 2.0):
        if evals_at_0:
            found.append({"step": 0, "eval_loss": 6.1})
        for step in range(10, 10 * rows + 1, 10):
            loss = falling(step, 10 * rows, 6, last)
            found.append({"step": step, "loss": loss})
            if step % 100 == 0:
                found.append({"step": step, "eval_loss": loss + 0.1})
    return lines(folder / f"{rows}-{evals_at_0}.jsonl", found)


def test_training_and_validation_loss_are_read_from_the_same_of_two_runs(tmp_path: Path) -> None:
    for evals_at_0 in (False, True):
        made = report(two_runs(tmp_path, 50, evals_at_0))
        facts = made.analysis.facts
        assert "resumed_run" in said(made)
        assert facts["loss_rows"] == 50
        assert facts["eval_rows"] == 5 + evals_at_0
        assert facts["last_val_loss"] == facts["last_train_loss"] + 0.1
        assert facts["best_val_loss"] == falling(500, 500, 6, 2.0) + 0.1
