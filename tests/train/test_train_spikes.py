"""What is usual, and what lies far above it: by hand."""

from __future__ import annotations

import math
from random import Random

from yunque.train.spikes import KEPT, LEAST, Recent


def filled(losses: list[float], norms: list[float]) -> Recent:
    recent = Recent()
    for loss, norm in zip(losses, norms, strict=True):
        recent = recent.seen(loss, norm)
    return recent


def test_limits_by_hand() -> None:
    # 0 … 40: median 20, the distances from it 0, 1, 1, … 20, 20, of which the median is 10.
    recent = filled([float(n) for n in range(41)], [5.0] * 41)
    loss, norm = recent.limits(10.0)
    assert loss == 20.0 + 10.0 * 1.4826 * 10.0
    assert norm == 5.0 + 10.0 * 0.01 * 5.0  # all alike: a hundredth of the median counts as noise


def test_nothing_is_judged_early_or_unasked() -> None:
    nothing = (math.inf, math.inf)
    assert filled([1.0] * (LEAST - 1), [1.0] * (LEAST - 1)).limits(4.0) == nothing
    assert filled([1.0] * LEAST, [1.0] * LEAST).limits(4.0) == (1.04, 1.04)
    assert filled([1.0] * LEAST, [1.0] * LEAST).limits(0.0) == nothing


def test_the_window_forgets_and_a_few_spikes_do_not_move_it() -> None:
    chance = Random(1)
    usual = [chance.gauss(3.0, 0.1) for _ in range(KEPT)]
    recent = filled([99.0] * 500 + usual, [99.0] * 500 + usual)
    assert recent == Recent(tuple(usual), tuple(usual))
    before = recent.limits(30.0)[0]
    after = filled(usual + [50.0] * 5, usual + [50.0] * 5).limits(30.0)[0]
    assert 5.0 < before < 7.0  # about 3 + 30 · 0.1
    assert abs(after / before - 1) < 0.05
