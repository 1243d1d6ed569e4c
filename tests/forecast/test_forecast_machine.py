"""Rates from timings, published machines, corrections by outcomes, the store."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from pathlib import Path

import pytest

from yunque.errors import InputError
from yunque.forecast import store
from yunque.forecast.history import Outcome, correction, from_json
from yunque.forecast.machine import PRIOR_RANGE, Machine, fitted, published

WORK = [[4.0, 1.0, 0.0], [1.0, 5.0, 1.0], [0.0, 2.0, 3.0], [6.0, 1.0, 1.0], [1.0, 1.0, 8.0]]


def seconds(factors: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, factors, strict=True)) for row in WORK]


def test_known_factors_are_found() -> None:
    assert fitted(WORK, seconds([2.0, 0.5, 3.0])) == pytest.approx([2.0, 0.5, 3.0], rel=1e-6)
    assert fitted(WORK, seconds([2.0, 0.0, 3.0])) == pytest.approx([2.0, 0.0, 3.0], abs=1e-6)


def test_no_rate_is_absurd_where_the_timings_are() -> None:
    true = [2.0, 0.5, 3.0]
    # Two of five pieces of work were held up, to three times their time.
    noisy = [t * late for t, late in zip(seconds(true), (1, 1, 3, 1, 3), strict=True)]
    assert fitted(WORK, noisy)[1] == 0.0  # no rate at all: what a busy machine makes of it
    held = fitted(WORK, noisy, true)
    assert all(t / PRIOR_RANGE <= x <= t * PRIOR_RANGE for x, t in zip(held, true, strict=True))
    # Good timings are hardly moved by a prior that is twice too high.
    kept = fitted(WORK, seconds(true), [2 * t for t in true])
    assert kept == pytest.approx(true, rel=0.05)


def test_published_machines_by_the_names_that_people_write() -> None:
    card = published("NVIDIA GeForce GTX 1050 Ti")
    assert (card.name, card.memory, card.measured) == ("GTX 1050 Ti 4GB", 4 * 2**30, False)
    assert published("h200").name == "H200 141GB"
    with pytest.raises(InputError, match=r"--on 'gtx 1050 tie': no such.*GTX 1050 Ti 4GB"):
        published("gtx 1050 tie")
    assert Machine.from_json(card.to_json()) == card


def simulated(count: int, seed: int) -> list[Outcome]:
    """Outcomes on a machine that is 1.3 times as slow as forecast, give or take 8 %."""
    drawn = random.Random(seed)
    return [
        Outcome("here", "full", 1.0, 1.3 * math.exp(drawn.gauss(0, 0.08)), 1e9, 1.1e9)
        for _ in range(count)
    ]


def test_a_small_run_that_came_below_what_the_program_takes_teaches_little() -> None:
    # 30 MB of tensors in a process of 330 MB, which took 315.
    small = Outcome("here", "full", 1.0, 1.0, 30e6, 15e6, 300e6)
    lower = Outcome("here", "full", 1.0, 1.0, 30e6, -5e6, 300e6)
    assert small.memory_ratio == pytest.approx(315 / 330)
    for known in (small, lower):
        found = correction([known] * 3, "here", "full", 1.0, 30e6, 0.12)
        assert 0.9 < found.memory_factor < 1.0
        assert found.memory_spread < 0.05
    # What was stored of something else is not learnt from.
    rows = [dataclasses.asdict(one) for one in (small, lower)]
    rows.append({**rows[0], "base": 0.0, "memory": 1.0})
    assert from_json(rows) == [small, lower]


def test_outcomes_make_the_next_forecast_better_and_intervals_hold() -> None:
    before, after, inside, tried = [], [], 0, 0
    for seed in range(200):
        known, then = simulated(20, seed), simulated(25, 1000 + seed)[-5:]
        first = correction([], "here", "full", 1.0, 1e9, 0.12)
        five = correction(known[:5], "here", "full", 1.0, 1e9, 0.12)
        many = correction(known, "here", "full", 1.0, 1e9, 0.12)
        for one in then:
            before.append(abs(math.log(first.time_factor / one.seconds)))
            after.append(abs(math.log(five.time_factor / one.seconds)))
            inside += abs(math.log(many.time_factor / one.seconds)) <= 1.645 * many.time_spread
            tried += 1
    assert statistics.mean(after) < 0.5 * statistics.mean(before)
    assert 0.85 <= inside / tried <= 0.95


def test_a_past_run_teaches_by_its_likeness_in_size() -> None:
    tiny = Outcome("here", "full", 0.01, 0.02, 4e6, 8e6)  # twice what was forecast
    same = correction([tiny] * 9, "here", "full", 0.01, 4e6, 0.12)
    assert same.time_factor == pytest.approx(2 ** (9 / 12))
    assert same.memory_factor == pytest.approx(2 ** (9 / 12))
    # 480 and 320 times as large: as if nothing had been run.
    large = correction([tiny] * 9, "here", "full", 4.8, 1.28e9, 0.12)
    assert large == correction([], "here", "full", 4.8, 1.28e9, 0.12)
    assert large.count == 0
    # Three times as large, in either direction: a run counts as 1 - log10(3) of one.
    weight = 9 * (1 - math.log10(3))
    for seconds in (0.03, 0.01 / 3):
        near = correction([tiny] * 9, "here", "full", seconds, 4e9, 0.12)
        assert near.time_factor == pytest.approx(2 ** (weight / (weight + 3)))
        assert near.memory_factor == 1.0
        assert near.count == 9


def test_outcomes_elsewhere_do_not_count() -> None:
    assert correction(simulated(5, 1), "there", "full", 1.0, 1e9, 0.12).time_factor == 1.0


def test_the_store_survives_broken_files_and_folders_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "folder", lambda: tmp_path / "kept")
    machine = dataclasses.replace(published("t4"), measured=True)
    assert store.kept_machine("key") is None
    store.keep_machine("key", machine)
    store.add_outcome(simulated(1, 1)[0])
    assert store.kept_machine("key") == machine
    assert store.outcomes() == simulated(1, 1)
    for text in ("{", "[]", '{"format": 1, "machines": {"key": {}}, "outcomes": [{}]}'):
        (tmp_path / "kept" / "machines.json").write_text(text)
        (tmp_path / "kept" / "outcomes.json").write_text(text)
        assert store.kept_machine("key") is None
        assert store.outcomes() == []
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(store, "folder", lambda: tmp_path / "file" / "below")
    store.keep_machine("key", machine)  # nothing is raised
    assert store.kept_machine("key") is None
    assert from_json([{"machine": "here"}, 3, None]) == []
