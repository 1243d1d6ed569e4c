"""What past forecasts on a machine came to: the next one is corrected by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KEPT = 50
"""Outcomes that are kept and counted, the newest."""
OTHER_METHOD = 0.5
"""Weight of an outcome of another method beside one of the same."""
PRIOR = 3.0
"""As how many outcomes the uncorrected forecast counts: single runs of one machine lie further
apart than its forecasts lie from its mean (docs/lab-notes.md, "Time forecast against outcome, once
more")."""
MEMORY_SPREAD = 0.031
"""Standard deviation of the logarithm of outcome / forecast of the peak memory, before there are
outcomes: that of the runs of docs/lab-notes.md, each left out of the fit in turn."""
GUESSED_MEMORY_SPREAD = 0.12
"""The same on a machine that is known by its published figures only: its allocator and kernels
are not measured."""
SPARE = 1.043
"""What must stay free above the interval before a run is said to fit: no measured run, left out of
the fit, came higher."""
LEAST_SPREAD = 0.02
MOST_OFF = 2.0
"""Times a forecast of the memory that an outcome may be to be learnt from."""


@dataclass(frozen=True)
class Outcome:
    """One run: what was forecast before any correction, and what it came to."""

    machine: str
    method: str
    """pretrain, full, lora or qlora."""
    forecast_seconds: float
    """Of one update."""
    seconds: float
    """The median of its updates."""
    forecast_memory: float
    """Bytes above what was taken before the first tensor."""
    memory: float
    """The same of the peak; below 0 where the program itself took less than was thought."""
    base: float = 0.0
    """What was thought to be taken before the first tensor."""

    @property
    def memory_ratio(self) -> float:
        """Outcome / forecast of the whole process: of a small model alone it would be noise."""
        return (self.base + self.memory) / (self.base + self.forecast_memory)


@dataclass(frozen=True)
class Correction:
    """Factors on a forecast, and how far outcomes lie around it."""

    time_factor: float = 1.0
    memory_factor: float = 1.0
    time_spread: float = 0.0
    """Standard deviation of the logarithm; 0: that of the machine's rates."""
    memory_spread: float = MEMORY_SPREAD
    count: int = 0


def correction(
    outcomes: Sequence[Outcome],
    machine: str,
    method: str,
    seconds: float,
    memory: float,
    spread: float,
    memory_spread: float = MEMORY_SPREAD,
) -> Correction:
    """The correction for a run of `method` on `machine`.

    The factor is the geometric mean of outcome / forecast, each counting by how much it is like
    this run (`likeness`) and those of the same method twice, drawn towards 1 as if PRIOR more runs
    had come out exactly as forecast.

    Args:
        seconds, memory: the uncorrected forecast of this run, as in `Outcome`.
        spread, memory_spread: of forecasts of time and memory on this machine without any outcome.
    """
    here = [one for one in outcomes if one.machine == machine][-KEPT:]
    methods = [1.0 if one.method == method else OTHER_METHOD for one in here]
    alike = [likeness(one.forecast_seconds, seconds) for one in here]
    alike_memory = [likeness(one.forecast_memory, memory) for one in here]
    time_factor, time_spread = drawn(
        [one.seconds / one.forecast_seconds for one in here],
        [a * b for a, b in zip(methods, alike, strict=True)],
        spread,
    )
    memory_factor, memory_around = drawn(
        [one.memory_ratio for one in here],
        [a * b for a, b in zip(methods, alike_memory, strict=True)],
        memory_spread,
    )
    # Never narrower than before: past runs do not tell how the heap takes another shape.
    memory_around = max(memory_around, memory_spread)
    count = sum(max(pair) > 0 for pair in zip(alike, alike_memory, strict=True))
    return Correction(time_factor, memory_factor, time_spread, memory_around, count)


def likeness(past: float, now: float) -> float:
    """How much a run of another size teaches: 1 at the same size, 0 from ten times on.

    The time of a small model is that of calls, that of a large one of products: what the forecast
    of the one misses says little of the other.
    """
    if now <= 0:
        return 0.0
    return max(0.0, 1.0 - abs(math.log10(past / now)))


def drawn(
    ratios: Sequence[float], weights: Sequence[float], prior_spread: float
) -> tuple[float, float]:
    """(factor, spread) of weighted ratios outcome / forecast and of PRIOR ratios of 1."""
    logs = [math.log(ratio) for ratio in ratios]
    total = sum(weights)
    mean = sum(w * x for w, x in zip(weights, logs, strict=True)) / (total + PRIOR)
    # The spread before any outcome counts as PRIOR of them.
    squares = sum(w * (x - mean) ** 2 for w, x in zip(weights, logs, strict=True))
    var = (squares + PRIOR * prior_spread**2) / (total + PRIOR)
    return math.exp(mean), max(LEAST_SPREAD, math.sqrt(var))


def from_json(rows: Any) -> list[Outcome]:
    """Outcomes as they were kept; what is of another form is left out."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        try:
            one = Outcome(**row)
        except TypeError:
            continue
        sizes = (one.forecast_seconds, one.seconds, one.forecast_memory, one.base + one.memory)
        # No forecast was ever off by so much: where an outcome is, something else was measured.
        if min(sizes) > 0 and 1 / MOST_OFF < one.memory_ratio < MOST_OFF:
            found.append(one)
    return found
