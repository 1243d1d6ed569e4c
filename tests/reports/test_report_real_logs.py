"""Real logs against a reading of their curves by eye, written down before the code ran on them."""

from __future__ import annotations

import pytest
from shared_data import shared

from yunque.reports.report import report

READING: dict[str, tuple[str, set[str]]] = {
    # 2.6955 → 0.057 on 53 examples, 250 passes, nothing held out; flat from about step 500;
    # linear warm-up to step 100, cosine to 0; 0.2402 is the mean; 334 epochs asked, 250 done;
    # the rate counts 16 examples in every update, also in the short one that ends a pass.
    "logs/seed_phi2_250ep.trainer_state.json": (
        "cannot_tell",
        {
            "no_validation",
            "memorisation_risk",
            "mean_is_not_last_loss",
            "schedule",
            "could_have_stopped",
            "plateau",
            "log_inconsistent",
        },
    ),
    # A summary only: the mean loss, no curve.
    "logs/seed_phi2_250ep.all_results.json": (
        "cannot_tell",
        {"too_short_to_judge", "mean_is_not_last_loss", "log_incomplete"},
    ),
    # Starts at 18.9, worse than any blind guess; flat at 5.8 from about step 120 of 300; one
    # gradient norm of 23 between 7 and 7. The curve cannot show that the labels were bad.
    "logs/gallery_bad_labels_s42.trainer_state.json": (
        "cannot_tell",
        {
            "no_validation",
            "abnormal_start_loss",
            "plateau",
            "schedule",
            "could_have_stopped",
            "mean_is_not_last_loss",
            "gradient_spike",
        },
    ),
    # 1.09 at step 15, then 15 while the rate warms up to 5e-3, 7.2 at the end; two infinite norms.
    "logs/gallery_fp16_nan_s42.trainer_state.json": (
        "diverged",
        {
            "diverged",
            "non_finite",
            "learning_rate_too_high",
            "no_validation",
            "schedule",
            "gradient_spike",
        },
    ),
    "logs/gallery_healthy_s42.trainer_state.json": ("cannot_tell", {"no_validation", "schedule"}),
    "logs/gallery_lr_hot_s42.trainer_state.json": (
        "diverged",
        {
            "diverged",
            "learning_rate_too_high",
            "no_validation",
            "schedule",
            "gradient_spike",
            "mean_is_not_last_loss",
        },
    ),
    "logs/gallery_lr_zero_s42.trainer_state.json": (
        "did_not_learn",
        {"learning_rate_zero", "no_validation"},
    ),
    # Validation 1.25 at step 30, 3.76 at the end; training 1.38 → 0.027 in 37.5 passes.
    "logs/gallery_overfit_s42.trainer_state.json": (
        "overfitted",
        {
            "overfitting",
            "best_step",
            "could_have_stopped",
            "schedule",
            "mean_is_not_last_loss",
            "memorisation_risk",
        },
    ),
    # Validation 1.35 → 0.91, lower each time; single gradient norms of 72, 29, 26 among ones.
    "logs/gemma_translation_3ep.trainer_state.json": (
        "worked",
        {"best_step", "schedule", "gradient_spike", "validation_doubtful"},  # 5 held-out examples
    ),
    "logs/lora_alpaca_3ep.trainer_state.json": ("cannot_tell", {"no_validation", "schedule"}),
    # Flat but for its first two rows; 7.2e10 FLOPs for 512 examples are too few for a model.
    "logs/metamath_1ep.trainer_state.json": (
        "cannot_tell",
        {"no_validation", "schedule", "log_inconsistent"},
    ),
    # Validation 3.40 → 2.05, still falling where it stops at step 7,000 of 9,411; training starts
    # at 25.5 and lies above validation throughout. 0.779 held-out examples a second for 25.7 s: 20.
    "logs/mt5_summarize_70evals.trainer_state.json": (
        "worked",
        {
            "best_step",
            "still_improving",
            "log_incomplete",
            "schedule",
            "abnormal_start_loss",
            "losses_not_comparable",
            "validation_doubtful",
        },
    ),
    # Six held-out sets, all lowest after one or two of 30 passes, all at double that at the end.
    "logs/multi_eval_sets.trainer_state.json": (
        "overfitted",
        {"overfitting", "best_step", "could_have_stopped", "memorisation_risk", "schedule"},
    ),
    # 2.09 → 0.07 in 20 passes, constant rate, nothing held out.
    "logs/tfm_lora_20ep.trainer_state.json": (
        "cannot_tell",
        {
            "no_validation",
            "memorisation_risk",
            "schedule",
            "mean_is_not_last_loss",
            "could_have_stopped",
        },
    ),
    # 12.2 → 2.31 over 42,509 steps, one column.
    "logs/csv/trackio_wandb_style_export.csv": ("cannot_tell", {"no_validation"}),
    # Validation 1.552 at step 4,500 (end of pass 2), 1.578 at the end; the training loss falls by
    # a stair at each new pass.
    "logs/jsonl/llamafactory_medical_trainer_log.jsonl": (
        "overfitted",
        {"overfitting", "best_step", "could_have_stopped", "schedule", "epoch_staircase"},
    ),
    # Validation 10.97 → 3.276, falling to the end.
    "logs/text/modded_nanogpt_adamw.log": ("worked", {"best_step", "still_improving"}),
    # Validation 9.2 near step 120, 16.2 at the end; training 7.9 → 2.8; the first validation loss
    # is a third above the first training loss.
    "logs/tensorboard/events.out.tfevents.1772206357.InfinityGear.2772.0": (
        "overfitted",
        {
            "overfitting",
            "best_step",
            "could_have_stopped",
            "schedule",
            "losses_not_comparable",
        },
    ),
    # The program's messages and a traceback: no step, no loss.
    "logs/tensorboard/fish_train.log": ("cannot_tell", {"not_a_training_log"}),
}
"""Log → verdict and findings (speed and memory, which describe the machine, aside)."""

ASIDE = {"throughput", "memory"}


@pytest.mark.parametrize("name", sorted(READING))
def test_verdict_as_read_by_eye(name: str) -> None:
    made = report(shared(name))
    assert made.json["verdict"]["id"] == READING[name][0]


def test_findings_as_read_by_eye(capsys: pytest.CaptureFixture[str]) -> None:
    """Macro-F1 over the finding ids that occur in either."""
    hits: dict[str, list[int]] = {}
    lines = []
    for name, (_, expected) in READING.items():
        got = {f["id"] for f in report(shared(name)).json["findings"]} - ASIDE
        lines += [f"{name}: missing {expected - got or '-'}, more {got - expected or '-'}"]
        for id in got | expected:
            row = hits.setdefault(id, [0, 0, 0])
            row[0] += id in got & expected
            row[1] += id in got - expected
            row[2] += id in expected - got
    scores = {id: 2 * t / (2 * t + f + m) for id, (t, f, m) in hits.items()}
    macro = sum(scores.values()) / len(scores)
    with capsys.disabled():
        print("", *lines, f"macro-F1 {macro:.3f}", scores, sep="\n")
    assert macro >= 0.95


def test_no_problem_in_the_healthy_run() -> None:
    found = report(shared("logs/gallery_healthy_s42.trainer_state.json")).json["findings"]
    assert "problem" not in {f["severity"] for f in found}
