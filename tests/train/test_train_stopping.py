"""Early stopping as a pure value."""

from __future__ import annotations

import json
import math

from yunque.train.stopping import Stopping


def after(losses: list[float], patience: int = 2, min_change: float = 0.1) -> Stopping:
    value = Stopping(patience, min_change)
    for step, loss in enumerate(losses):
        value = value.seen(step * 10, loss)
    return value


def test_patience_counts_evaluations_without_enough_change() -> None:
    assert not after([3.0, 2.0, 2.0]).stop
    assert after([3.0, 2.0, 2.0, 2.0]).stop
    assert not after([3.0, 2.0, 2.0, 1.8]).stop


def test_small_falls_move_the_best_but_not_the_patience() -> None:
    value = after([3.0, 2.95, 2.92])
    assert value.stop
    assert (value.best_loss, value.best_step) == (2.92, 20)
    slow = after([3.0, 2.95, 2.85, 2.80])  # 2.85 undercuts 3.0 by more than 0.1
    assert not slow.stop


def test_the_best_is_the_lowest_ever_even_without_early_stopping() -> None:
    value = Stopping(1, 0.0, enabled=False)
    for step, loss in enumerate([2.0, 1.0, 5.0, 4.0]):
        value = value.seen(step, loss)
    assert not value.stop
    assert (value.best_loss, value.best_step) == (1.0, 1)


def test_losses_that_are_not_finite_never_count_as_better() -> None:
    value = after([math.nan, 2.0, math.nan, math.inf])
    assert value.stop
    assert (value.best_loss, value.best_step) == (2.0, 10)


def test_nothing_seen_is_none_and_fit_for_json() -> None:
    value = after([math.nan, math.inf])
    assert (value.best_loss, value.best_step, value.mark) == (None, -1, None)
    json.dumps(vars(value), allow_nan=False)
