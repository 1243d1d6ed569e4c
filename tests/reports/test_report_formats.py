"""Other tools' logs: one small file each, its rows written down by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from shared_data import shared

from yunque.errors import InputError
from yunque.reports.read import read
from yunque.reports.report import report

NANOGPT = """step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2649, time 23.2ms, mfu -100.00%
iter 10: loss 3.2438, time 12ms, mfu 3.9%
step 250: train loss 1.96, val loss 2.06
iter 250: loss 2.05, time 5s
"""
TRAINED, HELD = [(2, 0, 4.2649), (3, 10, 3.2438), (5, 250, 2.05)], [(1, 0, 4.2823), (4, 250, 2.06)]
TWO = [(1, 1, 2.1), (2, 2, 1.9)]
LLMC = """step 1/19560 | loss 11.009811 (+nanz)| norm 15.3 (+nanz)| lr 8.57e-07 | 171000 tok/s
step    2/19560 | loss 10.96 (+nanz)| norm 15.2 (+nanz)| lr 1.71e-06 | 380 ms | 171,000 tok/s
val loss 10.9
"""
MEGATRON = """ [2024-01-01 10:00:00] iteration  100/  500000 | lm loss: 9.123E+00 | grad norm: 1.2 |
 iteration      200/  500000 | learning rate: 3.0E-06 | lm loss: 8.1E+00 | grad norm: 1.1 |
 validation loss at iteration 200 | lm loss value: 8.05E+00 | lm loss PPL: 3.1E+03 |
