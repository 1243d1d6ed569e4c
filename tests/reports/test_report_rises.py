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
    [
        [1.6, 1.3, 1.25, 1.5, 1.9],
        [1.6, 1.3, 1.25, 1.35, 1.5],
        [1.6, 1.3, 1.25, 1.5, 1.9, 2.2],
        [2.26, 2.1, 2.13, 2.19, 2.27],
    ],
)
def test_five_evaluations_show_overfitting(tmp_path: Path, val: list[float]) -> None:
    made = short(tmp_path / "l.jsonl", TRAIN[: len(val)], val)
    assert verdict(made) == "overfitted"
    over = made.analysis.finding("overfitting")
    assert over is not None
    assert over.numbers["rise"] == pytest.approx(val[-1] - min(val))


@pytest.mark.parametrize(
    "val",
    [[1.6, 1.3, 1.25, 1.26, 1.27], [1.6, 1.3, 1.25, 1.27, 1.26], [1.3, 1.25, 1.28, 1.24, 1.2]],
)
def test_a_small_rise_in_five_evaluations_shows_none(tmp_path: Path, val: list[float]) -> None:
    made = short(tmp_path / "l.jsonl", TRAIN[: len(val)], val)
    assert verdict(made) != "overfitted"
    assert made.analysis.finding("overfitting") is None


def test_five_rows_of_which_both_losses_rise_are_no_overfitting(tmp_path: Path) -> None:
    made = short(tmp_path / "l.jsonl", [1.9, 1.2, 0.9, 1.6, 2.4], [1.6, 1.3, 1.25, 1.7, 2.4])
    assert verdict(made) == "cannot_tell"
    assert made.analysis.finding("overfitting") is None
    found = made.analysis.finding("ended_worse")
    assert found is not None
    assert (found.severity, found.numbers["last"]) == ("problem", 2.4)


