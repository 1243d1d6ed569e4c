"""Logs of kinds that the other tests do not have: what the report says of them must be true."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from report_runs import write_run

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


def test_rates_that_were_rounded_to_zero_are_no_zero_rates(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    losses = [falling(s, 1000, 8, 3) + random.normal(0, 0.05) for s in range(0, 1000, 10)]
    file = tmp_path / "train.log"
    file.write_text(
        "".join(f"step {10 * i} | loss {v:.4f} | lr 0.0000\n" for i, v in enumerate(losses))
    )
    made = report(file)
    zero = made.analysis.finding("learning_rate_zero")
    assert zero is not None
    assert (zero.severity, made.analysis.verdict["id"]) == ("info", "cannot_tell")
    assert "rounded" in zero.text["en"]
    # A cosine from 3e-4 with four decimals is 0 from step 740 on, while the loss still falls.
    losses = [falling(s, 1000, 8, 3) for s in range(0, 1000, 10)]
    rates = [3e-4 * (1 + math.cos(math.pi * i / 100)) / 2 for i in range(100)]
    pairs = zip(losses, rates, strict=True)
    text = "".join(f"step {10 * i} | loss {v:.4f} | lr {r:.4f}\n" for i, (v, r) in enumerate(pairs))
    file.write_text(text)
    assert "learning_rate_zero" not in said(report(file))


def test_nan_losses_at_the_end_break_a_run_whose_rows_hold_one_figure_each(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for step in range(0, 1000, 10):
        loss = math.nan if step > 700 else falling(step, 1000, 6, 3)
        rows += [
            {"step": step, "loss": loss},
            {"step": step, "lr": 1e-3},
            {"step": step, "grad_norm": 1.0},
        ]
    verdict = report(lines(tmp_path / "log.jsonl", rows)).analysis.verdict
    assert verdict["id"] == "diverged"
    assert "NaN or infinite first at step 710" in verdict["text"]["en"]


def test_a_run_whose_last_evaluations_are_nan_is_not_said_to_have_worked(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for step in range(10, 1001, 10):
        held = {"val_loss": math.nan if step > 700 else falling(step, 1000, 6, 3.1)}
        rows.append(
            {"step": step, "loss": falling(step, 1000, 6, 3), **(held if step % 100 == 0 else {})}
        )
    verdict = report(lines(tmp_path / "log.jsonl", rows)).analysis.verdict
    assert verdict["id"] == "cannot_tell"
    assert "NaN or infinite first at step 800" in verdict["text"]["en"]


def test_a_negative_loss_without_a_fall_is_none(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = [
        [s, random.normal(-1, 0.05), random.normal(-1, 0.02) if s % 100 == 0 else None]
        for s in range(0, 1001, 10)
    ]
    made = report(csv_file(tmp_path / "l.csv", "step,loss,val_loss", rows))
    assert made.analysis.verdict["id"] == "did_not_learn"
    falls = [[s, falling(s, 1000, 2, -3), falling(s, 1000, 2, -2.9)] for s in range(0, 1001, 10)]
    made = report(csv_file(tmp_path / "f.csv", "step,loss,val_loss", falls))
    assert made.analysis.verdict["id"] == "worked"


def test_what_is_counted_in_epochs_is_not_called_updates(tmp_path: Path) -> None:
    """Keras' CSVLogger: row 0 stands after the first epoch, not before the first update."""
    random = np.random.default_rng(2)
    rows = [
        [e, falling(e, 12, 1.5, 0.2), 1.2 + 0.08 * e + random.normal(0, 0.005)] for e in range(12)
    ]
    made = report(csv_file(tmp_path / "keras.csv", "epoch,loss,val_loss", rows))
    assert made.analysis.facts["steps"] is None
    assert "worse_than_base" not in said(made)
    assert made.analysis.verdict["id"] == "overfitted"
    assert "updates_epochs" in [one["id"] for one in made.analysis.unknown]
    only = report(csv_file(tmp_path / "val.csv", "epoch,val_loss", [r[::2] for r in rows]))
    assert only.analysis.facts["eval_rows"] == 12
    history = {"loss": [r[1] for r in rows], "val_loss": [r[2] for r in rows]}
    (tmp_path / "h.json").write_text(json.dumps(history))
    made = report(tmp_path / "h.json")
    assert made.analysis.facts["steps"] is None
    assert "updates_rows" in [one["id"] for one in made.analysis.unknown]


