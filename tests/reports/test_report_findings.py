"""Findings on synthetic runs with known truth, and on the seed log."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_checker import check
from report_runs import write_run
from shared_data import shared

from yunque.reports.curve import curve, noise
from yunque.reports.read import read
from yunque.reports.report import Report, report


def ids(made: Report) -> dict[str, str]:
    """Finding id → severity."""
    return {f.id: f.severity for f in made.analysis.findings}


def trainer_state(file: Path, losses: list[float], evals: dict[int, float]) -> Path:
    """A Hugging Face log of one row a step."""
    history: list[dict[str, Any]] = [{"step": i, "loss": v} for i, v in enumerate(losses, 1)]
    history += [{"step": step, "eval_loss": v} for step, v in evals.items()]
    file.write_text(json.dumps({"global_step": len(losses), "log_history": history}))
    return file


def test_facts_equal_an_independent_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=400, nan=17)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [r for r in rows if r["event"] == "step"]
    losses = [(r["train_loss"], r["step"]) for r in steps if r["train_loss"] is not None]
    held = [(r["val_loss"], r["step"]) for r in rows if r["event"] == "eval"]
    assert report(run).json["facts"] == {
        "steps": 400,
        "epochs": 2.0,
        "examples": None,
        "hours": pytest.approx(200 / 3600),
        "first_train_loss": losses[0][0],
        "last_train_loss": losses[-1][0],
        "lowest_train_loss": min(losses)[0],
        "lowest_train_step": min(losses)[1],
        "mean_train_loss": pytest.approx(statistics.fmean(v for v, _ in losses), rel=1e-12),
        "best_val_loss": min(held)[0],
        "best_val_step": min(held)[1],
        "last_val_loss": held[-1][0],
        "loss_rows": 400,
        "eval_rows": 21,
        "non_finite_rows": 1,
    }


def test_noise_is_that_of_the_points_not_of_the_curve() -> None:
    random = np.random.default_rng(3)
    steps = np.arange(2000.0)
    values = 2 + 3 * np.exp(-steps / 300) + random.normal(0, 0.07, 2000)
    assert noise(steps, values) == pytest.approx(0.07, rel=0.06)
    assert noise(steps, 5 - 0.001 * steps) == pytest.approx(0, abs=1e-12)
    assert np.isnan(noise(steps[:2], values[:2]))


def test_healthy_run_worked(tmp_path: Path) -> None:
    made = report(write_run(tmp_path / "run"))
    assert made.analysis.verdict["id"] == "worked"
    assert set(ids(made)) <= {"best_step", "could_have_stopped", "schedule", "throughput", "memory"}
    assert set(ids(made).values()) == {"info"}


def test_overfitting_of_a_kept_best_model_is_no_problem(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", best=160, stop="early_stopping")
    made = report(run)
    over = made.analysis.finding("overfitting")
    assert over is not None
    assert (over.numbers["step"], over.severity) == (160, "warning")
    assert "best/ holds the model of step 160" in over.text["en"]
    assert "best/ guarda el modelo del paso 160" in over.text["es"]
    assert made.analysis.verdict["id"] == "worked"
    assert "use the model of step 160, kept in best/" in made.analysis.verdict["text"]["en"]
    best = made.analysis.finding("best_step")
    assert best is not None
    assert "best/ holds the model of step 160, not of the last step" in best.text["en"]
    assert "could_have_stopped" not in ids(made)


def test_overfitting_without_a_kept_model_is_the_verdict(tmp_path: Path) -> None:
    made = report(write_run(tmp_path / "run", best=160, kept=False))
    assert made.analysis.verdict["id"] == "overfitted"
    assert ids(made)["overfitting"] == "problem"
    assert "best/" not in json.dumps(made.json)
    assert made.json["stop"]["step"] == 160
    assert made.json["stop"]["saved_fraction"] == pytest.approx(0.6)
    assert made.json["stages"][-1] == {
        "id": "overfitting",
        "from_step": 160,
        "to_step": 400,
        "share_of_improvement": pytest.approx(-0.4966 / 2.9097, abs=0.02),
        "share_of_time": pytest.approx(0.6),
    }


def test_stages_share_the_whole_improvement_and_time(tmp_path: Path) -> None:
    stages = report(write_run(tmp_path / "run", noise=0.0)).json["stages"]
    assert [s["id"] for s in stages] == ["fast", "refinement", "plateau"]
    assert sum(s["share_of_improvement"] for s in stages) == pytest.approx(1)
    assert sum(s["share_of_time"] for s in stages) == pytest.approx(1)
    # 1 - exp(-6x) = 0.9 (1 - exp(-6)) at x = 0.38: the evaluation after step 152.
    assert stages[0]["to_step"] == 160


def test_validation_noise_is_not_overfitting(tmp_path: Path) -> None:
    """A flat tail with noise: in 40 runs no overfitting, and none called a problem."""
    random = np.random.default_rng(5)
    steps = np.arange(1, 401)
    for number in range(40):
        losses = 1 + 3 * np.exp(-steps / 40) + random.normal(0, 0.05, 400)
        held = {s: 1.3 + 3 * np.exp(-s / 40) + random.normal(0, 0.02) for s in range(20, 401, 20)}
        file = trainer_state(tmp_path / f"{number}.json", list(losses), held)
        made = report(file)
        assert "overfitting" not in ids(made)
        assert "problem" not in ids(made).values()
        assert made.analysis.verdict["id"] == "worked"


def test_still_improving_and_undertrained(tmp_path: Path) -> None:
    losses = [4 - 0.005 * i for i in range(400)]
    made = report(
        trainer_state(tmp_path / "a", losses, {s: 4 - 0.005 * s for s in (0, 100, 200, 300, 400)})
    )
    still = made.analysis.finding("still_improving")
    assert still is not None
    assert (still.numbers["step"], still.numbers["part"]) == (300, pytest.approx(0.25))
    assert made.analysis.verdict["id"] == "undertrained"


def test_flat_training_loss_did_not_learn(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    losses = list(2 + random.normal(0, 0.1, 100))
    made = report(trainer_state(tmp_path / "a", losses, {}))
    assert made.analysis.verdict["id"] == "did_not_learn"
    assert [s["share_of_improvement"] for s in made.json["stages"]] == [None]


def test_divergence_and_its_onset(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    fall = 1 + 2 * np.exp(-np.arange(200) / 30)
    losses = np.concatenate([fall, np.full(100, 6.0)]) + random.normal(0, 0.05, 300)
    made = report(trainer_state(tmp_path / "a", list(losses), {}))
    found = made.analysis.finding("diverged")
    assert found is not None
    assert abs(found.numbers["onset_step"] - 200) <= 1
    assert found.numbers["end"] == pytest.approx(6.0, abs=0.05)
    assert made.analysis.verdict["id"] == "diverged"


def test_nan_at_the_end_is_divergence(tmp_path: Path) -> None:
    losses = [3 - 0.01 * i for i in range(50)] + [float("nan")] * 3
    made = report(trainer_state(tmp_path / "a", losses, {}))
    assert made.analysis.verdict["id"] == "diverged"
    assert ids(made)["non_finite"] == "problem"
    found = made.analysis.finding("non_finite")
    assert found is not None
    assert found.numbers == {"field": "loss", "rows": 3, "total": 53, "step": 51}
    assert found.evidence == [{"row": 51, "field": "loss", "value": "nan"}]


def test_a_spike_is_found_at_its_step(tmp_path: Path) -> None:
    made = report(write_run(tmp_path / "run", spike=200))
    found = made.analysis.finding("loss_spike")
    assert found is not None
    assert (found.numbers["step"], found.numbers["rows"]) == (200, 1)
    assert found.numbers["around"] == pytest.approx(0.8 + 3.2 * np.exp(-6 * 199 / 400), abs=0.05)


def test_no_validation_many_passes(tmp_path: Path) -> None:
    made = report(write_run(tmp_path / "run", val=False, passes=30))
    assert ids(made)["no_validation"] == "warning"
    assert ids(made)["memorisation_risk"] == "warning"
    assert made.analysis.verdict["id"] == "cannot_tell"
    assert [u["id"] for u in made.json["unknown"]] == [
        "generalisation",
        "quality",
        "labels",
        "seed",
    ]


def test_too_short_to_judge(tmp_path: Path) -> None:
    made = report(write_run(tmp_path / "run", steps=5, every=5, stop=None))
    assert ids(made)["too_short_to_judge"] == "warning"
    assert made.analysis.verdict["id"] == "cannot_tell"
    assert "end" in [u["id"] for u in made.json["unknown"]]


def test_exam_decides_where_nothing_else_is_held_out(tmp_path: Path) -> None:
    made = report(write_run(tmp_path / "run", val=False, exam=True))
    assert made.analysis.verdict["id"] == "worked"
    assert "200 of 200 right" in made.analysis.verdict["text"]["en"]


def test_worse_than_base(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", exam=True)
    lines = (run / "log.jsonl").read_text().splitlines()
    exams = [line for line in lines if '"exam"' in line]
    first = json.loads(exams[0])
    swapped = json.dumps({**first, "right": 120})
    last = json.dumps({**json.loads(exams[-1]), "right": 80})
    text = "\n".join(lines).replace(exams[0], swapped).replace(exams[-1], last) + "\n"
    (run / "log.jsonl").write_text(text)
    made = report(run)
    found = made.analysis.finding("worse_than_base")
    assert found is not None
    assert [e["value"] for e in found.evidence] == [120, 200, 80, 200]
    assert made.analysis.verdict["id"] == "did_not_learn"


def test_every_evidence_row_stands_in_the_log(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", best=160, spike=300)
    lines = (run / "log.jsonl").read_text().splitlines()
    proofs = [e for f in report(run).json["findings"] for e in f["evidence"]]
    assert len(proofs) >= 8
    for proof in proofs:
        assert json.loads(lines[proof["row"] - 1])[proof["field"]] == proof["value"]


def test_seed_log_of_the_story() -> None:
    made = report(shared("logs/seed_phi2_250ep.trainer_state.json"))
    facts = made.json["facts"]
    assert facts["hours"] == pytest.approx(32.557, abs=0.001)
    assert facts["mean_train_loss"] == pytest.approx(0.2402, abs=5e-5)
    exact = ("steps", "epochs", "examples", "first_train_loss", "last_train_loss")
    assert [facts[k] for k in exact] == [1000, 250.0, 53, 2.6955, 0.0570]
    assert (facts["lowest_train_loss"], facts["lowest_train_step"]) == (0.0556, 975)
    assert facts["best_val_loss"] is None
    assert made.analysis.verdict["id"] == "cannot_tell"
    assert ids(made)["memorisation_risk"] == "problem"
    assert ids(made)["no_validation"] == "warning"
    stop = made.json["stop"]
    assert (stop["step"], stop["saved_fraction"]) == (250, 0.75)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("gallery_overfit_s42", "overfitted"),
        ("gallery_lr_hot_s42", "diverged"),
        ("gallery_fp16_nan_s42", "diverged"),
        ("gallery_lr_zero_s42", "did_not_learn"),
        ("gallery_healthy_s42", "cannot_tell"),
        ("gemma_translation_3ep", "worked"),
        ("mt5_summarize_70evals", "worked"),
        ("metamath_1ep", "cannot_tell"),
        ("multi_eval_sets", "overfitted"),
    ],
)
def test_verdicts_of_real_logs(name: str, verdict: str) -> None:
    made = report(shared(f"logs/{name}.trainer_state.json"))
    assert made.analysis.verdict["id"] == verdict
    if name == "gallery_healthy_s42":
        assert "problem" not in ids(made).values()
    if name == "multi_eval_sets":
        assert "no_validation" not in ids(made)


def test_curve_leaves_out_what_is_not_finite(tmp_path: Path) -> None:
    log = read(write_run(tmp_path / "run", steps=40, nan=7))
    assert 7 not in curve(log.steps, "train_loss").steps
    assert len(curve(log.steps, "train_loss").values) == 39


def test_a_tiny_validation_set_is_told(tmp_path: Path) -> None:
    """5.3 examples a second for 1.5 s are 8; of 64 nothing is said, nor of 5,000 tokens."""
    rows: list[dict[str, Any]] = []
    for step in range(1, 61):
        rows.append({"step": step, "loss": 3 - step / 40})
        if step % 6 == 0:
            held = {"eval_runtime": 1.5, "eval_samples_per_second": 5.3}
            rows.append({"step": step, "eval_loss": 3 - step / 50, **held})
    file = tmp_path / "trainer_state.json"
    file.write_text(json.dumps({"global_step": 60, "log_history": rows}))
    made = report(file)
    found = made.analysis.finding("validation_doubtful")
    assert found is not None
    assert (found.severity, found.numbers) == ("info", {"held_out": 8})
    assert check(file, made.json)[0] == []
    file.write_text(file.read_text().replace('"eval_samples_per_second": 5.3', '"e": 43'))
    assert report(file).analysis.finding("validation_doubtful") is None
    run = write_run(tmp_path / "large", tokens={"train": 9000, "val": 5000})
    assert report(run).analysis.finding("validation_doubtful") is None
    small = report(write_run(tmp_path / "small", tokens={"train": 9000, "val": 999}))
    found = small.analysis.finding("validation_doubtful")
    assert found is not None
    assert found.numbers == {"held_out_tokens": 999}


def test_copies_in_the_validation_set_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    row = {"event": "warning", "step": 0, "epoch": 0.0, "tokens_seen": 0, "seconds": 0.0}
    row |= {"id": "data.near_copies", "text": "…", "numbers": {"count": 3, "total": 12}}
    file = run / "log.jsonl"
    file.write_text(file.read_text() + json.dumps(row) + "\n")
    made = report(run)
    found = made.analysis.finding("validation_doubtful")
    assert found is not None
    assert (found.severity, found.numbers) == ("warning", {"copied": 3, "total": 12})
    assert check(file, made.json)[0] == []
