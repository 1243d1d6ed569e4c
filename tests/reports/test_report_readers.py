"""Pasted consoles and tables of other tools: steps, epochs and losses as they truly were."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_run

from yunque.cli import main
from yunque.errors import InputError
from yunque.reports.compare import compare
from yunque.reports.compare_page import terminal
from yunque.reports.read import Log, read
from yunque.reports.report import report


def written(folder: Path, name: str, lines: list[str]) -> Path:
    """A file of these lines."""
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def train(log: Log) -> list[tuple[int, float | None]]:
    """(step, training loss) of the rows."""
    return [(r.step, r.number("train_loss")) for r in log.steps if "train_loss" in r.values]


def held(log: Log) -> list[tuple[int, float | None]]:
    """(step, validation loss) of the evaluations."""
    return [(r.step, r.number("val_loss")) for r in log.evals if "val_loss" in r.values]


def console(updates: int = 192, epochs: int = 6, every: int = 10) -> list[str]:
    """What transformers 5 prints: every number as a string of four significant digits."""
    each, lines = updates // epochs, []
    for step in range(1, updates + 1):
        if step % every == 0:
            rate = 3e-3 * (step / 20 if step <= 20 else (updates - step) / (updates - 20))
            told = f"'learning_rate': '{rate:.4g}', 'epoch': '{step / each:.4g}'"
            lines.append(f"{{'loss': '{4 - step / 100:.4g}', 'grad_norm': '1.01', {told}}}")
        if step % each == 0:
            lines.append(f"{{'eval_loss': '{3 - step / 100:.4g}', 'epoch': '{step // each}'}}")
    return lines


SUMMARY = (
    "{'train_runtime': '14.43', 'train_samples_per_second': '106.5', "
    "'train_steps_per_second': '13.31', 'train_loss': '1.391', 'epoch': '6'}"
)


def test_a_pasted_console_with_its_summary(tmp_path: Path) -> None:
    """The mean of the run is no row; its pace (13.31 a second for 14.43 s) gives 192 updates."""
    made = report(written(tmp_path, "a.log", [*console(), SUMMARY]))
    facts, log = made.analysis.facts, made.log
    assert train(log) == [(s, round(4 - s / 100, 4)) for s in range(10, 191, 10)]
    assert held(log) == [(32 * k, round(3 - 0.32 * k, 4)) for k in range(1, 7)]
    assert (facts["steps"], facts["loss_rows"], facts["epochs"]) == (192, 19, 6.0)
    assert (facts["mean_train_loss"], facts["last_train_loss"]) == (1.391, 2.1)
    schedule = made.analysis.finding("schedule")
    assert schedule is not None
    assert (schedule.numbers["warmup_steps"], schedule.numbers["form"]) == (20, "linear")
    assert "steps_reckoned" in [one["id"] for one in made.analysis.unknown]


def test_a_pasted_console_without_a_pace_counts_rows(tmp_path: Path) -> None:
    summary = SUMMARY.replace("'train_steps_per_second': '13.31', ", "")
    for lines in ([*console(), summary], console()):
        made = report(written(tmp_path, "a.log", lines))
        assert [step for step, _ in train(made.log)] == list(range(1, 20))
        assert [step for step, _ in held(made.log)] == [3, 6, 9, 12, 16, 19]
        assert (made.log.counted, made.analysis.facts["steps"]) == ("rows", None)


def test_a_pasted_console_with_its_bars(tmp_path: Path) -> None:
    """A bar before each line: that of the training counts updates, the other one batches."""
    lines, step = [], 0
    for line in console():
        step += 10 * ("'loss'" in line)
        bar = f" 5%|█   | {step}/192 [00:01<00:09, 13.31it/s]"
        evaluation = "100%|████| 5/5 [00:00<00:00, 99.2it/s]"
        lines.append((evaluation if "eval_loss" in line else bar) + line)
    log = read(written(tmp_path, "a.log", lines))
    assert [step for step, _ in train(log)] == list(range(10, 191, 10))
    assert [step for step, _ in held(log)] == [30, 60, 90, 120, 160, 190]


def test_a_pace_that_does_not_pin_the_updates_is_not_used(tmp_path: Path) -> None:
    """13 steps a second may be 12.5 to 13.5: between 180 and 195 updates."""
    lines = [*console(), SUMMARY.replace("13.31", "13")]
    assert read(written(tmp_path, "a.log", lines)).counted == "rows"


@pytest.mark.parametrize(
    ("lines", "steps", "counted", "epochs"),
    [
        # One count through the whole run, a time before it and an epoch beside it.
        (
            [f"[2026-03-01 12:00:05] INFO Epoch {n // 4} [{50 * n}/500] Loss: {3 - n / 10}"
             for n in range(1, 11)],
            [50 * n for n in range(1, 11)], "", 2.0,
        ),
        # A bar on one line, and a count that begins anew with each epoch.
        (
            [f"Epoch {e}:  1%|| {n}/30 [00:00<00:50, 20.0it/s, loss={3 - e / 2 - n / 60:.3f}]"
             for e in (1, 2) for n in (10, 20, 30)],
            [10, 20, 30, 40, 50, 60], "", 2.0,
        ),
        (
            [f"Epoch [{e}/2], Step [{n}/30], Loss: {3 - e / 2 - n / 60:.3f}"
             for e in (1, 2) for n in (10, 20, 30)],
            [10, 20, 30, 40, 50, 60], "", 2.0,
        ),
        # Examples: PyTorch's demonstration counts them, with the percentage beside.
        (
            [f"Train Epoch: {e} [{n}/600 ({n // 6}%)]\tLoss: {3 - e / 2 - n / 900:.3f}"
             for e in (1, 2) for n in (0, 300)],
            [0, 300, 600, 900], "examples", 1.5,
        ),
        # Epochs alone.
        ([f"Época {e}/4 - pérdida: {3 - e / 4}" for e in range(1, 5)], [1, 2, 3, 4], "epochs", 4.0),
    ],
)  # fmt: skip
def test_how_far_a_run_is(
    tmp_path: Path, lines: list[str], steps: list[int], counted: str, epochs: float
) -> None:
    made = report(written(tmp_path, "a.log", lines))
    assert [step for step, _ in train(made.log)] == steps
    assert made.log.counted == counted
    assert made.analysis.facts["epochs"] == epochs
    assert made.analysis.facts["steps"] == (None if counted else steps[-1])


def test_figures_that_are_no_place(tmp_path: Path) -> None:
    """Right answers, memory and a date look like a place, and are none."""
    lines = [
        f"step {s}: loss {3 - s / 10} acc 40/60 Accuracy: 9100/10000 (91%) mem [3/24]"
        for s in range(1, 9)
    ]
    assert [step for step, _ in train(read(written(tmp_path, "a.log", lines)))] == list(range(1, 9))


def test_lines_about_what_was_held_out(tmp_path: Path) -> None:
    lines = []
    for e in (1, 2, 3):
        lines += [f"Train Epoch: {e} [{n}/600 ({n // 6}%)]\tLoss: {3 / e}" for n in (0, 300)]
        lines += ["", f"Test set: Average loss: {2 / e:.4f}, Accuracy: 9100/10000 (91%)", ""]
    log = read(written(tmp_path, "a.log", lines))
    assert held(log) == [(300, 2.0), (900, 1.0), (1500, 0.6667)]
    assert [value for _, value in train(log)] == [3.0, 3.0, 1.5, 1.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        ("Paso;Pérdida;Pérdida validación;Tasa de aprendizaje", ("train", "val", "rate")),
        ("Iteration;Training Loss (CE);Val. Loss;Learning Rate", ("train", "val", "rate")),
        ("step;loss;dev loss;lr", ("train", "val", "rate")),
        ("step;pérdida;pérdida_val;lr", ("train", "val", "rate")),
        ("step;train-loss;test_loss;lr", ("train", "val", "rate")),
    ],
)
def test_names_of_columns(tmp_path: Path, names: str, ours: tuple[str, ...]) -> None:
    rows = [f"{s};{3 - s / 100};{4 - s / 100};0.001" for s in range(1, 5)]
    log = read(written(tmp_path, "a.csv", [names, *rows]))
    assert train(log) == [(s, 3 - s / 100) for s in range(1, 5)]
    assert held(log) == [(s, 4 - s / 100) for s in range(1, 5)]
    assert [r.number("learning_rate") for r in log.steps] == [0.001] * 4


def test_perplexities_are_read_as_losses(tmp_path: Path) -> None:
    rows = [f"{s},{100 / s},{120 / s}" for s in (1, 2, 4)]
    made = report(written(tmp_path, "a.csv", ["step,train_ppl,valid_perplexity", *rows]))
    assert train(made.log) == [(s, math.log(100 / s)) for s in (1, 2, 4)]
    assert held(made.log) == [(s, math.log(120 / s)) for s in (1, 2, 4)]
    assert "perplexities" in [one["id"] for one in made.analysis.unknown]
    assert made.log.steps[0].names["train_loss"] == "ln(train_ppl)"


def test_a_measure_beside_the_training_loss(tmp_path: Path) -> None:
    """BLEU rises to step 100 and falls again; nothing is said to be not held out."""
    rows = [f"{s},{5 - s / 50},{30 - abs(s - 100) / 10}" for s in range(10, 201, 10)]
    made = report(written(tmp_path, "a.csv", ["step,loss,eval_bleu", *rows]))
    found = made.analysis.finding("no_validation")
    assert found is not None
    assert (found.numbers["metric"], found.numbers["evals"]) == ("eval_bleu", 20)
    assert (found.numbers["step"], found.numbers["value"]) == (100, 30.0)
    assert (found.numbers["last_step"], found.numbers["last_value"]) == (200, 20.0)
    verdict = made.analysis.verdict["text"]
    assert "eval_bleu was best at step 100 (30.000)" in verdict["en"]
    assert "nothing" not in verdict["en"] + " ".join(f.text["en"] for f in made.analysis.findings)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", ["step,weird", "1,2.5", "2,2.4"])
    with pytest.raises(InputError, match=r"no column 'nope'; it has the columns: step, weird"):
        read(path, {"train_loss": "nope"})
    assert train(read(path, {"train_loss": "weird"})) == [(1, 2.5), (2, 2.4)]


def test_a_diet_is_no_training(tmp_path: Path) -> None:
    rows = [f"{day},{80 - day / 10},{day / 10}" for day in range(1, 20)]
    for name in ("loss of weight", "pérdida de peso"):
        made = report(written(tmp_path, "a.csv", [f"step,weight,{name}", *rows]))
        assert made.log.format == "unknown"


def test_a_table_parted_by_spaces(tmp_path: Path) -> None:
    """fastai prints its table with columns in line; the epochs count from 0."""
    rows = [f"{e}         {2 - e / 10:.6f}    {1.5 - e / 20:.6f}    00:1{e}" for e in range(4)]
    log = read(written(tmp_path, "a.txt", ["epoch     train_loss  valid_loss  time    ", *rows]))
    assert train(log) == [(e, round(2 - e / 10, 6)) for e in range(4)]
    assert held(log) == [(e, 1.5 - e / 20) for e in range(4)]
    assert log.counted == "epochs"


def test_losses_without_a_step_where_their_names_are_plain(tmp_path: Path) -> None:
    rows = [f"{3 - s / 10},{3.1 - s / 10}" for s in range(1, 4)]
    log = read(written(tmp_path, "a.csv", ["train_loss,val_loss", *rows]))
    assert [step for step, _ in train(log)] == [1, 2, 3]
    assert log.counted == "rows"


def found(path: Path) -> Any:
    """The one finding about a file that is no log."""
    (one,) = report(path).analysis.findings
    assert one.id == "not_a_training_log"
    return one


def test_what_is_no_log_is_described(tmp_path: Path) -> None:
    rows = ["1,0.5,0.4", "2,0.6,0.5", "3,0.7,0.6"]
    one = found(written(tmp_path, "a.csv", ["epoch,train_acc,val_acc", *rows]))
    assert "train_acc, val_acc" in one.text["en"]
    assert "no loss" in one.text["en"]
    one = found(written(tmp_path, "a.csv", ["width,length,kind", "1,2,a", "2,3,b"]))
    assert "width, length, kind" in one.text["es"]
    assert "--columns" in one.advice["es"]
    one = found(written(tmp_path, "a.csv", ["name,loss,year", "A,3,2000", "B,4,2001"]))
    assert "loss" in one.text["en"]
    assert "step" in one.text["en"]
    one = found(written(tmp_path, "a.md", ["Once upon a time", "there was a file."]))
    assert "Once upon a time" in one.text["en"]


def test_the_folders_of_other_tools_stay_as_they_are(tmp_path: Path) -> None:
    folder, out = tmp_path / "checkpoint-10", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    rows = [{"step": s, "loss": 3 - s / 100} for s in range(1, 40)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    assert main(["report", str(folder), "--quiet"]) == 0
    assert [path.name for path in folder.iterdir()] == ["trainer_state.json"]
    assert main(["report", str(folder), "--quiet", "--out", str(out)]) == 0
    assert (out / "report.html").is_file()
    run = write_run(tmp_path / "run", steps=40)
    assert main(["report", str(run), "--quiet"]) == 0
    assert (run / "report.html").is_file()


def test_logs_that_count_epochs_are_compared_in_epochs(tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        rows = [f"{e},{3 - e / 10},{3.1 - e / 10}" for e in range(1, 11)]
        logs.append(report(written(tmp_path, f"{name}.csv", ["epoch,loss,val_loss", *rows])))
    text = terminal(compare(logs), "en")
    assert "… at epoch" in text
    assert "(epoch 10)" in text
    assert " step" not in text
    assert "(época 10)" in terminal(compare(logs), "es")
