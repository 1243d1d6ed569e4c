"""A loss as a law of the step, with what the points leave open about it.

No one law is taken for true: an exponential, the sum of two, and a power of the step (Hestness et
al. 2017, arXiv:1712.00409) are each fitted, and weighed by how well they explain the points
(Bayesian information criterion, Schwarz 1978). The rates of a law are drawn by an ensemble of
walkers (Goodman and Weare 2010, Comm. App. Math. Comp. Sci. 5:65, the stretch move); what is
linear in it, and the noise, follow from them in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from yunque.reports.curve import NEGLIGIBLE, SIGMAS

WALKERS = 40
ROUNDS = 60
STARTS = 600
NARROWER = 4
"""Rounds that look for the best place. More gather the walkers so closely about it that they tell
too little of what else the points allow."""
KEPT = 5
"""Rounds whose walkers are draws, spread over the last half."""
MOST_POINTS = 200
"""More are taken together by their means: the laws are smooth."""


@dataclass(frozen=True)
class Trend:
    """Curves that the points do not contradict, at the steps asked for."""

    levels: np.ndarray
    """(draws, steps) losses without noise."""
    noise: np.ndarray
    """(draws,) deviation of one point about its curve."""


@dataclass(frozen=True)
class Law:
    """Columns of a linear model that depend on a few parameters, each within its bounds."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    columns: Callable[[np.ndarray, np.ndarray], list[np.ndarray]]
    """(parameters (W, d), parts of the run (n,)) → columns (W, n) besides the floor."""
    below: bool = False
    """Whether the floor may lie below 0: as a law of a stretch of the run, not of all to come."""


def exponential(p: np.ndarray, u: np.ndarray) -> list[np.ndarray]:
    """exp(-r·u), with log r as parameter."""
    return [np.exp(-np.exp(p[:, :1]) * u)]


def two(p: np.ndarray, u: np.ndarray) -> list[np.ndarray]:
    """Two of them; the second falls more slowly by a factor whose log is a parameter."""
    return [np.exp(-np.exp(p[:, :1]) * u), np.exp(-np.exp(p[:, :1] - p[:, 1:2]) * u)]


def power(p: np.ndarray, u: np.ndarray) -> list[np.ndarray]:
    """(1 + k·u)^-a, with log k and log a as parameters."""
    return [(1 + np.exp(p[:, :1]) * u) ** -np.exp(p[:, 1:2])]


LAWS = (
    Law((-1.2,), (5.0,), exponential),
    Law((-1.2, 0.2), (5.0, 4.0), two),
    Law((0.0, -2.3), (7.0, 1.1), power),
)


def stretched(p: np.ndarray, u: np.ndarray) -> list[np.ndarray]:
    """exp(-(r·u)^b), with log r and log b as parameters."""
    return [np.exp(-((np.exp(p[:, :1]) * u) ** np.exp(p[:, 1:2])))]


WIDER = (
    *(Law(law.low, law.high, law.columns, below=True) for law in LAWS[:2]),
    Law((0.0, -3.0), (7.0, 1.1), power, below=True),
    Law((-1.2, -1.2), (5.0, 0.0), stretched, below=True),
)
"""Laws to look ahead with: beyond the points they part more than between them."""


def rising(law: Law) -> Law:
    """The law, and from some point of the run on a rise as a power of what follows."""
    d = len(law.low)

    def columns(p: np.ndarray, u: np.ndarray) -> list[np.ndarray]:
        after = np.maximum(0.0, u - p[:, d : d + 1])
        return [*law.columns(p, u), after ** np.exp(p[:, d + 1 :])]

    return Law((*law.low, 0.02, -0.3), (*law.high, 0.98, 0.8), columns)


@dataclass(frozen=True)
class Fits:
    """The linear part of several sets of parameters, solved."""

    score: np.ndarray
    """(W,) log of the posterior; -inf where a weight is negative."""
    rest: np.ndarray
    """(W,) sum of the squared residuals."""
    weights: np.ndarray
    root: np.ndarray
    """(W, k, k) inverse of the triangle of the columns: draws of the weights are made with it."""


