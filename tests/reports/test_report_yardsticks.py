"""N-gram yardsticks: where a validation loss passes below them, on curves whose truth is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from markov import conditional_entropies, source
from report_checker import check
from report_runs import write_run

from yunque.data.ngrams import count, losses
from yunque.reports.report import report
from yunque.runlog import RunLog


def written(folder: Path, yardsticks: list[float], val: list[float], every: int = 10) -> Path:
    """A run whose evaluations are these."""
    keys = {f"ngram_{n}": loss for n, loss in enumerate(yardsticks, 1)}
    folder.mkdir()
    with RunLog(folder / "log.jsonl") as log:
        log.write("start", step=0, epoch=0.0, tokens_seen=0, seconds=0.0, ngram_tokens=900, **keys)
        for i, loss in enumerate(val):
            at = {"step": i * every, "epoch": i / 9, "tokens_seen": 5 * i, "seconds": 0.5 * i}
            log.write("step", **at, train_loss=loss)
            log.write("eval", **at, train_loss=loss, val_loss=loss)
    return folder


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("seed", range(4))
def test_crossings_of_a_markov_source(tmp_path: Path, order: int, seed: int) -> None:
    """The loss falls to the source's entropy; where it passes what each shorter context can do is
    known exactly, and found within one evaluation, with the noise of an evaluation on it."""
    table, ids = source(order, 4, 120_000, 100 * order + seed)
    counts = count(ids[:100_000], 4)
    found = [float(losses(counts, ids[100_000:], n).mean()) for n in range(1, 6)]
    truth = conditional_entropies(table, order, 4)
    random = np.random.default_rng(seed)
    steps = np.arange(0, 1001, 20)
    clean = truth[order] + (math.log(4) + 0.3 - truth[order]) * np.exp(-steps / 250)
    val = clean + random.normal(0, 0.002, len(clean))
    made = report(written(tmp_path / "run", found, val.tolist(), every=20))
    one = made.analysis.finding("ngram_yardstick")
    assert one is not None
    numbers = one.numbers
    for n in range(1, order + 1):
        # A context that helps by less than the loss's own noise has no crossing of its own.
        if truth[n - 1] - truth[order] < 0.02:
            continue
        crossed = int(steps[np.flatnonzero(clean < truth[n - 1])[0]])
        assert abs(numbers[f"step_{n}"] - crossed) <= 20, (n, numbers, crossed)


def test_what_it_says(tmp_path: Path) -> None:
    val = [4.0, 2.9, 3.1, 2.8, 2.5, 2.6, 3.3]
    run = written(tmp_path / "run", [3.0, 2.7, 2.45, 2.46, 2.47], val)
    made = report(run)
    one = made.analysis.finding("ngram_yardstick")
    assert one is not None
    assert one.text["en"] == (
        "Against models that only count what follows what (in 900 training tokens): From step 30 "
        "it predicts better than knowing how often each token occurs would (3.000). From step 40 "
        "it predicts better than knowing which token follows which would (2.700). It never "
        "predicted better than knowing which token follows each two would (2.450; its lowest "
        "validation loss is 2.500, at step 40)."
    )
    assert (
        "Desde el paso 40 predice mejor que sabiendo qué token sigue a cuál (2,700)."
        in (one.text["es"])
    )
    assert check(run / "log.jsonl", json.loads(json.dumps(made.json)))[0] == []
    names = [d["meta"]["name"]["en"] for d in figures_of(made)]
    assert names[-3:] == [f"counts of {n} in a row" for n in (1, 2, 3)]
    assert made.png()[:4] == b"\x89PNG"


def figures_of(made: object) -> list[dict]:
    from yunque.reports.charts import figures

    loss = figures(made.log, made.analysis)[0]  # type: ignore[attr-defined]
    assert loss["id"] == "loss"
    return loss["data"]


def test_longer_counts_that_are_worse_are_no_yardstick(tmp_path: Path) -> None:
    """On little text five tokens in a row say less than one: passing them is no progress."""
    made = report(written(tmp_path / "run", [3.0, 3.1, 3.2, 2.9, 3.3], [3.5, 2.0, 1.5, 1.4]))
    one = made.analysis.finding("ngram_yardstick")
    assert one is not None
    assert {k for k in one.numbers if k.startswith("step_")} == {"step_1", "step_4"}


def test_a_run_without_counts_has_no_yardstick(tmp_path: Path) -> None:
    assert report(write_run(tmp_path / "run")).analysis.finding("ngram_yardstick") is None


COPIED = {
    "copied_tokens": 400,
    "copied_of": 1000,
    "copied_samples": 6,
    "samples": 10,
    "copied_longest": 90,
    "copied_longest_step": 40,
    "copied_shortest": 8,
    "copied_searched": 54_321,
}
HELD_OUT = {
    "held_out_copied_tokens": 30,
    "held_out_of": 4000,
    "held_out_copied_pieces": 2,
    "held_out_pieces": 40,
    "held_out_longest": 11,
}


def stopped(folder: Path, **figures: int) -> Path:
    run = write_run(folder, stop=None, samples=("text",))
    with RunLog(run / "log.jsonl") as log:
        log.write(
            "stop", step=400, epoch=2.0, tokens_seen=1, seconds=1.0, reason="steps", **figures
        )
    return run


def test_a_model_that_recites(tmp_path: Path) -> None:
    made = report(stopped(tmp_path / "run", **COPIED, **HELD_OUT))
    one = made.analysis.finding("copied_text")
    assert one is not None
    assert one.severity == "warning"
    # 6 of 10 against 2 of 40: the hypergeometric tail, counted by hand.
    ways = math.comb(50, 10)
    tail = sum(math.comb(8, k) * math.comb(42, 10 - k) for k in (6, 7, 8)) / ways
    assert one.numbers["p_value"] == pytest.approx(tail, rel=1e-12)
    assert one.text["en"].startswith("The model recites: 40.0% of what it wrote stands word for")
    assert "0.8% stands there, 11 tokens at most" in one.text["en"].replace("0.75%", "0.8%")
    assert "(paso 40)" in one.text["es"]
    path = tmp_path / "run" / "log.jsonl"
    assert check(path, json.loads(json.dumps(made.json)))[0] == []
    assert "copied_text" not in {u["id"] for u in made.analysis.unknown}


def test_no_more_than_held_out_text_does(tmp_path: Path) -> None:
    calm = {**COPIED, "copied_samples": 1, "copied_tokens": 9, "copied_longest": 9}
    made = report(stopped(tmp_path / "run", **calm, **HELD_OUT))
    one = made.analysis.finding("copied_text")
    assert one is not None
    assert (one.severity, "recites" in one.text["en"]) == ("info", False)
    none = {**COPIED, "copied_samples": 0, "copied_tokens": 0, "copied_longest": 0}
    one = report(stopped(tmp_path / "none", **none)).analysis.finding("copied_text")
    assert one is not None
    assert one.text["en"].startswith("Nothing that the model wrote stands word for word")


def test_samples_that_nobody_compared_stay_unknown(tmp_path: Path) -> None:
    made = report(stopped(tmp_path / "run"))
    assert made.analysis.finding("copied_text") is None
    assert "copied_text" in {u["id"] for u in made.analysis.unknown}


def test_a_forecast_against_the_outcome(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "log.jsonl"
    told = '"parameters": 12345, "forecast": {"seconds": 160.0, "memory_bytes": 1600000000}'
    path.write_text(path.read_text().replace('"parameters": 12345', told))
    made = report(run)
    one = made.analysis.finding("forecast")
    assert one is not None
    assert (one.severity, one.numbers["times"]) == ("info", 1.25)
    assert one.numbers["memory_times"] == pytest.approx(2_000_000_400 / 1.6e9)
    assert "2 min 40 s; it took 3 min 20 s (1.25 times as long)" in one.text["en"]
    assert "(1,25 veces lo previsto)" in one.text["es"]
    assert check(path, json.loads(json.dumps(made.json)))[0] == []
    assert report(write_run(tmp_path / "none")).analysis.finding("forecast") is None
    path.write_text(path.read_text().replace('"reason": "steps"', '"reason": "interrupted"'))
    assert report(run).analysis.finding("forecast") is None
