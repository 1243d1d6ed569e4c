"""Logs of kinds that the other tests do not have: what the report says of them must be true."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import write_run

from yunque.reports.compare import compare
from yunque.reports.report import Report, report
from yunque.words.report import WORDS


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
    assert made.analysis.facts["epochs"] == 12
    stop = made.analysis.finding("could_have_stopped")
    assert stop is not None
    assert (stop.numbers["step"], stop.numbers["saved"]) == (0, 1 - 1 / 12)
    assert stop.numbers["saved_epochs"] == 11
    as_lines = [dict(zip(("epoch", "loss", "val_loss"), row, strict=True)) for row in rows]
    assert report(lines(tmp_path / "k.jsonl", as_lines)).analysis.facts["epochs"] == 12
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
    assert f"and ended at {rows[-1][1]:.3f} (step 2,500)" in made.analysis.verdict["text"]["en"]


def test_too_few_validation_losses_are_named_in_the_verdict(tmp_path: Path) -> None:
    rows = [[1, 3.2, 3.0], [2, 2.5, 2.6], [3, 2.1, 2.5], [4, 1.7, 2.7], [5, 1.3, 2.55]]
    made = report(csv_file(tmp_path / "l.csv", "epoch,train_loss,val_loss", rows))
    assert made.analysis.verdict["id"] == "cannot_tell"
    assert (
        "from 3.000 to 2.550 (epoch 5), lowest at 2.500 (epoch 3)"
        in made.analysis.verdict["text"]["en"]
    )


def test_blind_guessing_is_told_of_nats_alone(tmp_path: Path) -> None:
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


def test_a_log_that_names_a_model_gives_a_page(tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    rows = [f"step {s} | loss {falling(s, 60, 3, 1):.4f}" for s in range(60)]
    file.write_text("\n".join(["loading meta-llama/Llama-2-7b-hf", *rows]) + "\n")
    assert "Llama-2-7b" in report(file).html()


def test_lines_that_are_no_rows_are_said(tmp_path: Path) -> None:
    good = [json.dumps({"step": s, "loss": falling(s, 100, 6, 3)}) for s in range(100)]
    (tmp_path / "l.jsonl").write_text("\n".join([*good[:50], good[50][:9], *good[51:]]) + "\n")
    made = report(tmp_path / "l.jsonl")
    assert made.analysis.facts["loss_rows"] == 99
    assert "left out: 1." in said(made)["log_inconsistent"]
    # A comma at the end of each line is no cell; a further figure has no name.
    table = [f"{s},{falling(s, 100, 6, 3)}," for s in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["step,loss", *table, "100,3.0,7.0"]) + "\n")
    made = report(tmp_path / "t.csv")
    assert made.analysis.facts["loss_rows"] == 100
    assert "left out: 1." in said(made)["log_inconsistent"]


def test_seconds_of_single_rows_are_not_the_time_of_the_run(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    rows = [[s, falling(s, 1000, 6, 3), random.normal(0.3, 0.02)] for s in range(0, 1000, 10)]
    made = report(csv_file(tmp_path / "l.csv", "step,loss,elapsed", rows))
    assert made.analysis.facts["hours"] is None
    assert "hours" in [one["id"] for one in made.analysis.unknown]
    clock = [[s, v, 0.3 * s] for s, v, _ in rows]
    made = report(csv_file(tmp_path / "c.csv", "step,loss,elapsed", clock))
    assert made.analysis.facts["hours"] == 0.3 * 990 / 3600


def test_a_log_whose_next_row_lies_behind_the_end_is_complete(tmp_path: Path) -> None:
    def text(last: int) -> Path:
        rows = [
            f"step {s}/10000 loss {falling(s, 10000, 8, 3):.4f}" for s in range(0, last + 1, 500)
        ]
        (tmp_path / "t.log").write_text("\n".join(rows) + "\n")
        return tmp_path / "t.log"

    assert "log_incomplete" not in said(report(text(9500)))
    assert "9,000 of 10,000 (90%)" in said(report(text(9000)))["log_incomplete"]


def test_the_learning_rate_is_found_under_longer_names(tmp_path: Path) -> None:
    for name in ("optimizer/lr", "train/optim/learning_rate", "lr-AdamW"):
        rows = [[s, falling(s, 1000, 6, 3), 3e-4 * (1 - s / 1000)] for s in range(0, 1001, 10)]
        made = report(csv_file(tmp_path / "l.csv", f"step,loss,{name}", rows))
        assert "a straight line down" in said(made)["schedule"]


def test_what_a_log_holds_is_no_markup_in_markdown(tmp_path: Path) -> None:
    row = {"loss_spike_step": 300, "loss_spike_read": 3, "loss_spike_first": 7}
    run = write_run(tmp_path / "run", spike=300, stop=None)
    with (run / "log.jsonl").open("a") as handle:
        stop = {"event": "stop", "step": 400, "reason": "steps", **row}
        handle.write(json.dumps({**stop, "loss_spike_source": "<b>*x*</b>"}) + "\n")
    made = report(run)
    assert "<b>*x*</b>" in json.dumps(made.json)
    assert "<b>" not in re.sub(r"\\<", "", made.markdown())


def test_a_name_that_begins_like_a_metric_is_none(tmp_path: Path) -> None:
    """Emissions that rise while the validation loss rises are no better metric."""
    rows = [
        [s, falling(s, 1000, 3, 0.1), 2 + abs(s - 300) / 300, s / 10, s / 2000]
        for s in range(0, 1001, 50)
    ]
    for name, found in (("eval_emissions", False), ("eval_accuracy", True)):
        file = csv_file(tmp_path / "l.csv", f"step,loss,val_loss,{name}", [r[:4] for r in rows])
        assert ("metric_disagrees_with_loss" in said(report(file))) is found


def test_figures_are_neither_a_false_zero_nor_a_false_plural(tmp_path: Path) -> None:
    rows = [[s, s / 1e6, falling(s, 1000, 1e-4, 2e-7)] for s in range(0, 1001, 10)]
    made = report(csv_file(tmp_path / "l.csv", "step,epoch,loss", rows))
    text = made.summary("es")
    assert f"{rows[-1][2]:.1e}".replace(".", ",") in text
    assert "0,0010" in text


def test_a_validation_loss_before_the_first_step_is_read(tmp_path: Path) -> None:
    """llm.c writes it on a line of its own, the first of them before step 1."""
    rows = []
    for step in range(1, 61):
        if step % 20 == 1:
            rows.append(f"val loss {falling(step - 1, 60, 10, 3):.6f}")
        rows.append(f"step {step}/60 | loss {falling(step, 60, 10, 3):.6f} | lr 3.00e-04")
    (tmp_path / "main.log").write_text("\n".join(rows) + "\n")
    made = report(tmp_path / "main.log")
    assert made.analysis.facts["eval_rows"] == 3
    assert "validation loss fell from 10.000" in made.analysis.verdict["text"]["en"]


def test_a_cell_without_a_figure_is_no_row_with_a_loss(tmp_path: Path) -> None:
    """A table copied from a notebook: "No log" until the first loss."""
    rows: list[list[Any]] = [
        [s, falling(s, 1000, 3, 1) if s > 200 else "No log", falling(s, 1000, 3, 1.3)]
        for s in range(100, 1001, 100)
    ]
    made = report(csv_file(tmp_path / "l.csv", "Step,Training Loss,Validation Loss", rows))
    assert (made.analysis.facts["loss_rows"], made.analysis.facts["eval_rows"]) == (8, 10)


def test_a_huge_loss_is_not_written_to_its_last_place(tmp_path: Path) -> None:
    rows = [[s, 1e30 if s == 0 else falling(s, 1000, 6, 3)] for s in range(0, 1001, 10)]
    made = report(csv_file(tmp_path / "l.csv", "step,loss", rows))
    assert "1.0e+30 (step 0)" in said(made)["abnormal_start_loss"]
    assert "1,0e+30" in made.summary("es")


def test_further_event_files_are_named_as_not_read(tmp_path: Path) -> None:
    """A resumed run has one event file for each start."""
    events = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    summary = pytest.importorskip("tensorboard.compat.proto.summary_pb2")
    event = pytest.importorskip("tensorboard.compat.proto.event_pb2")

    def write(first: int, last: int) -> None:
        writer = events.EventFileWriter(str(tmp_path), filename_suffix=f".{first}")
        for step in range(first, last):
            value = summary.Summary.Value(tag="train/loss", simple_value=falling(step, 90, 6, 3))
            writer.add_event(event.Event(step=step, summary=summary.Summary(value=[value])))
        writer.close()

    write(0, 60)
    assert "other_files" not in [one["id"] for one in report(tmp_path).analysis.unknown]
    write(60, 90)
    made = report(tmp_path)
    assert made.analysis.facts["loss_rows"] == 60
    assert "other_files" in [one["id"] for one in made.analysis.unknown]


def test_one_of_a_thing_is_no_plural() -> None:
    """Where a number may be 1, no noun in the plural follows it."""
    plural = re.compile(
        r"\{(?:warmup_steps|saved_epochs|loss_rows|held_out|samples|copied|rose|right|\w+_right)"
        r":\w+\} (?!antes)(?:\w+s|stand|están|terminaron)\b"
    )
    found = {key: pair for key, pair in WORDS.items() for text in pair if plural.search(text)}
    assert found == {}


def test_one_odd_batch_at_an_evaluation_hides_no_overfitting(tmp_path: Path) -> None:
    """Training and validation loss in the same rows, the first of single batches."""
    for seed in range(12):
        random = np.random.default_rng(seed)
        rows = [
            [s, 1 + falling(s, 600, 2, 0) + random.normal(0, 0.2), 2 + abs(s - 600) / 600]
            for s in range(10, 2001, 10)
        ]
        made = report(csv_file(tmp_path / f"{seed}.csv", "step,train_loss,val_loss", rows))
        assert made.analysis.verdict["id"] == "overfitted", seed


def test_losses_of_different_kinds_are_not_compared(tmp_path: Path) -> None:
    made = []
    for name, more in (("text", "lr"), ("choice", "rewards/margins"), ("again", "lr")):
        rows = [
            [s, falling(s, 1000, 3, 1), falling(s, 1000, 3, 1.2), 0.1] for s in range(0, 1001, 20)
        ]
        made.append(report(csv_file(tmp_path / f"{name}.csv", f"step,loss,val_loss,{more}", rows)))
    assert [c.id for c in compare(made[:2]).claims] == []
    assert [c.id for c in compare([made[0], made[2]]).claims] == ["val"]
