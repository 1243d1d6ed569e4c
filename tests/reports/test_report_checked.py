"""Every number of every sentence, against a checker that shares no code with the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_truth as truth
from report_checker import check
from report_runs import write_run
from shared_data import ROOT, shared

from yunque.reports.report import report

LOGS = sorted(p for p in (ROOT / "logs").rglob("*") if p.suffix in (".json", ".jsonl", ".csv"))
CURVES = [p.relative_to(ROOT).as_posix() for p in LOGS if "all_results" not in p.name]


def agree(path: Path, at_least: int) -> None:
    made = json.loads(json.dumps(report(path).json))
    faults, compared = check(path, made)
    assert faults == []
    assert compared >= at_least


@pytest.mark.parametrize("name", CURVES)
def test_real_logs(name: str) -> None:
    agree(shared(name), 12)


def test_own_runs(tmp_path: Path) -> None:
    over = write_run(tmp_path / "over", best=160, spike=300, exam=True)
    many = write_run(tmp_path / "many", val=False, passes=30.5, nan=9)
    size = {"parameters": 1_000_000, "tokens": {"train": 9000}, "device_bytes": 8_000_000_000}
    small = write_run(tmp_path / "small", val=False, passes=30.5, **size)
    told = {one.id: one for one in report(small).analysis.findings}
    assert "1,000,000 weights, 111.11 for every token" in told["memorisation_risk"].text["en"]
    assert told["memory"].text["en"].endswith("The device has 8.0 GB: 75% of that was left.")
    for run in (over, many, small):
        agree(run / "log.jsonl", 20)


def test_known_runs(tmp_path: Path) -> None:
    ends = (".trainer_state.json", ".jsonl", ".csv")
    for seed in range(15):
        agree(truth.write(truth.make(seed), tmp_path / f"run{ends[seed % 3]}", seed), 8)


def test_logs_that_lack_something(tmp_path: Path) -> None:
    """A measure but no validation loss, evaluations without either, zeros, spikes with a tail."""

    def log(name: str, rows: list[dict[str, object]], words: str, at_least: int) -> None:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert words in " ".join(f.text["en"] for f in report(path).analysis.findings)
        agree(path, at_least)

    rows: list[dict[str, object]] = [
        {"step": s, "loss": 2 * 0.99**s + 0.02 * (s % 3), "epoch": s / 50} for s in range(1, 401)
    ]
    tops = [{"step": 40 * k, "eval_f1": 0.9 - (k - 6) ** 2 / 90} for k in range(1, 11)]
    measured = "though it has evaluations (10): eval_f1 was best at step 240 (0.9000) and ended"
    log("f1.jsonl", [*rows, *tops], measured, 20)
    other = [{"step": 40 * k, "eval_odd": k} for k in range(1, 11)]
    log("odd.jsonl", [*rows, *other], "though it has evaluations (10). The training", 12)
    zeros = [{**row, "loss": 0.0} if i >= 200 else row for i, row in enumerate(rows)]
    log(
        "zero.jsonl",
        zeros,
        "From step 201 to the end (step 400) the training loss is exactly 0",
        12,
    )
    tail = {300: 2.4, 301: 1.9, 302: 1.5, 303: 1.2, 100: 1.2}
    high = [{**row, "loss": row["loss"] + tail.get(i, 0)} for i, row in enumerate(rows, 1)]  # type: ignore[operator]
    log("spikes.jsonl", high, "stands out most is 2.498 at step 300; the rows before and after", 12)
    late = [{"step": 60 * k, "eval_loss": 3 - k / 4} for k in range(1, 6)]
    path = tmp_path / "late.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *late]))
    made = report(path)
    assert made.analysis.facts["best_val_step"] == 300
    assert made.analysis.finding("could_have_stopped") is None


def test_the_checker_finds_what_is_wrong(tmp_path: Path) -> None:
    """A false number in `numbers`, in the evidence, in one language: each is found."""
    path = write_run(tmp_path / "over", best=160) / "log.jsonl"
    for change in ('"rise": 0.4', "numbers"), ("en", "text"), ("value", "evidence"):
        made = json.loads(json.dumps(report(path).json))
        (one,) = [f for f in made["findings"] if f["id"] == "overfitting"]
        if change[1] == "numbers":
            one["numbers"]["last"] += 0.001
        elif change[1] == "text":
            one["text"]["en"] += " 123456"
        else:
            one["evidence"][0]["value"] += 0.5
        assert check(path, made)[0], change