"""
PRINTED = """{'loss': 1.2, 'grad_norm': 0.5, 'learning_rate': 2e-05, 'epoch': 0.5}
{'loss': 1.1, 'grad_norm': nan, 'learning_rate': 1e-05, 'epoch': 1.0}
{'eval_loss': 1.0, 'eval_runtime': 3.2, 'epoch': 1.0}
"""
KERAS = """Epoch 1/3
100/100 - 3s - loss: 2.31 - val_loss: 2.2
Epoch 2/3
100/100 - 3s - loss: 2.0 - val_loss: 2.0
"""
FAIRSEQ = """2021-01-01 10:00:00 | {"epoch": 1, "update": 0.1, "loss": "12.3", "num_updates": "100"}
2021-01-01 10:00:00 | {"epoch": 1, "update": 0.2, "loss": "11.3", "num_updates": "200"}
"""
LIGHTNING = """epoch,lr-Adam,step,train_loss_epoch,train_loss_step,val_loss
,0.001,49,,,
0,,49,,2.3,
0,,99,,,2.1
1,,149,,1.9,
1,,199,,,1.8
"""
WANDB = """"Step","a - train/loss","a - train/loss__MIN","b - train/loss","a - eval/loss"
"1","2.0","2.0","3.0",""
"2","1.9","1.9","2.9","2.1"
"3","NaN","1.9","2.8","2.0"
"""
SEMICOLONS = "step;loss;lr\n1;2,5;0,001\n2;2,4;0,001\n"


@pytest.mark.parametrize(
    ("name", "text", "train", "val"),
    [
        ("a.log", NANOGPT, TRAINED, HELD),
        ("a.log", LLMC, [(1, 1, 11.009811), (2, 2, 10.96)], [(3, 2, 10.9)]),
        ("a.log", MEGATRON, [(1, 100, 9.123), (2, 200, 8.1)], [(3, 200, 8.05)]),
        ("a.log", PRINTED, [(1, 1, 1.2), (2, 2, 1.1)], [(3, 2, 1.0)]),
        ("a.log", KERAS, [(2, 100, 2.31), (4, 200, 2.0)], [(2, 100, 2.2), (4, 200, 2.0)]),
        ("a.log", FAIRSEQ, [(1, 100, 12.3), (2, 200, 11.3)], []),
        ("metrics.csv", LIGHTNING, [(3, 49, 2.3), (5, 149, 1.9)], [(4, 99, 2.1), (6, 199, 1.8)]),
        ("w.csv", WANDB, [(2, 1, 2.0), (3, 2, 1.9), (4, 3, None)], [(3, 2, 2.1), (4, 3, 2.0)]),
        ("s.csv", SEMICOLONS, [(2, 1, 2.5), (3, 2, 2.4)], []),
        ("h.json", '{"loss": [2.0, 1.5], "val_loss": [2.1, 1.9]}', [(1, 1, 2.0), (2, 2, 1.5)], TWO),
    ],
)  # fmt: skip
def test_rows(tmp_path: Path, name: str, text: str, train: list[Any], val: list[Any]) -> None:
    (tmp_path / name).write_text(text)
    log = read(tmp_path / name)
    rows = [(r.row, r.step, r.number("train_loss")) for r in log.steps if "train_loss" in r.values]
    assert rows == train
    held = [(r.row, r.step, r.number("val_loss")) for r in log.evals if "val_loss" in r.values]
    assert held == val


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "name,loss,year\nA,3,2000\nB,4,2001\n"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "hi"}]}\n'),
        ("a.md", "In step 1 we lose 2 euros: a loss.\nStep 5 has a loss.\n"),
        ("a.py", "for step in range(10):\n    loss = 0.5\n"),
    ],
)
def test_what_is_no_log_is_told_apart(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    made = report(tmp_path / name)
    assert [f["id"] for f in made.json["findings"]] == ["not_a_training_log"]


def test_columns_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("when,how_bad\n1,2.5\n2,2.4\n")
    assert read(tmp_path / "a.csv").format == "unknown"
    log = read(tmp_path / "a.csv", {"step": "when", "train_loss": "how_bad"})
    assert [(r.step, r.number("train_loss")) for r in log.steps] == [(1, 2.5), (2, 2.4)]
    with pytest.raises(InputError, match="'loss' is none of"):
        read(tmp_path / "a.csv", {"loss": "how_bad"})


def lines(file: Path, steps: list[int]) -> Path:
    """JSON lines with the place in the file as the loss's third decimal."""
    rows = [{"step": s, "loss": round(3 - s / 100 + i / 1000, 6)} for i, s in enumerate(steps)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


def test_a_resume_replaces_what_it_repeats(tmp_path: Path) -> None:
    made = report(lines(tmp_path / "a.jsonl", [*range(1, 31), *range(21, 41)]))
    assert [r.step for r in made.log.steps] == list(range(1, 41))
    assert made.log.steps[20].row == 31
    found = made.analysis.finding("resumed_run")
    assert found is not None
    assert (found.numbers["before"], found.numbers["after"]) == (30, 21)
    assert found.numbers["repeated"] == 10


def test_a_new_beginning_is_a_run_of_its_own(tmp_path: Path) -> None:
    made = report(lines(tmp_path / "a.jsonl", [*range(1, 31), *range(1, 21)]))
    assert [r.row for r in made.log.steps] == list(range(31, 51))
    found = made.analysis.finding("resumed_run")
    assert found is not None
    assert "more than one run" in found.text["en"]


def test_rows_out_of_order_are_sorted_and_said(tmp_path: Path) -> None:
    made = report(lines(tmp_path / "a.jsonl", [s for k in range(1, 41, 2) for s in (k + 1, k)]))
    assert [r.step for r in made.log.steps] == list(range(1, 41))
    found = made.analysis.finding("log_inconsistent")
    assert found is not None
    assert found.numbers == {"unsorted": 20}


def test_reinforcement_and_preference_runs(tmp_path: Path) -> None:
    for key, word in (("reward", "reinforcement"), ("rewards/margins", "preference")):
        rows = [{"step": s, "loss": 0.01 * s, key: s / 10} for s in range(1, 60)]
        (tmp_path / "a.json").write_text(json.dumps({"log_history": rows}))
        made = report(tmp_path / "a.json")
        found = made.analysis.finding("not_a_loss_objective")
        assert found is not None
        assert word in found.text["en"]
        assert (found.numbers["first_reward"], found.numbers["last_reward"]) == (0.1, 5.9)
    (tmp_path / "a.json").write_text(json.dumps({"log_history": []}))
    assert report(tmp_path / "a.json").json["verdict"]["id"] == "cannot_tell"


def test_tensorboard_events() -> None:
    pytest.importorskip("tensorboard")
    name = "logs/tensorboard/events.out.tfevents.1772206357.InfinityGear.2772.0"
    log = read(shared(name))
    held = [(r.step, r.number("val_loss")) for r in log.evals if "val_loss" in r.values]
    assert (len(held), held[0]) == (82, (24, 10.412500381469727))
    assert held[-1] == (2049, 16.193750381469727)
    train = [r.number("train_loss") for r in log.steps if "train_loss" in r.values]
    assert (len(train), train[0], train[-1]) == (41, 7.90625, 2.84375)


def test_the_seed_log_of_the_story_is_told_in_full() -> None:
    made = report(shared("logs/seed_phi2_250ep.trainer_state.json"))
    numbers = {f.id: f.numbers for f in made.analysis.findings}
    assert numbers["schedule"]["warmup_steps"] == 100
    assert math.isclose(numbers["schedule"]["peak"], 1e-4, rel_tol=0.002)
    assert numbers["schedule"]["form"] == "cosine"
    assert (round(numbers["schedule"]["norm"], 3), numbers["schedule"]["norm_step"]) == (2.988, 100)
    assert (numbers["log_inconsistent"]["asked_epochs"], numbers["log_inconsistent"]["epochs"]) == (
        334.0,
        250.0,
    )
    assert round(numbers["mean_is_not_last_loss"]["mean"], 4) == 0.2402


def test_times_that_are_written_as_dates(tmp_path: Path) -> None:
    """trackio writes the moment of a row, not the seconds since the start."""
    path = tmp_path / "trackio.csv"
    lines = [f"{i},{4 - i / 30},2025-01-01T{i // 60:02d}:{i % 60:02d}:30" for i in range(91)]
    path.write_text("\n".join(["step,train/loss,timestamp", *lines]) + "\n")
    made = report(path)
    assert made.json["facts"]["hours"] == 1.5
    assert made.log.steps[-1].seconds == 5400