@pytest.mark.parametrize(
    ("val", "told"),
    [([1.1, 0.9, 1.6], True), ([1.1, 0.9, 0.95], False), ([1.1, 1.6], True), ([1.1, 1.15], False)],
)
def test_two_or_three_evaluations(tmp_path: Path, val: list[float], told: bool) -> None:
    rows: list[dict[str, Any]] = curve(600, 0, lambda step: 2 - step / 400)
    rows += [{"step": 600 * i // len(val), "eval_loss": v} for i, v in enumerate(val, 1)]
    made = log(tmp_path / "l.jsonl", sorted(rows, key=lambda row: row["step"]))
    assert verdict(made) == "cannot_tell"
    assert (made.analysis.finding("ended_worse") is not None) is told


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
    # A last value that gave back a tenth is told, but the run had worked.
    rows[-1]["eval_loss"] = 2.35
    made = log(tmp_path / "m.jsonl", rows)
    assert verdict(made) == "worked"
    assert "ended at 2.350 (step 2,000)" in made.json["verdict"]["text"]["en"]
    assert made.analysis.finding("ended_worse") is not None


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


def rated(rows: list[dict[str, Any]], rate: Any) -> list[dict[str, Any]]:
    """The rows with a learning rate each, which is a function of the step."""
    return [{**r, "learning_rate": rate(r["step"])} if "loss" in r else r for r in rows]


def test_a_fall_in_the_decay_of_the_rate_is_no_missing_training(tmp_path: Path) -> None:
    def level(step: int) -> float:
        return 3 + 3 * math.exp(-step / 400) - 0.9 * max(0, step - 3200) / 800

    def decay(step: int) -> float:
        return 3e-4 * min(1.0, (4000 - step) / 800)

    rows = curve(4000, 200, level)
    assert verdict(log(tmp_path / "a.jsonl", rated(rows, lambda step: 3e-4))) == "undertrained"
    made = log(tmp_path / "b.jsonl", rated(rows, decay))
    assert verdict(made) == "worked"
    found = made.analysis.finding("still_improving")
    assert found is not None
    assert "had gone to its end by then, 0 at step 4,000" in found.text["en"]
    assert "ahead_step" not in found.numbers


def test_a_straight_fall_under_a_finished_rate_is_too_short_all_the_same(tmp_path: Path) -> None:
    rows = curve(1000, 100, lambda step: 6 - 3 * step / 1000)
    made = log(tmp_path / "l.jsonl", rated(rows, lambda step: 1e-4 * (1000 - step) / 1000))
    assert verdict(made) == "undertrained"


def test_a_log_that_ends_in_the_warm_up(tmp_path: Path) -> None:
    rows = curve(400, 20, lambda step: 11 - step / 100)
    made = log(tmp_path / "l.jsonl", rated(rows, lambda step: 1e-6 * step))
    plan, still = (made.analysis.finding(id) for id in ("schedule", "still_improving"))
    assert plan is not None
    assert plan.text["en"].endswith("up to 4.0e-04 at step 400: the log ends in the warm-up.")
    assert still is not None
    assert "ahead_step" not in still.numbers
    flat = log(tmp_path / "f.jsonl", rated(rows, lambda step: 1e-6 * min(step, 370)))
    plan = flat.analysis.finding("schedule")
    assert plan is not None
    assert plan.numbers["form"] == "constant"


def test_a_run_that_never_beat_counting_has_not_worked(tmp_path: Path) -> None:
    """By validation 4.3 to about 1.1: above a unigram count of 1.0, or a bigram count of 1.0."""
    counts = {"ngram_tokens": 1000, "ngram_1": 1.0, "ngram_2": 0.9, "ngram_3": 0.8, "ngram_4": 0.7}
    for order, more, key in ((1, {}, "each token occurs"), (2, {"ngram_1": 2.0}, "which token")):
        made = report(write_run(tmp_path / str(order), **{**counts, "ngram_5": 0.6, **more}))
        assert verdict(made) == "undertrained"
        assert "The model learned, but less than a count of " in made.json["verdict"]["text"]["en"]
        assert key in made.json["verdict"]["text"]["en"]
    beaten = {**counts, "ngram_1": 2.0, "ngram_2": 1.5}
    assert verdict(report(write_run(tmp_path / "3", **beaten, ngram_5=0.6))) == "worked"


def test_a_second_held_out_set_that_rises_is_named(tmp_path: Path) -> None:
    rows = curve(2000, 0, lambda step: 1.1 + math.exp(-step / 500))
    for step in range(200, 2001, 200):
        fall = 1.2 + math.exp(-step / 500)
        rows.append(
            {"step": step, "eval_g0_loss": fall, "eval_g1_loss": 1.0 + abs(step - 600) / 900}
        )
        rows.append({"step": step, "eval_g2_loss": fall})
    made = log(tmp_path / "l.jsonl", rows)
    assert verdict(made) == "worked"
    found = made.analysis.finding("other_set_rose")
    assert found is not None
    assert (found.numbers["set"], found.numbers["step"]) == ("eval_g1_loss", 600)
    assert (found.numbers["others"], found.numbers["rose"]) == (2, 1)
    assert "Not so on eval_g1_loss" in made.json["verdict"]["text"]["en"]


def test_a_validation_loss_that_follows_to_zero_is_suspect(tmp_path: Path) -> None:
    for passes, lowest, found in ((40, 0.02, True), (3, 0.02, False), (40, 0.9, False)):
        rows = [
            {**row, "epoch": passes * row["step"] / 2000}
            for row in curve(2000, 50, lambda step, low=lowest: low + 4 * math.exp(-step / 250))
        ]
        for row in rows:
            if "eval_loss" in row:
                row["eval_loss"] -= 0.1
        made = log(tmp_path / "l.jsonl", [r for r in rows if r.get("loss", 1) > 0])
        doubt = made.analysis.finding("validation_doubtful")
        assert (doubt is not None and doubt.severity == "warning") is found


def test_a_validation_loss_that_never_moves(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = curve(2000, 100, lambda step: 2 + 2 * math.exp(-step / 300))
    for row in rows:
        if "eval_loss" in row:
            row["eval_loss"] = 3.9 + random.normal(0, 0.005)
    made = log(tmp_path / "l.jsonl", rows)
    assert verdict(made) == "did_not_learn"
    assert "never moved: all of its values (20)" in made.json["verdict"]["text"]["en"]
    assert made.json["stop"] is None


def test_noise_that_goes_on_from_row_to_row_is_no_fall(tmp_path: Path) -> None:
    """An autoregressive loss about 4: its ends differ by chance alone."""
    learned = 0
    for seed in range(10):
        random, rows, off = np.random.default_rng(seed), [], 0.0
        for step in range(10, 2001, 10):
            off = 0.7 * off + random.normal(0, 0.45)
            rows.append({"step": step, "loss": 4 + off, "learning_rate": 0.05})
        made = log(tmp_path / "l.jsonl", rows)
        learned += verdict(made) != "did_not_learn"
    assert learned <= 1


def rewarded(file: Path, level: Any) -> Report:
    random = np.random.default_rng(3)
    rows = [
        {"step": s, "loss": random.normal(0, 0.01), "reward": level(s) + random.normal(0, 0.03)}
        for s in range(1, 401)
    ]
    return log(file, rows)


def test_a_reward_that_collapses_is_told(tmp_path: Path) -> None:
    made = rewarded(tmp_path / "a.jsonl", lambda s: 0.7 - 0.6 * s / 400)
    assert verdict(made) == "diverged"
    assert (
        "reward fell: from 0.6728 to 0.1205 (medians of the first and the last 40"
        in made.json["verdict"]["text"]["en"]
    )
    there_and_back = rewarded(tmp_path / "b.jsonl", lambda s: 0.2 + 0.5 * math.sin(s / 130))
    assert verdict(there_and_back) == "diverged"
    assert "at its highest (step 2" in there_and_back.json["verdict"]["text"]["en"]
    for level in (lambda s: 0.2 + 0.5 * s / 400, lambda s: 0.7, lambda s: 0.7 - 0.1 * s / 400):
        assert verdict(rewarded(tmp_path / "c.jsonl", level)) == "cannot_tell"


def test_preferred_answers_that_become_less_likely(tmp_path: Path) -> None:
    rows = [
        {
            "step": s,
            "loss": 0.7 * math.exp(-s / 200),
            "rewards/chosen": -s / 100,
            "rewards/rejected": -s / 40,
            "rewards/margins": s / 40 - s / 100,
        }
        for s in range(10, 601, 10)
    ]
    made = log(tmp_path / "l.jsonl", rows)
    found = made.analysis.finding("reward_fell")
    assert found is not None
    assert (found.severity, found.numbers["name"]) == ("info", "rewards/chosen")


def test_a_loss_that_is_nan_at_its_end_is_not_still_falling(tmp_path: Path) -> None:
    rows = curve(500, 0, lambda step: 3 + 2 * math.exp(-step / 200))
    rows = [{**r, "loss": math.nan} if r["step"] >= 300 else r for r in rows]
    made = log(tmp_path / "l.jsonl", rows)
    assert verdict(made) == "diverged"
    assert "that is a number is " in made.json["verdict"]["text"]["en"]
    assert "(step 290)" in made.json["verdict"]["text"]["en"]
    assert made.analysis.finding("still_improving") is None


def test_what_still_falls_was_not_bought_for_nothing(tmp_path: Path) -> None:
    rows = curve(2000, 0, lambda step: 1 + 3.4 * math.exp(-step / 300), noise=0.02)
    made = log(tmp_path / "l.jsonl", rows)
    assert made.analysis.finding("still_improving") is not None
    assert made.analysis.finding("could_have_stopped") is None
    assert made.json["stop"] is None


def test_evaluations_that_fall_one_by_one_are_as_they_stand(tmp_path: Path) -> None:
    val = [1.6, 1.4, 1.3, 1.25, 1.27, 1.33, 1.42, 1.53, 1.66, 1.8]
    made = short(tmp_path / "l.jsonl", [1.9 * 0.7**i for i in range(10)], val)
    assert made.json["stop"]["step"] == 4
    made = short(
        tmp_path / "m.jsonl", [2 * 0.9**i for i in range(9)], [2 * 0.99**i for i in range(9)]
    )
    assert made.json["stop"]["step"] == 9
