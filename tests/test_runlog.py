"""The run log: one row a line, torn ends dropped, cut back on resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yunque.errors import InputError
from yunque.runlog import RunLog, read


def test_rows_come_back_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        log.write("start", step=0, run="ñandú")
        size = log.size
        log.write("step", step=1, train_loss=2.5)
    rows = list(read(path))
    assert [(row.line, row.event) for row in rows] == [(1, "start"), (2, "step")]
    assert rows[0].values == {"step": 0, "run": "ñandú"}
    with RunLog(path, size) as log:
        log.write("step", step=1, train_loss=2.25)
    assert [row.values.get("train_loss") for row in read(path)] == [None, 2.25]


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        log.write("step", step=1, train_loss=float("nan"), grad_norm=float("inf"))
    row = json.loads(path.read_text())
    assert row["train_loss"] is None
    assert row["non_finite"] == {"train_loss": "nan", "grad_norm": "inf"}


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": "st')
    assert len(list(read(path))) == 1
    path.write_text('{"event": "step", "step": 1}\nnonsense\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: not a row"):
        list(read(path))
    with pytest.raises(InputError, match="no run log there"):
        list(read(tmp_path / "none"))


def test_unknown_events_are_refused(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.jsonl") as log, pytest.raises(ValueError, match="unknown event"):
        log.write("stepp", step=1)
