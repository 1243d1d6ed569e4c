"""Spikes as a pure value: what losses and gradient norms were lately, and what is far above."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

KEPT = 128
"""Updates that say what is usual."""
LEAST = 32
"""Updates before which nothing is judged."""
FLOOR = 0.01
"""A deviation is at least this share of the median, however even the values were."""


@dataclass(frozen=True)
class Recent:
    """Losses and gradient norms of the last `KEPT` updates that were applied, the oldest first."""

    losses: tuple[float, ...] = ()
    """Nats per token."""
    grad_norms: tuple[float, ...] = ()
    """Before clipping."""

    def seen(self, loss: float, grad_norm: float) -> Recent:
        """The value after an update that was applied."""
        return Recent((*self.losses, loss)[-KEPT:], (*self.grad_norms, grad_norm)[-KEPT:])

    def limits(self, deviations: float) -> tuple[float, float]:
        """Loss and gradient norm above which the next update is a spike.

        Args:
            deviations: how many robust deviations above the median; 0: nothing is one.

        Source: the rule of OLMo-core's SkipStepOptimizer (mean and standard deviation of the last
        128 losses and gradient norms); median and median absolute deviation instead, which the
        spikes themselves do not move.
        """
        if not deviations or len(self.losses) < LEAST:
            return math.inf, math.inf
        return highest(self.losses, deviations), highest(self.grad_norms, deviations)


def highest(values: tuple[float, ...], deviations: float) -> float:
    """Median and so many robust deviations; 1.4826 makes these a normal distribution's own."""
    middle = median(values)
    deviation = 1.4826 * median([abs(value - middle) for value in values])
    return middle + deviations * max(deviation, FLOOR * abs(middle))
