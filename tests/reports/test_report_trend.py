"""Forecasts of runs that go on: how often the interval holds what came, and how wide it is."""

from __future__ import annotations

import numpy as np
import pytest
import report_truth as truth

from yunque.reports.curve import noise
from yunque.reports.trend import ahead, trend


def held(seeds: range, capsys: pytest.CaptureFixture[str]) -> tuple[int, int, int]:
    """(intervals that hold the evaluation that came, forecasts, runs), of runs cut early."""
    right = told = runs = 0
    widths = []
    for seed in seeds:
        run = truth.make(seed)
        if run.kind not in ("healthy", "spiked", "nan_once"):
            continue
        steps, values = run.eval_steps.astype(float), run.val
        cut = int(np.searchsorted(steps, steps[-1] / 1.5, side="right"))
        runs += 1
        found = ahead(steps[:cut], values[:cut], noise(steps[:cut], values[:cut]), 1.0)
        if found is None:
            continue
        came = float(np.interp(found.step, steps, values))
        told += 1
        right += found.low <= came <= found.high
        widths.append((found.high - found.low) / (values[0] - values[cut - 1]))
    with capsys.disabled():
        print(f"\nheld {right} of {told} forecasts, {runs} runs, width {np.median(widths):.4f}")
    return right, told, runs


def test_a_few_runs_that_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    right, told, runs = held(range(24), capsys)
    assert told >= runs // 4
    assert right >= told - 1


@pytest.mark.slow
def test_many_runs_that_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    right, told, runs = held(range(3000, 3300), capsys)
    assert told >= 0.5 * runs
    assert 0.85 * told <= right <= 0.95 * told


def test_a_power_of_the_step_is_found_again() -> None:
    """2 + 3·(1 + 40·u)^-0.6 with noise of 0.001, and where it is three times as far on."""
    steps = np.arange(10.0, 801.0, 10.0)
    exact = lambda s: 2 + 3 * (1 + 40 * s / 800) ** -0.6  # noqa: E731
    values = exact(steps) + np.random.default_rng(5).normal(0, 0.001, len(steps))
    found = trend(steps, values, np.array([800.0, 2400.0]))
    assert found is not None
    assert float(np.median(found.noise)) == pytest.approx(0.001, rel=0.25)
    for column, step in enumerate((800.0, 2400.0)):
        low, high = np.quantile(found.levels[:, column], [0.02, 0.98])
        assert low <= exact(step) <= high
        assert high - low < 0.05


def test_no_forecast_where_no_law_holds() -> None:
    """A loss in stairs, and one with a handful of points."""
    steps = np.arange(1.0, 101.0)
    stairs = 3 - np.floor(steps / 20) / 3 + np.random.default_rng(6).normal(0, 0.001, 100)
    assert ahead(steps, stairs, noise(steps, stairs), 1.0) is None
    assert ahead(steps[:5], stairs[:5], 0.001, 1.0) is None