def solve(law: Law, p: np.ndarray, u: np.ndarray, values: np.ndarray) -> Fits:
    """Least squares for each set of parameters; the noise is integrated out.

    By modified Gram-Schmidt over all sets at once: they are many, and their columns few.
    """
    x = [np.ones((len(p), len(u))), *law.columns(p, u)]
    n, k = len(u), len(x)
    q: list[np.ndarray] = []
    size, shares = np.empty((len(p), k)), np.empty((len(p), k))
    root = np.zeros((len(p), k, k))
    rest = np.broadcast_to(values, (len(p), n))
    for j, column in enumerate(x):
        mixed = np.zeros((len(p), k))  # The column that is left, in terms of the columns.
        mixed[:, j] = 1.0
        for i, done in enumerate(q):
            part = np.sum(done * column, axis=1)
            column = column - part[:, None] * done
            mixed -= part[:, None] * root[:, :, i]
        size[:, j] = np.sqrt(np.sum(column**2, axis=1))
        scale = 1 / np.maximum(size[:, j], 1e-12)[:, None]
        q.append(column * scale)
        root[:, :, j] = mixed * scale
        shares[:, j] = np.sum(q[j] * rest, axis=1)
        rest = rest - shares[:, j : j + 1] * q[j]
    weights = np.sum(root * shares[:, None, :], axis=2)
    squares = np.sum(rest**2, axis=1)
    score = -0.5 * (n - k) * np.log(np.maximum(squares, 1e-300))
    score -= np.log(np.maximum(size.prod(axis=1), 1e-300))
    inside = np.all((p >= law.low) & (p <= law.high), axis=1)
    right = inside & (size.min(axis=1) > 1e-9) & np.all(weights[:, law.below :] >= 0, axis=1)
    return Fits(np.where(right, score, -np.inf), squares, weights, root)


