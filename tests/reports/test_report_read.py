"""Reading: our run folders, Hugging Face's trainer_state.json, and files that are neither."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_run
from shared_data import shared

from yunque.errors import InputError
from yunque.reports.read import read


def trainer_state(file: Path, history: list[dict[str, Any]], **more: Any) -> Path:
    """Write a trainer_state.json as Hugging Face does, NaN tokens included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"global_step": 3, "log_history": history, **more}))
    return file


def test_run_folder_rows_stand_with_their_lines(tmp_path: Path) -> None:
    log = read(write_run(tmp_path / "run", steps=40, every=20, exam=True, samples=("a",)))
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert (log.format, log.rows, log.kept) == ("yunque", len(lines), "best/")
    assert [len(g) for g in (log.steps, log.evals, log.samples, log.exams)] == [40, 3, 3, 3]
    for row in (*log.steps, *log.evals, *log.exams):
        assert lines[row.row - 1]["step"] == row.step
        assert {k: lines[row.row - 1][k] for k in row.values} == row.values
    assert log.stop is not None
    assert log.stop.values == {"reason": "steps"}


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=40)
    whole = read(run)
    with (run / "log.jsonl").open("ab") as handle:
        handle.write(b'{"event": "step", "ste')
    assert read(run).steps == whole.steps
    assert read(run).rows == whole.rows


def test_non_finite_values_come_back_as_what_they_were(tmp_path: Path) -> None:
    log = read(write_run(tmp_path / "run", steps=40, nan=7))
    (row,) = [row for row in log.steps if row.non_finite]
    assert row.step == 7
    assert row.non_finite == ("train_loss",)
    assert math.isnan(row.values["train_loss"])
    assert row.number("train_loss") is None


def test_trainer_state_with_nan_tokens(tmp_path: Path) -> None:
    history = [
        {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-4},
        {"step": 2, "epoch": 1.0, "loss": math.nan, "grad_norm": math.inf},
        {"step": 2, "epoch": 1.0, "eval_loss": 1.5, "eval_runtime": 3.0},
        {"step": 3, "epoch": 1.5, "train_loss": 9.0, "train_runtime": 7200.0},
        "junk",
    ]
    best = {"best_model_checkpoint": "/x/checkpoint-2"}
    log = read(trainer_state(tmp_path / "trainer_state.json", history, **best))
    assert [row.number("train_loss") for row in log.steps] == [2.0, None]
    assert set(log.steps[1].non_finite) == {"train_loss", "grad_norm"}
    assert [(row.row, row.number("val_loss")) for row in log.evals] == [(3, 1.5)]
    assert (log.mean_train_loss, log.runtime_seconds, log.total_steps) == (9.0, 7200.0, 3)
    assert log.kept == "checkpoint-2/"


def test_a_folder_gives_the_latest_checkpoint(tmp_path: Path) -> None:
    for step in (9, 10):
        name = f"checkpoint-{step}/trainer_state.json"
        trainer_state(tmp_path / name, [{"step": step, "loss": 1.0}])
    assert read(tmp_path).steps[0].step == 10


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b"\xff\xfe\x00", b"[]\n", b'{"a": 1}\n', b'{"log_history": 3}', b"[" * 9999],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert read(file).format == "unknown"


def test_nothing_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no log.jsonl and no trainer_state.json"):
        read(tmp_path)


def test_the_seed_log_proves_its_53_examples() -> None:
    log = read(shared("logs/seed_phi2_250ep.trainer_state.json"))
    assert (log.examples, log.total_steps, len(log.steps)) == (53, 1000, 41)


def test_examples_are_not_claimed_against_the_rate() -> None:
    """Two micro-batch sizes or unknown devices: the number of examples does not follow."""
    assert read(shared("logs/gallery_overfit_s42.trainer_state.json")).examples is None
