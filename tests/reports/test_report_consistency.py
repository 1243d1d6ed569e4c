"""Figures that contradict each other: packed parameter counts, FLOPs, rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from yunque.reports.report import report

# What PEFT prints of LoRA of rank 8 on a 4-bit Llama 2 7B (6.74 billion parameters).
PACKED = "trainable params: 4,194,304 || all params: 3,504,607,232 || trainable%: 0.1196797"
WHOLE = "trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622060"
WRONG = "trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.6220600"


def text_log(folder: Path, line: str) -> Path:
    lines = ["loading meta-llama/Llama-2-7b-hf in 4 bits", line]
    lines += [f"step {step} | loss {3 - step / 50:.4f}" for step in range(1, 61)]
    (folder / "train.log").write_text("\n".join(lines) + "\n")
    return folder / "train.log"


def inconsistent(path: Path) -> dict[str, Any]:
    found = report(path).analysis.finding("log_inconsistent")
    return {} if found is None else found.numbers


def test_a_packed_parameter_count_is_told(tmp_path: Path) -> None:
    found = report(text_log(tmp_path, PACKED)).analysis.finding("log_inconsistent")
    assert found is not None
    assert found.numbers["all_params"] == 3_504_607_232
    assert found.numbers["packed"] == pytest.approx(0.500658, abs=1e-6)
    assert "3,504,607,232" in found.text["en"]
    assert "Llama-2-7b" in found.text["es"]
    assert found.evidence == [{"row": 2, "field": "all_params", "value": 3_504_607_232}]
    assert inconsistent(text_log(tmp_path, WHOLE)) == {}
    share = inconsistent(text_log(tmp_path, WRONG))
    assert share["percent"] == 0.62206
    assert share["share_percent"] == pytest.approx(0.0622060, rel=1e-5)


def trainer(folder: Path, **summary: Any) -> Path:
    """100 updates of 4 rows in 50 s, a row of the log each; `summary` over what they give."""
    rows: list[dict[str, Any]] = [
        {"step": step, "epoch": step / 50, "loss": 3 - step / 50} for step in range(1, 101)
    ]
    whole = {"step": 100, "epoch": 2.0, "train_runtime": 50.0, "train_samples_per_second": 8.0}
    whole |= {"train_steps_per_second": 2.0, "total_flos": 4e14, "train_loss": 1.99}
    state = {"global_step": 100, "max_steps": 100, "log_history": [*rows, {**whole, **summary}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder / "trainer_state.json"


def test_figures_that_agree_are_passed_over(tmp_path: Path) -> None:
    assert inconsistent(trainer(tmp_path)) == {}


def test_flops_in_another_unit_are_told(tmp_path: Path) -> None:
    """4e14 FLOPs written as 400 (teraFLOPs): 1 an example."""
    found = inconsistent(trainer(tmp_path, total_flos=400.0))
    assert found == {"flops": 400.0, "shown": 400, "flops_each": 1.0}


def test_steps_a_second_against_the_steps(tmp_path: Path) -> None:
    found = inconsistent(trainer(tmp_path, train_steps_per_second=1.0))
    assert found == {"pace": 1.0, "paced": 50, "steps": 100}


def test_examples_a_second_against_the_steps_a_second(tmp_path: Path) -> None:
    found = inconsistent(trainer(tmp_path, train_samples_per_second=1.5))
    assert found == {"rate": 1.5, "pace": 2.0}
