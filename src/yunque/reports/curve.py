"""One series of a log as a curve: its noise, its level, whether it fell.

Noise is estimated from the series itself. A curve is said to have moved only where it moved by
more than the noise of its points explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from yunque.reports.log import Record

SIGMAS = 4.0
"""A change counts from here on: by chance alone 1 in 30,000 where noise is normal."""
SMALL_SHARE = 0.01
"""A part of the whole improvement that is nothing to act on, however exact the curve is."""
NEGLIGIBLE = 0.002
"""A part of a loss that nobody would train on for."""


@dataclass(frozen=True)
class Curve:
    """The finite values of one series over the steps."""

    name: str
    rows: tuple[Record, ...]
    steps: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    noise: float
    """Robust standard deviation of one point around its neighbours; nan below 3 points."""
    smooth: np.ndarray = field(repr=False)
    """Running median over a tenth of the points (101 at most), so that one batch is no event."""
    width: int
    """Points in that median."""

    @property
    def lowest(self) -> int:
        """Index of the lowest value, the first of equals."""
        return int(np.argmin(self.values))

    def moved(self, change: float, points: float = 1.0, sigmas: float = SIGMAS) -> bool:
        """Whether a change between means, worth `points` single points, is beyond the noise."""
        return len(self.values) >= 3 and change > sigmas * self.noise / math.sqrt(points)

    def first_as_good(self) -> int:
        """First index whose level is the lowest one, but for what noise or rounding explains.

        The curve is first made to fall only (isotonic regression), which takes most of its noise
        away where it is flat and keeps its bends.
        """
        end = self.lowest_level
        level = falling(self.values[: end + 1])
        slack = NEGLIGIBLE * abs(float(level[-1]))
        if len(self.values) >= 8:
            half = len(self.values) // 2
            quiet = min(self.noise, noise(self.steps[half:], self.values[half:]))
            slack = max(slack, 2 * quiet / math.sqrt(self.width))
        # Noise alone makes k falls in a row once in (k + 1)! times: where the last three points
        # before the lowest one fall towards it, the lowest one is no luck.
        last = self.values[max(0, self.lowest - 3) : self.lowest + 1]
        if self.width == 1 and len(last) == 4 and np.all(np.diff(last) < 0):
            return self.lowest
        return int(np.flatnonzero(level <= level[-1] + slack)[0])

    @property
    def lowest_level(self) -> int:
        """Index of the minimum of the curve behind the noise: the bottom of a parabola."""
        return bottom(self.values, self.noise)


def curve(rows: tuple[Record, ...], name: str) -> Curve:
    """The series `name` of these rows, without the rows where it is missing or not finite."""
    pairs = [(row, value) for row in rows if (value := row.number(name)) is not None]
    kept = tuple(row for row, _ in pairs)
    steps = np.array([row.step for row in kept], dtype=float)
    values = np.array([value for _, value in pairs], dtype=float)
    width = min(101, 2 * (len(values) // 20) + 1)
    return Curve(name, kept, steps, values, noise(steps, values), median(values, width), width)


def noise(steps: np.ndarray, values: np.ndarray) -> float:
    """Standard deviation of a point about the line between its neighbours, by the median.

    Where the noise of points is independent, x[i] less the interpolation has the variance
    s²·(1 + w² + (1-w)²). A bend of the curve adds to it: the estimate is high, never low.
    """
    if len(values) < 3:
        return math.nan
    gap = np.maximum(steps[2:] - steps[:-2], 1e-12)
    w = np.clip((steps[1:-1] - steps[:-2]) / gap, 0.0, 1.0)
    rest = values[1:-1] - (1 - w) * values[:-2] - w * values[2:]
    return float(1.4826 * np.median(np.abs(rest) / np.sqrt(1 + w**2 + (1 - w) ** 2)))


def median(values: np.ndarray, width: int) -> np.ndarray:
    """Running median over an odd width, narrower at both ends."""
    if width < 3 or len(values) < width:
        return values
    half = width // 2
    inner = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
    head = [float(np.median(values[: 2 * i + 1])) for i in range(half)]
    tail = [float(np.median(values[-(2 * i + 1) :])) for i in reversed(range(half))]
    return np.concatenate([head, inner, tail])


def falling(values: np.ndarray) -> np.ndarray:
    """The nearest curve that never rises (isotonic regression by pooling adjacent violators)."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([float(value), 1.0])
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            mean, count = pools.pop()
            total = pools[-1][1] + count
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * count) / total, total]
    return np.concatenate([np.full(int(count), mean) for mean, count in pools])


def bottom(values: np.ndarray, spread: float) -> int:
    """Index of the minimum of a noisy curve that may fall and rise again.

    A parabola through the points about the lowest one that the noise cannot tell from it, and two
    more on either side; with few of them, or no noise, the lowest point itself.
    """
    low = int(np.argmin(values))
    if not math.isfinite(spread) or len(values) < 6:
        return low
    limit = values[low] + 6 * spread
    left = right = low
    while left > 0 and values[left - 1] <= limit:
        left -= 1
    while right < len(values) - 1 and values[right + 1] <= limit:
        right += 1
    if right - left < 5:
        return low
    x = np.arange(left, right + 1, dtype=float) - low
    curvature, slope, _ = np.polyfit(x, values[left : right + 1], 2)
    if curvature <= 0:
        return low
    return int(np.clip(round(low - slope / (2 * curvature)), left, right))


def fell(c: Curve, sigmas: float = SIGMAS) -> bool:
    """Whether the curve ends below its start by more than so many deviations of the noise.

    The start is tried at several lengths: a short one sees a steep fall, a long one a slow one.
    """
    if len(c.values) < 3:
        return False
    last = c.values[-max(1, len(c.values) // 3) :]
    lengths = [2**k for k in range(len(c.values).bit_length()) if 2**k <= len(c.values) / 2]
    drops = [
        (float(c.values[:k].mean() - last.mean()), 1 / (1 / k + 1 / len(last))) for k in lengths
    ]
    return any(c.moved(drop, points, sigmas) for drop, points in drops)
