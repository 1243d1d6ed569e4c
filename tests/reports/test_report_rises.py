"""Ends that are worse than what was before: overfitting in few evaluations, slow divergence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_checker import check
from report_runs import write_run

from yunque.reports.report import Report, report


def log(file: Path, rows: list[dict[str, Any]]) -> Report:
    """A report on these rows as JSON lines, whose every number the checker finds again."""
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    made = report(file)
    assert check(file, json.loads(json.dumps(made.json)))[0] == []
    return made


def short(file: Path, train: list[float], val: list[float]) -> Report:
    """One row an epoch, with both losses."""
    pairs = zip(train, val, strict=True)
    return log(file, [{"step": i, "loss": t, "eval_loss": v} for i, (t, v) in enumerate(pairs, 1)])


def curve(
    steps: int, every: int, level: Any, seed: int = 0, noise: float = 0.02
) -> list[dict[str, Any]]:
    """Training losses at every tenth step about `level`, validation 0.1 above it every so often."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        rows.append({"step": step, "loss": level(step) + random.normal(0, noise)})
        if every and step % every == 0:
            rows.append({"step": step, "eval_loss": level(step) + 0.1})
    return rows


def verdict(made: Report) -> str:
    return str(made.json["verdict"]["id"])


TRAIN = [1.9, 1.2, 0.7, 0.35, 0.15, 0.1]


@pytest.mark.parametrize(
    "val",
    [[1.6, 1.3, 1.25, 1.5, 1.9], [1.6, 1.3, 1.25, 1.35, 1.5], [1.6, 1.3, 1.25, 1.5, 1.9, 2.2]],
)
def test_five_evaluations_show_overfitting(tmp_path: Path, val: list[float]) -> None:
    made = short(tmp_path / "l.jsonl", TRAIN[: len(val)], val)
    assert verdict(made) == "overfitted"
    over = made.analysis.finding("overfitting")
    assert over is not None
    assert over.numbers["rise"] == pytest.approx(val[-1] - 1.25)


@pytest.mark.parametrize(
    "val",
    [[1.6, 1.3, 1.25, 1.26, 1.27], [1.6, 1.3, 1.25, 1.27, 1.26], [1.3, 1.25, 1.28, 1.24, 1.2]],
)
def test_a_small_rise_in_five_evaluations_shows_none(tmp_path: Path, val: list[float]) -> None:
    made = short(tmp_path / "l.jsonl", TRAIN[: len(val)], val)
    assert verdict(made) != "overfitted"
    assert made.analysis.finding("overfitting") is None


def test_without_a_training_loss_the_rise_is_told(tmp_path: Path) -> None:
    rows = [
        {"step": s, "eval_loss": 1 + abs(s - 900) / (900 if s < 900 else 1500)}
        for s in range(100, 3001, 100)
    ]
    made = log(tmp_path / "l.jsonl", rows)
    assert verdict(made) == "overfitted"
    assert "no training loss" in made.json["verdict"]["text"]["en"]
    assert "2.400 (step 3,000)" in made.json["verdict"]["text"]["en"]


@pytest.mark.parametrize("every", [0, 100])
def test_a_slow_rise_of_both_losses_is_divergence(tmp_path: Path, every: int) -> None:
    def level(step: int) -> float:
        return 3 + 3 * math.exp(-step / 250) + max(0, step - 1000) / 1500

    made = log(tmp_path / "l.jsonl", curve(3000, every, level))
    assert verdict(made) == "diverged"
    found = made.analysis.finding("diverged")
    assert found is not None
    assert 950 <= found.numbers["onset_step"] <= 1400


def test_a_jump_in_the_last_rows_is_divergence(tmp_path: Path) -> None:
    def level(step: int) -> float:
        return 7.5 if step > 1940 else 2 + 2 * math.exp(-step / 300)

    rows = [r for r in curve(2000, 100, level) if r["step"] <= 1940 or "loss" in r]
    made = log(tmp_path / "l.jsonl", rows)
    assert verdict(made) == "diverged"
    found = made.analysis.finding("diverged")
    assert found is not None
    assert found.numbers["onset_step"] == 1940
    assert found.numbers["end"] == pytest.approx(7.5, abs=0.1)
    # Two rows may be a spike that the log ends in.
    assert verdict(log(tmp_path / "l.jsonl", [r for r in rows if r["step"] <= 1960])) == "worked"


def test_a_last_evaluation_far_above_the_others(tmp_path: Path) -> None:
    rows = curve(2000, 100, lambda step: 2 + 2 * math.exp(-step / 300))
    rows[-1]["eval_loss"] = 3.6
    made = log(tmp_path / "l.jsonl", rows)
    assert verdict(made) == "cannot_tell"
    assert "ended at 3.600 (step 2,000)" in made.json["verdict"]["text"]["en"]
    found = made.analysis.finding("ended_worse")
    assert found is not None
    assert found.numbers["step"] == 1900


def test_a_training_loss_that_gave_back_a_part(tmp_path: Path) -> None:
    def level(step: int) -> float:
        return 3 + 3 * math.exp(-step / 250) + max(0, step - 1500) / 2500

    made = log(tmp_path / "l.jsonl", curve(3000, 0, level))
    found = made.analysis.finding("ended_worse")
    assert found is not None
    assert 0.15 < found.numbers["part"] < 0.25
    assert "ended above where it had been" in made.json["verdict"]["text"]["en"]


def test_a_kept_model_may_have_worked_but_the_rise_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", best=360, every=40)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["event"] == "eval"][-1]
    last["val_loss"] += 1.5
    (run / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    made = report(run)
    assert verdict(made) in ("worked", "undertrained")
    assert "so use the model of step 360, kept in best/" in made.json["verdict"]["text"]["en"]
    found = made.analysis.finding("ended_worse")
    assert found is not None
    assert found.severity == "warning"
    assert check(run / "log.jsonl", json.loads(json.dumps(made.json)))[0] == []
