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
CLEAR = 0.2
"""A part of a loss beyond the noise of any mean over a fixed set, however few the points."""
FEW = 8
"""Points below which a bend of the curve cannot be told from its noise."""


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

    @property
    def luck(self) -> float:
        """How far the lowest of n noisy values lies below the true curve: noise·sqrt(2 ln n)."""
        n = len(self.values)
        return self.noise * math.sqrt(2 * math.log(n)) if n >= 3 else 0.0

    def moved(self, change: float, points: float = 1.0, sigmas: float = SIGMAS) -> bool:
        """Whether a change between means, worth `points` single points, is beyond the noise."""
        return len(self.values) >= 3 and change > sigmas * self.noise / math.sqrt(points)

    def turn(self) -> tuple[int, int]:
        """(the first index whose level is as good as the lowest one, that of the lowest level).

        Levels are those of the curve behind the noise; as good means within two deviations of one
        point, or a part of the loss that nobody would train on for.
        """
        n, low = len(self.values), self.lowest
        if n < 8:
            close = self.values <= self.values[low] * (1 + NEGLIGIBLE)
            return (int(np.flatnonzero(close)[0]) if self.values[low] > 0 else low), low
        half = n // 2
        spread = min(self.noise, noise(self.steps[half:], self.values[half:]))
        won, begin = float(self.values[0] - self.values[low]), 0
        for _ in range(2):  # The noise of the flat part, once it is known where that is.
            near = self.values <= self.values[low] + max(15 * spread, 0.03 * won)
            begin = max(0, min(int(np.flatnonzero(near)[0]), n - 6))
            if n - begin >= 8:
                spread = noise(self.steps[begin:], self.values[begin:])
        level = smoothed(self.values[begin:], spread)
        bottom = int(np.argmin(level))
        base = float(np.median(level[level <= level[bottom] + spread]))
        slack = max(2 * spread, NEGLIGIBLE * abs(base))
        first = begin + int(np.flatnonzero(level <= base + slack)[0])
        # Noise alone makes k falls in a row once in (k + 1)! times: where the points before the
        # lowest one fall towards it, one after the other, the lowest one is no luck.
        last = self.values[max(0, low - 4) : low + 1]
        if len(last) == 5 and np.all(np.diff(last) < 0) and last[0] - last[-1] > 4 * spread:
            first = low - 4 + int(np.flatnonzero(last <= last[-1] + slack)[0])
        return first, begin + bottom


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


def smoothed(values: np.ndarray, spread: float) -> np.ndarray:
    """The smoothest curve that lies within the noise of the points.

    Second differences are penalised (Whittaker 1923), as much as leaves a deviation no larger than
    the noise. Of more than 400 points the means of neighbours stand for them.
    """
    n = len(values)
    if n < 6 or not spread > 0:
        return values
    each = -(-n // 400)
    if each > 1:
        ends = np.arange(0, n, each)
        means = np.add.reduceat(values, ends) / np.diff([*ends, n])
        rough = smoothed(means, spread / math.sqrt(each))
        return np.interp(np.arange(n), ends + (each - 1) / 2, rough)
    bend = np.diff(np.eye(n), 2, axis=0)
    best = values
    for power in np.arange(-1, 6.1, 0.5):
        level = np.linalg.solve(np.eye(n) + 10**power * bend.T @ bend, values)
        if float(np.sqrt(np.mean((values - level) ** 2))) > spread:
            break
        best = level
    return best


def whole_fall(values: np.ndarray) -> float:
    """How far the values fell to their lowest, from the highest before it (not from the first)."""
    return float(np.max(values[: int(np.argmin(values)) + 1]) - np.min(values))


def single_turn(values: np.ndarray) -> bool:
    """Whether all points fall one by one to the lowest, and rise one by one from it."""
    low = int(np.argmin(values))
    return bool(np.all(np.diff(values[: low + 1]) < 0) and np.all(np.diff(values[low:]) > 0))


def above_lowest(c: Curve, level: float) -> bool:
    """Whether a level that came later lies above the lowest value by more than chance explains."""
    low = float(c.values[c.lowest])
    rise = level - low
    if c.moved(rise - c.luck):
        return True
    if len(c.values) < FEW and rise > CLEAR * abs(low):
        return True
    # A single turn with points on both sides is no noise either; the last point is the highest.
    turned = len(c.values) >= 5 and c.lowest <= len(c.values) - 3 and single_turn(c.values)
    end = float(c.values[-1]) - low
    return turned and end > max(CLEAR / 4 * abs(low), whole_fall(c.values) / 3)


def fell(c: Curve, sigmas: float = SIGMAS) -> bool:
    """Whether the curve ends below its start by more than so many deviations of the noise.

    The start is tried at several lengths: a short one sees a steep fall, a long one a slow one. And
    it must lie further above the end than stretches of its length in the second half differ from
    each other: noise that goes on from row to row makes such differences again and again.
    """
    n = len(c.values)
    if n < 3:
        return False
    last = c.values[-max(1, n // 3) :]
    for k in (2**k for k in range(n.bit_length()) if 2**k <= n / 2):
        drop, points = float(c.values[:k].mean() - last.mean()), 1 / (1 / k + 1 / len(last))
        if c.moved(drop, points, sigmas) and (
            n < 2 * FEW or drop > sigmas * unlike(c.values[n // 2 :], k) * math.sqrt(k / points)
        ):
            return True
    return False


def unlike(values: np.ndarray, k: int) -> float:
    """Robust deviation of the means of k neighbours about the line through all such means.

    Where k is more than a quarter of the points, that of fewer neighbours, as if rows further apart
    than these were independent.
    """
    m = min(k, max(1, len(values) // 4))
    means = np.lib.stride_tricks.sliding_window_view(values, m).mean(axis=1)
    places = np.column_stack([np.arange(len(means)), np.ones(len(means))])
    line, *_ = np.linalg.lstsq(places, means, rcond=None)
    return float(1.4826 * np.median(np.abs(means - places @ line)) * math.sqrt(m / k))