def test_parts_of_epochs_are_no_steps(tmp_path: Path) -> None:
    rows = [[round(i / 10, 2), falling(i, 30, 6, 3)] for i in range(1, 31)]
    made = report(csv_file(tmp_path / "l.csv", "epoch,loss", rows))
    assert made.analysis.facts["loss_rows"] == 30
    assert made.analysis.facts["epochs"] == 3
    assert made.analysis.facts["steps"] is None


def test_a_loss_that_did_not_fall_was_not_learnt_by_heart(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = [[s, s / 100, 3 + random.normal(0, 0.05)] for s in range(10, 601, 10)]
    made = report(csv_file(tmp_path / "l.csv", "step,epoch,loss", rows))
    assert "memorisation_risk" not in said(made)
    assert "data_repeated" in said(made)


def test_a_part_of_the_fall_is_never_more_than_all_of_it(tmp_path: Path) -> None:
    """A validation loss that rises by 1.5 and comes back to where it was."""
    rows = [
        [s, falling(s, 1000, 3, 1), 2 + 1.5 * math.sin(math.pi * s / 1000) - 0.02 * (s == 1000)]
        for s in range(0, 1001, 100)
    ]
    still = report(csv_file(tmp_path / "l.csv", "step,loss,val_loss", rows)).analysis.finding(
        "still_improving"
    )
    assert still is not None
    assert still.numbers["part"] == (rows[7][2] - rows[10][2]) / (rows[5][2] - rows[10][2])
    # The first row is the lowest of the running median too: the fall has no length from there.
    low = [[s, 1.0 if s < 20 else 1.0 + falling(s, 99, 4, 0.001)] for s in range(100)]
    report(csv_file(tmp_path / "low.csv", "step,loss", low))


def test_the_best_of_a_validation_loss_that_rose_again_is_not_the_end(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    rows = [[s, 2 + (s / 1000 - 1) ** 2 + random.normal(0, 0.01)] for s in range(100, 2501, 100)]
    made = report(csv_file(tmp_path / "l.csv", "step,val_loss", rows))
    assert f"but ended at {rows[-1][1]:.3f} (step 2,500)" in made.analysis.verdict["text"]["en"]


def test_too_few_validation_losses_are_named_in_the_verdict(tmp_path: Path) -> None:
    rows = [[1, 3.2, 3.0], [2, 2.5, 2.6], [3, 2.1, 2.5], [4, 1.7, 2.55], [5, 1.3, 2.7]]
    made = report(csv_file(tmp_path / "l.csv", "epoch,train_loss,val_loss", rows))
    assert made.analysis.verdict["id"] == "cannot_tell"
    assert (
        "from 3.000 to 2.700 (step 5), lowest at 2.500 (step 3)"
        in made.analysis.verdict["text"]["en"]
    )


def test_blind_guessing_is_told_of_the_vocabulary_that_is_known(tmp_path: Path) -> None:
    own = write_run(tmp_path / "run", vocabulary_size=8)
    text = said(report(own))["abnormal_start_loss"]
    assert "among the 8 tokens of this model's vocabulary" in text
    assert "more than any common model" not in text
    bits = [[s, falling(s, 1000, 10.9, 4) / math.log(2)] for s in range(0, 1001, 10)]
    made = report(csv_file(tmp_path / "bits.csv", "step,loss", bits))
    assert "if it is in nats per token" in said(made)["abnormal_start_loss"]


def test_a_kl_term_is_no_reinforcement_and_a_reward_asks_for_no_held_out_loss(
    tmp_path: Path,
) -> None:
    rows = [[s, falling(s, 1000, 9, 3), 0.2, falling(s, 1000, 9, 3.1)] for s in range(0, 1001, 10)]
    made = report(csv_file(tmp_path / "vae.csv", "step,loss,kl,val_loss", rows))
    assert made.analysis.verdict["id"] == "worked"
    made = report(csv_file(tmp_path / "rl.csv", "step,loss,reward,kl", rows))
    assert "no_validation" not in said(made)
    assert "held out" not in made.analysis.verdict["text"]["en"]
    assert "reinforcement" in made.analysis.verdict["text"]["en"]
