"""What a run has shown so far: the events folded into the values that a screen draws.

No terminal, no clock: time comes from the `seconds` of the rows, so that a replayed log draws
the same frame as the run did.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

SMOOTH_ROWS = 20
SAMPLE_CHARACTERS = 2000
FORECAST_COUNTS = 20  # rows of steps, after which only what was seen counts


def finite(value: Any) -> float | None:
    """`value` as a float where it is a finite number, else None."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


class Series:
    """Points (step, value) in bounded memory: past `limit` points, neighbours are averaged."""

    def __init__(self, limit: int = 2048):
        self.limit = limit
        self._points: list[tuple[float, float]] = []
        self._open: list[tuple[float, float]] = []
        self._rows_per_point = 1

    def append(self, step: float, value: float) -> None:
        self._open.append((step, value))
        if len(self._open) < self._rows_per_point:
            return
        self._points.append(_mean(self._open))
        self._open = []
        if len(self._points) >= self.limit:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [_mean(pair) for pair in pairs]
            self._rows_per_point *= 2

    def points(self) -> list[tuple[float, float]]:
        """All points in order; the last one may still be growing."""
        return self._points + ([_mean(self._open)] if self._open else [])


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


class Pace:
    """Time left: remaining steps at the median recent step, remaining evaluations at theirs.

    The median leaves a slow step (another program, a checkpoint) out of account. The time of an
    evaluation, with its sample, exam and saving, is what the gap between the two step rows
    around it takes beyond ordinary steps. What was forecast stands for what has not been seen yet,
    and counts as some steps beside those first seen.
    """

    def __init__(self) -> None:
        self._seconds_per_step: deque[float] = deque(maxlen=50)
        self._evaluation_seconds: deque[float] = deque(maxlen=5)
        self._evaluation_step: int | None = None
        self._steps_between = 0
        self._evaluated = False
        self._last: tuple[int, float] | None = None
        self._forecast: tuple[float, float, int] | None = None

    def expect(self, update: float, evaluation: float, evaluations: int) -> None:
        """What was forecast: seconds of an update and of an evaluation, evaluations of the run."""
        self._forecast = (update, evaluation, evaluations)

    def step(self, step: int, seconds: float) -> None:
        if self._last is not None and step > self._last[0]:
            steps, took = step - self._last[0], seconds - self._last[1]
            if not self._evaluated:
                self._seconds_per_step.append(took / steps)
            elif self._seconds_per_step:
                ordinary = steps * median(self._seconds_per_step)
                self._evaluation_seconds.append(max(0.0, took - ordinary))
        self._last = (step, seconds)
        self._evaluated = False

    def evaluation(self, step: int) -> None:
        if self._evaluation_step is not None and step > self._evaluation_step:
            self._steps_between = step - self._evaluation_step
        self._evaluation_step = step
        self._evaluated = True

    def seconds_left(self, steps: int) -> float | None:
        """Seconds until update `steps`; None before two step rows where nothing was forecast."""
        done = self._last[0] if self._last else 0
        expected = self._forecast
        seen = len(self._seconds_per_step)
        if seen:
            each = median(self._seconds_per_step)
            if expected is not None and seen < FORECAST_COUNTS:
                share = (FORECAST_COUNTS - seen) / FORECAST_COUNTS
                each = share * expected[0] + (1 - share) * each
        elif expected is not None:
            each = expected[0]
        else:
            return None
        left = max(0, steps - done) * each
        if self._evaluation_seconds and self._steps_between:
            evaluations = steps // self._steps_between - done // self._steps_between
            left += max(0, evaluations) * median(self._evaluation_seconds)
        elif expected is not None and steps:
            left += max(0, steps - done) / steps * expected[2] * expected[1]
        return left


class Progress:
    """The state of a run as the screens show it. Every number may be None: not known yet."""

    def __init__(self) -> None:
        self.phase = ""
        self.phase_fraction: float | None = None
        self.facts: Mapping[str, Any] = {}
        self.started = False
        self.step_number = 0
        self.steps = 0
        self.epoch: float | None = None
        self.row: Mapping[str, Any] = {}
        self.seconds: float | None = None
        self.eval_train_loss: float | None = None
        self.val_loss: float | None = None
        self.best_loss: float | None = None
        self.best_step: int | None = None
        self.train = Series()
        self.validation = Series()
        self.pace = Pace()
        self.sample_text: tuple[int, str, str] | None = None
        self.exam_row: Mapping[str, Any] | None = None
        self.warnings: deque[str] = deque(maxlen=20)
        self._recent: deque[float] = deque(maxlen=SMOOTH_ROWS)

    @property
    def smooth_loss(self) -> float | None:
        """Mean training loss of the last SMOOTH_ROWS finite step rows."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    @property
    def perplexity_loss(self) -> float | None:
        """The loss whose exponential is shown: validation, else evaluated training loss."""
        return self.val_loss if self.val_loss is not None else self.eval_train_loss

    @property
    def fraction(self) -> float:
        return min(1.0, self.step_number / self.steps) if self.steps else 0.0

    def start(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.started = True
        self.phase, self.phase_fraction = "", None
        self.steps = int(facts.get("steps") or 0)
        told = facts.get("forecast")
        told = told if isinstance(told, Mapping) else {}
        update, evaluation = finite(told.get("update_seconds")), told.get("evaluation_seconds")
        if update:
            self.pace.expect(update, finite(evaluation) or 0.0, int(told.get("evaluations") or 0))
        self.step_number = int(facts.get("resumed_step") or 0)

    def step(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.phase = ""
        self._place(row)
        loss = finite(row.get("train_loss"))
        if loss is not None:
            self._recent.append(loss)
            self.train.append(self.step_number, loss)
        if self.seconds is not None:
            self.pace.step(self.step_number, self.seconds)

    def evaluation(self, row: Mapping[str, Any], best: bool) -> None:
        self._place(row)
        self.phase = ""
        self.eval_train_loss = finite(row.get("train_loss"))
        self.val_loss = finite(row.get("val_loss"))
        self.pace.evaluation(self.step_number)
        if self.val_loss is not None:
            self.validation.append(self.step_number, self.val_loss)
            if best:
                self.best_loss, self.best_step = self.val_loss, self.step_number

    def sample(self, prompt: str, text: str) -> None:
        self.sample_text = (self.step_number, prompt, text[:SAMPLE_CHARACTERS])

    def _place(self, row: Mapping[str, Any]) -> None:
        self.step_number = int(row.get("step") or 0)
        self.steps = int(row.get("steps") or self.steps)
        epoch, seconds = finite(row.get("epoch")), finite(row.get("seconds"))
        self.epoch = self.epoch if epoch is None else epoch
        self.seconds = self.seconds if seconds is None else seconds
