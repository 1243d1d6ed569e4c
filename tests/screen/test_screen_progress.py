"""Smoothing, time left and the curve, against numbers made by hand."""

from __future__ import annotations

import pytest

from yunque.screen import curve
from yunque.screen.progress import Pace, Progress, Series


def test_time_left_without_evaluations() -> None:
    pace = Pace()
    assert pace.seconds_left(100) is None
    pace.step(1, 10.0)  # ten seconds of start-up count for nothing
    assert pace.seconds_left(100) is None
    for step in range(2, 12):
        pace.step(step, 10.0 + 0.5 * (step - 1))
    assert pace.seconds_left(100) == pytest.approx(89 * 0.5)


def test_a_slow_step_does_not_move_the_time_left() -> None:
    pace = Pace()
    seconds = 0.0
    for step in range(1, 12):
        seconds += 60.0 if step == 6 else 0.5
        pace.step(step, seconds)
    assert pace.seconds_left(100) == pytest.approx(89 * 0.5)


def test_time_left_counts_the_evaluations_to_come() -> None:
    """0.2 s a step, 3 s an evaluation, every 10 steps: at step 25 of 100 there are 75 steps and
    the evaluations at 30, 40 … 100, which is 8: 75 · 0.2 + 8 · 3 = 39."""
    pace = Pace()
    pace.evaluation(0)
    seconds = 3.0
    for step in range(1, 26):
        seconds += 0.2
        pace.step(step, seconds)
        if step % 10 == 0:
            seconds += 3.0
            pace.evaluation(step)
    assert pace.seconds_left(100) == pytest.approx(39.0)


def test_time_left_with_rows_every_ten_steps() -> None:
    """Rows at 10, 20 …, evaluations of 4 s at 50 and 100: 300 steps and 6 evaluations are left."""
    pace = Pace()
    for step in range(10, 101, 10):
        pace.step(step, 0.1 * step + (4.0 if step > 50 else 0.0))
        if step in (50, 100):
            pace.evaluation(step)
    assert pace.seconds_left(400) == pytest.approx(300 * 0.1 + 6 * 4.0)


def test_time_left_is_zero_at_the_end() -> None:
    pace = Pace()
    for step in (1, 2, 3):
        pace.step(step, float(step))
    assert pace.seconds_left(3) == 0.0


def test_smoothed_loss_is_the_mean_of_the_last_twenty_finite_rows() -> None:
    progress = Progress()
    for step in range(1, 31):
        progress.step({"step": step, "train_loss": float(step)})
    assert progress.smooth_loss == sum(range(11, 31)) / 20
    progress.step({"step": 31, "train_loss": None})
    progress.step({"step": 32, "train_loss": float("nan")})
    assert progress.smooth_loss == sum(range(11, 31)) / 20
    assert progress.train.points()[-1] == (30.0, 30.0)


def test_a_series_stays_small_and_keeps_the_mean() -> None:
    series = Series(limit=64)
    for step in range(1000):
        series.append(step, 2.0 * step)
    points = series.points()
    assert len(points) <= 65
    assert all(value == 2.0 * step for step, value in points)  # a line stays a line
    assert points[0][0] == pytest.approx(7.5)  # 1000 / 64 → 16 rows a point, 0 … 15
    assert points[-1][0] > 980


def test_best_step_follows_the_caller() -> None:
    progress = Progress()
    for step, loss, best in ((0, 4.0, True), (100, 2.0, True), (200, 3.0, False)):
        progress.evaluation({"step": step, "train_loss": 1.0, "val_loss": loss}, best)
    assert (progress.best_loss, progress.best_step, progress.val_loss) == (2.0, 100, 3.0)


def text_of(cells: list[list[curve.Cell]]) -> list[str]:
    return ["".join(c for c, _ in line) for line in cells]


def test_a_rising_line_in_braille() -> None:
    """Two cells of 2 x 4 dots, values 0, 1, 2, 3: one dot row a column, from the bottom up."""
    cells = curve.draw([(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)], [], columns=2, rows=1)
    # Dots from the top: left column 1 2 3 7, right column 4 5 6 8 of the braille cell.
    assert text_of(cells) == [chr(0x2800 + 0x40 + 0x20) + chr(0x2800 + 0x02 + 0x08)]


def test_a_jump_is_joined_and_a_gap_is_crossed() -> None:
    cells = curve.draw([(0, 0.0), (3, 1.0)], [], columns=2, rows=2)
    dots = sum(bin(ord(c) - 0x2800).count("1") for line in text_of(cells) for c in line if c != " ")
    assert dots == 8  # every one of the eight dot rows once: an unbroken line


def test_validation_is_another_character_in_its_place() -> None:
    train = [(s, 4.0 - s / 25) for s in range(101)]
    cells = curve.draw(train, [(0, 4.0), (50, 2.0), (100, 0.0)], columns=11, rows=5)
    marks = [(y, x) for y, line in enumerate(cells) for x, (c, k) in enumerate(line) if k == "val"]
    assert all(cells[y][x][0] == "o" for y, x in marks)
    assert [x for _, x in marks] == [0, 5, 10]
    assert marks[0][0] == 0
    assert marks[2][0] == 4


def test_the_untrained_loss_does_not_set_the_top() -> None:
    train = [(0.0, 11.0), *((float(s), 3.0 - s / 100) for s in range(1, 101))]
    assert curve.limits(train, [(0.0, 11.0)]) == pytest.approx((2.0, 2.96))
    assert curve.limits([(0, 2.0), (1, 2.0)], []) == (1.5, 2.5)
    assert curve.limits([(0, 9.0), (100, 2.0)], []) == (2.0, 9.0)


@pytest.mark.parametrize("columns", [1, 20, 195])
def test_the_curve_has_the_size_asked_for(columns: int) -> None:
    cells = curve.draw([(5, 1.0)], [(5, 1.0)], columns, 3)
    assert [len(line) for line in cells] == [columns] * 3


def test_before_steps_are_seen_the_forecast_says_what_is_left() -> None:
    """0.5 s a step and 10 evaluations of 2 s: 100 steps take 70 s, and half of them 35."""
    pace = Pace()
    pace.expect(0.5, 2.0, 10)
    assert pace.seconds_left(100) == pytest.approx(100 * 0.5 + 10 * 2.0)
    pace.step(50, 30.0)
    assert pace.seconds_left(100) == pytest.approx(50 * 0.5 + 5 * 2.0)


def test_the_forecast_counts_less_with_every_step_and_then_not_at_all() -> None:
    pace = Pace()
    pace.expect(0.5, 0.0, 10)
    pace.step(1, 1.0)
    for step in range(2, 7):  # five of twenty
        pace.step(step, float(step))
    assert pace.seconds_left(100) == pytest.approx(94 * (0.75 * 0.5 + 0.25 * 1.0))
    for step in range(7, 31):
        pace.step(step, float(step))
    assert pace.seconds_left(100) == pytest.approx(70.0)


def test_a_run_hands_its_forecast_to_the_time_left() -> None:
    progress = Progress()
    told = {"update_seconds": 0.25, "evaluation_seconds": 1.0, "evaluations": 2}
    progress.start({"steps": 40, "forecast": told})
    assert progress.pace.seconds_left(40) == pytest.approx(40 * 0.25 + 2)
    unknown = Progress()
    unknown.start({"steps": 40, "forecast": {"update_seconds": None}})
    assert unknown.pace.seconds_left(40) is None