def draws(
    law: Law, u: np.ndarray, values: np.ndarray, random: np.random.Generator
) -> tuple[float, np.ndarray] | None:
    """(Bayesian information criterion / -2 of the best, draws of the parameters), None: no fit."""
    low, high = np.array(law.low), np.array(law.high)
    d = len(low)
    p = low + (high - low) * random.random((STARTS, d))
    score = solve(law, p, u, values).score
    for _ in range(NARROWER):  # Around the best so far, as wide as they lie apart.
        good = np.argsort(-score)[:WALKERS]
        good = good[np.isfinite(score[good])]
        if len(good) < 4:
            return None
        p, score = p[good], score[good]
        wide = 1.5 * np.cov(p.T).reshape(d, d) + 1e-12 * np.eye(d)
        new = random.multivariate_normal(p.mean(axis=0), wide, STARTS // 3)
        found = solve(law, new, u, values)
        p, score = np.concatenate([p, new]), np.concatenate([score, found.score])
    good = np.resize(np.flatnonzero(np.isfinite(score)), WALKERS)
    good = np.argsort(-score)[: min(WALKERS, len(np.unique(good)))]
    p = p[np.resize(good, WALKERS)]
    score, half, kept = solve(law, p, u, values).score, WALKERS // 2, []
    best = float(score.max())
    for turn in range(ROUNDS):
        for mine, other in ((slice(0, half), slice(half, None)), (slice(half, None), slice(half))):
            z = (1 + random.random(half)) ** 2 / 2
            there = p[other][random.integers(half, size=half)]
            new = there + z[:, None] * (p[mine] - there)
            found = solve(law, new, u, values)
            odds = (d - 1) * np.log(z) + found.score - score[mine]
            taken = np.log(random.random(half)) < odds
            p[mine] = np.where(taken[:, None], new, p[mine])
            score[mine] = np.where(taken, found.score, score[mine])
        best = max(best, float(score.max()))
        if turn >= ROUNDS // 2 and turn % (ROUNDS // 2 // KEPT) == 0:
            kept.append(p.copy())
    k = d + found.weights.shape[1]
    rest = float(solve(law, p, u, values).rest.min())
    n = len(values)
    return -0.5 * n * np.log(max(rest, 1e-300) / n) - 0.5 * k * np.log(n), np.concatenate(kept)


def binned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points: the means of neighbours where there are more."""
    each = -(-len(values) // MOST_POINTS)
    used = len(values) // each * each  # The oldest points of an uneven rest are left out.
    return (
        steps[-used:].reshape(-1, each).mean(axis=1),
        values[-used:].reshape(-1, each).mean(axis=1),
    )


def trend(
    steps: np.ndarray, values: np.ndarray, at: np.ndarray, laws: tuple[Law, ...] = LAWS
) -> Trend | None:
    """What the points leave open about the curve at the steps `at`, which may lie beyond them.

    Returns:
        None where there are fewer than 10 points, or no law fits them.
    """
    if len(values) < 10 or steps[-1] <= 0:
        return None
    steps, values = binned(steps, values)
    end, random = steps[-1], np.random.default_rng(0)  # The same log gives the same report.
    found = [(law, drawn) for law in laws if (drawn := draws(law, steps / end, values, random))]
    if not found:
        return None
    scores = np.array([score for _, (score, _) in found])
    chances = np.exp(scores - scores.max())
    counts = np.round(len(found[0][1][1]) * chances / chances.sum()).astype(int)
    levels, noise = [], []
    for (law, (_, of_law)), count in zip(found, counts, strict=True):
        if not count:
            continue
        p = of_law[random.choice(len(of_law), count, replace=False)]
        fits = solve(law, p, steps / end, values)
        degrees = len(values) - fits.weights.shape[1]
        sigma = np.sqrt(fits.rest / random.chisquare(degrees, count))
        off = (fits.root @ random.normal(size=fits.weights.shape)[..., None])[..., 0]
        weights = fits.weights + sigma[:, None] * off
        wrong = np.any(weights[:, law.below :] < 0, axis=1)
        weights[wrong] = fits.weights[wrong]
        there = np.stack([np.ones((count, len(at))), *law.columns(p, at / end)], axis=2)
        levels.append((there @ weights[..., None])[..., 0])
        noise.append(sigma)
    return Trend(np.concatenate(levels), np.concatenate(noise))


@dataclass(frozen=True)
class Ahead:
    """A loss that is not there yet."""

    step: int
    low: float
    middle: float
    high: float


MORE = 1.5
"""How many times the run is as long then: further than half as much again the laws part."""
BEGIN = 0.1
"""The part of the run that is left out: its first steps follow the warm-up, not a law."""


WIDEST = 3.0
"""A forecast that missed the end of the run by more than so many times its own width is no use."""


def ahead(steps: np.ndarray, values: np.ndarray, noise: float, points: float) -> Ahead | None:
    """Where the loss would be after half as many steps again, and nine tenths of the draws.

    The same forecast is first made of the end of the run from its first two thirds, and what it
    missed by widens this one: no law that is fitted need be the one that the loss follows.

    Args:
        noise: robust deviation of one point: a law whose points lie further about it is none.
        points: how many single points the mean is of that is forecast; one evaluation is 1.

    Returns:
        None where no law holds, the points are too few to test it, or the test failed.
    """
    told = looked_ahead(steps, values, noise, points)
    if told is None:
        return None
    known = int(np.searchsorted(steps, steps[-1] / MORE, side="right"))
    tested = looked_ahead(steps[:known], values[:known], noise, points)
    if tested is None:
        return None
    near = np.abs(steps - tested.step) <= (points / 2 if points > 1 else 0) * np.diff(steps).mean()
    came = float(values[near].mean() if near.any() else np.interp(tested.step, steps, values))
    above = came > tested.middle
    width = tested.high - tested.middle if above else tested.middle - tested.low
    times = max(1.0, abs(came - tested.middle) / max(width, 1e-12))
    low = told.middle - times * (told.middle - told.low)
    if times > WIDEST or low <= 0:
        return None
    return Ahead(told.step, low, told.middle, told.middle + times * (told.high - told.middle))


def looked_ahead(
    steps: np.ndarray, values: np.ndarray, noise: float, points: float
) -> Ahead | None:
    """The forecast of the laws alone."""
    late = steps >= BEGIN * steps[-1] if len(steps) else np.zeros(0, bool)
    steps, values = steps[late], values[late]
    end = round(MORE * float(steps[-1])) if len(steps) else 0
    found = trend(steps, values, np.array([float(end)]), WIDER)
    if found is None:
        return None
    together = -(-len(values) // MOST_POINTS)
    if float(np.median(found.noise)) > 2 * noise / np.sqrt(together):
        return None
    single = found.noise * np.sqrt(together)
    random = np.random.default_rng(1)
    drawn = found.levels[:, 0] + single / np.sqrt(points) * random.normal(size=len(single))
    low, middle, high = (float(x) for x in np.quantile(drawn, [0.05, 0.5, 0.95]))
    return Ahead(end, low, middle, high) if low > 0 else None


RISING = tuple(rising(law) for law in LAWS)


def as_good_as_the_best(steps: np.ndarray, values: np.ndarray, noise: float) -> int | None:
    """The index of the earliest point as good as the lowest level, the most likely one.

    As good: within two deviations of one point, or NEGLIGIBLE of the loss. Each draw says where
    that is; the answer is the point that most draws name, their neighbours counted with it, so
    that no other point is more often right within one interval.

    Args:
        noise: robust deviation of one point: None is returned where no law holds within twice it.
    """
    low = int(np.argmin(values))
    luck = noise * np.sqrt(2 * np.log(max(2, len(values))))
    rose = low <= len(values) - 4 and np.median(values[-3:]) - values[low] > luck + SIGMAS * noise
    found = trend(steps, values, steps, RISING if rose else LAWS)
    together = np.sqrt(-(-len(values) // MOST_POINTS))
    if found is None or float(np.median(found.noise)) > 2 * noise / together:
        return None
    lowest = found.levels.min(axis=1)
    slack = np.maximum(2 * together * found.noise, NEGLIGIBLE * np.abs(lowest))
    firsts = np.argmax(found.levels <= (lowest + slack)[:, None], axis=1)
    named = np.bincount(firsts, minlength=len(values)).astype(float)
    # Equal counts of three: the one that is itself named most often.
    return int(np.argmax(np.convolve(named, [1, 1, 1], "same") + 1e-3 * named))
