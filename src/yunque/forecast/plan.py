"""A run before it runs: memory, time, disk and current, each with an interval; does it fit?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from yunque.forecast.history import SPARE, Correction, Outcome, correction
from yunque.forecast.machine import Machine
from yunque.forecast.memory import (
    Memory,
    disk_bytes,
    evaluating,
    generating,
    other_base,
    passing,
    peak_memory,
    stored,
    together,
)
from yunque.forecast.work import Workload, evaluation_work, update_work

NOTICED = 0.01
"""Share of the peak that a change must spare to be named."""
NORMAL_90 = 1.645
"""Standard deviations on either side that hold 90 % of a normal distribution."""
LONGEST = 1 << 17
"""Tokens of a row up to which what fits is looked for where a model is trained from scratch."""
MEASURES = (
    ("micro_batch", "checkpointing", "cpu_embeddings"),
    ("optimizer_16", "optimizer", "quantize_head"),
    ("in_backward",),
    ("lora", "qlora"),
    ("length",),
)
"""Changes by what they cost: time; rounding; clipping; another way to train; what a row holds."""
ORDER = (
    "lora",
    "qlora",
    "checkpointing",
    "cpu_embeddings",
    "optimizer_16",
    "optimizer",
    "in_backward",
    "quantize_head",
    "length",
    "micro_batch",
)
"""The order in which several are made: the method decides what else there is, and the micro-batch
is cut only as far as shorter rows leave it to be."""


@dataclass(frozen=True)
class Interval:
    """A forecast and the range that should hold nine outcomes of ten."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, value: float, spread: float) -> Interval:
        """`spread`: standard deviation of the logarithm of outcome / forecast."""
        factor = math.exp(NORMAL_90 * spread)
        return cls(value, value / factor, value * factor)


@dataclass(frozen=True)
class Change:
    """One thing that could be changed, and what it gives."""

    id: str
    """The sentence `plan.change_ID`."""
    job: Workload
    memory: int
    """Bytes at the peak, after the change."""
    gain: int
    """Bytes less than without the change."""
    seconds: float
    """Of the whole run, after the change."""
    times: float
    """The time of the whole run as a multiple of that without the change."""
    enough: bool
    """Whether it makes a run fit that does not fit without it."""
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Remedy:
    """The changes, as few as can be, that make a run fit."""

    job: Workload
    ids: tuple[str, ...]
    """As `Change.id`."""
    fits: bool
    """Where false, no combination of the changes is enough; this one needs least."""
    peak: Interval
    """Bytes."""
    times: float
    """The time of the whole run as a multiple of that without the changes."""


@dataclass(frozen=True)
class Plan:
    """What a run will take on a machine."""

    job: Workload
    machine: Machine
    budget: int
    """Bytes that the run may take: what was asked for, else all of the machine. 0: not known."""
    memory: Memory
    """By part, at the peak of training or evaluation, before the correction by past outcomes."""
    peak: Interval
    """Bytes."""
    moments: Mapping[str, Interval]
    """Peak of each kind of work: training, evaluation, generation, saving; bytes."""
    moment_parts: Mapping[str, Memory]
    """Each of them by part, before the correction."""
    update_seconds: Interval
    evaluation_seconds: float
    evaluations: int
    seconds: Interval
    """The whole run, as long as nothing stops it early."""
    disk: int
    kilowatt_hours: Interval
    changes: tuple[Change, ...]
    remedy: Remedy | None
    """None where the run fits as it is, or the memory is not known."""
    largest_micro_batch: int
    """Sequences that fit at once, a divisor of the batch; 0: not even one surely does."""
    longest_row: int
    """Tokens of a row that fit at this micro-batch, at most `row_limit`; 0: not even 16 do."""
    outcomes: int
    """Past runs on this machine that the forecast was corrected by."""

    @property
    def fits(self) -> bool:
        """Whether it fits with room to SPARE above its interval; True where nothing is known."""
        return not self.budget or SPARE * self.peak.high <= self.budget

    @property
    def tight(self) -> bool:
        """Fits by its likeliest value, but not by the high end of its interval."""
        return not self.fits and self.peak.value <= self.budget

    @property
    def may_stop_early(self) -> bool:
        """Whether the patience can run out before the last update (train/stopping.py).

        The first evaluation sets the mark, so that it takes one more than the patience.
        """
        watched = self.job.validated or self.job.train.watch == "exam"
        enough = self.evaluations - 1 > self.job.train.patience
        return self.job.train.early_stopping and watched and enough

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object: bytes, seconds, kWh."""
        return {
            "machine": {
                "name": self.machine.name,
                "memory_bytes": self.machine.memory,
                "measured": self.machine.measured,
                "outcomes": self.outcomes,
            },
            "memory_bytes": dataclasses.asdict(self.peak),
            "memory_parts": dict(self.memory.parts()),
            "memory_moments": {
                name: {**dataclasses.asdict(peak), "parts": dict(self.moment_parts[name].parts())}
                for name, peak in self.moments.items()
            },
            "budget_bytes": self.budget,
            "fits": self.fits,
            "update_seconds": dataclasses.asdict(self.update_seconds),
            "evaluation_seconds": self.evaluation_seconds,
            "evaluations": self.evaluations,
            "steps": self.job.steps,
            "seconds": dataclasses.asdict(self.seconds),
            "disk_bytes": self.disk,
            "kilowatt_hours": dataclasses.asdict(self.kilowatt_hours),
            "largest_micro_batch": self.largest_micro_batch,
            "longest_row": self.longest_row,
            "changes": [
                {
                    "id": change.id,
                    "memory_bytes": change.memory,
                    "gain_bytes": change.gain,
                    "seconds": change.seconds,
                    "times": change.times,
                    "fits": change.enough or self.fits,
                    **change.numbers,
                }
                for change in self.changes
            ],
            "remedy": self.remedy
            and {
                "ids": list(self.remedy.ids),
                "fits": self.remedy.fits,
                "memory_bytes": dataclasses.asdict(self.remedy.peak),
                "times": self.remedy.times,
                "micro_batch_size": self.remedy.job.micro_batch,
                "max_length": self.remedy.job.row_length,
            },
        }


def plan_run(
    job: Workload, machine: Machine, past: Correction, token_bytes: int = 0, budget: int = 0
) -> Plan:
    """The forecast of a job on a machine, corrected by what past forecasts there came to.

    Args:
        past: factors and spreads of the outcomes of earlier runs; `Correction()` for none.
        token_bytes: the prepared data on disk.
        budget: bytes that the run may take; 0: all that the machine has.
    """
    base, budget = machine.base_memory, budget or machine.memory

    def peak_of(other: Workload) -> float:
        return corrected(peak_memory(other, other_base(base, job, other)), past)

    def seconds_of(other: Workload) -> float:
        each, evaluation, count = times(other, machine, past)
        return other.steps * each + count * evaluation

    held = together(stored(job), Memory(base=base))
    parts = {
        "training": together(held, passing(job)),
        "evaluation": together(held, evaluating(job)),
        "generation": together(held, generating(job)),
        # Tensors are written as they lie in memory.
        "saving": held,
    }
    # Bytes that a likeliest value may have so that its interval fits.
    most = (budget or math.inf) / (SPARE * math.exp(NORMAL_90 * past.memory_spread))

    def surely(other: Workload) -> bool:
        return peak_of(other) <= most

    each, evaluation, count = times(job, machine, past)
    spread = past.time_spread or machine.spread
    whole, peak = seconds_of(job), peak_of(job)
    remedy = None
    if not surely(job):
        least, ids = least_change(job, peak_of, most, seconds_of)
        remedy = Remedy(
            least,
            ids,
            surely(least),
            Interval.around(peak_of(least), past.memory_spread),
            seconds_of(least) / whole if whole else 1.0,
        )
    return Plan(
        job=job,
        machine=machine,
        budget=budget,
        memory=peak_memory(job, base),
        peak=Interval.around(peak, past.memory_spread),
        moments={
            name: Interval.around(corrected(memory, past), past.memory_spread)
            for name, memory in parts.items()
        },
        moment_parts=parts,
        update_seconds=Interval.around(each, spread),
        evaluation_seconds=evaluation,
        evaluations=count,
        seconds=Interval.around(whole, spread),
        disk=disk_bytes(job, token_bytes),
        kilowatt_hours=Interval.around(machine.watts * whole / 3.6e6, spread),
        changes=tuple(
            Change(
                name,
                other,
                memory=round(needed),
                gain=round(peak - needed),
                seconds=seconds_of(other),
                times=seconds_of(other) / whole if whole else 1.0,
                enough=needed <= most < peak,
                numbers=numbers,
            )
            for name, other, numbers in smaller(job)
            if (needed := peak_of(other)) < (1 - NOTICED) * peak
        ),
        remedy=remedy,
        largest_micro_batch=largest(
            micro_batches_of(job),
            lambda n: surely(with_micro_batch(job, n)),
        ),
        longest_row=largest(
            range(16, row_limit(job) + 1, 16), lambda n: surely(with_length(job, n))
        ),
        outcomes=past.count,
    )


def past_of(
    job: Workload, machine: Machine, outcomes: Sequence[Outcome], memory_spread: float
) -> Correction:
    """What past runs on this machine teach of this job, by how much they are like it.

    Args:
        memory_spread: of forecasts of the memory without any outcome.
    """
    seconds, _, _ = times(job, machine, Correction())
    memory = peak_memory(job).total
    return correction(
        outcomes, machine.name, job.method, seconds, memory, machine.spread, memory_spread
    )


def corrected(memory: Memory, past: Correction) -> float:
    """Bytes of the whole process, after the correction."""
    return past.memory_factor * memory.total


def times(job: Workload, machine: Machine, past: Correction) -> tuple[float, float, int]:
    """(seconds of an update, seconds of an evaluation, number of evaluations)."""
    rates = machine.rates_for(job.precision)
    each = past.time_factor * (rates.seconds(update_work(job)) + rates.update)
    evaluation = past.time_factor * rates.seconds(evaluation_work(job))
    every = job.train.eval_every or max(1, job.steps // 20)
    return each, evaluation, 1 + -(-job.steps // every)


def with_micro_batch(job: Workload, rows: int) -> Workload:
    """The same update in passes of `rows` sequences."""
    return dataclasses.replace(job, train=dataclasses.replace(job.train, micro_batch_size=rows))


def micro_batches_of(job: Workload) -> list[int]:
    """Micro-batches that a batch can be cut into; gradients used on the way back need all of it."""
    batch = job.train.batch_size
    if job.train.update_in_backward:
        return [batch]
    return [n for n in range(1, batch + 1) if batch % n == 0]


def row_limit(job: Workload) -> int:
    """Tokens of the longest row that this model could be trained on.

    One that is trained from scratch may be given any context; a base has its own.
    """
    context = job.shape.context_length
    return max(LONGEST, context) if job.method == "pretrain" else context


def with_length(job: Workload, length: int) -> Workload:
    """The same run in rows of so many tokens, where need be of a model of that context."""
    context = max(length, job.shape.context_length)
    shape = dataclasses.replace(job.shape, context_length=context)
    return dataclasses.replace(job, shape=shape, length=length)


def least_change(
    job: Workload,
    needs: Callable[[Workload], float],
    most: float,
    seconds: Callable[[Workload], float],
) -> tuple[Workload, tuple[str, ...]]:
    """(the job with as little changed as brings it down to `most` bytes, names of the changes).

    What costs only time is tried first, in every combination, the fewest first and of as many the
    quickest; then what rounds, and so on (`MEASURES`). Micro-batch and rows are cut no further than
    they must be. Where nothing is enough, what needs least.
    """
    tried: list[tuple[Workload, tuple[str, ...]]] = []
    known: tuple[str, ...] = ()
    for more in MEASURES:
        known += more
        for size in range(1, len(known) + 1):
            enough = []
            for names in combinations(known, size):
                in_order = sorted(names, key=ORDER.index)
                furthest = next(ways(job, in_order, whole=True), None)
                if furthest is None or not set(names).intersection(more):
                    continue
                tried.append((furthest, names))
                if needs(furthest) <= most:
                    mildest = next(one for one in ways(job, in_order) if needs(one) <= most)
                    enough.append((mildest, names))
            if enough:
                return min(enough, key=lambda pair: seconds(pair[0]))
    return min(tried, key=lambda pair: needs(pair[0]), default=(job, ()))


def ways(job: Workload, names: Sequence[str], *, whole: bool = False) -> Iterator[Workload]:
    """Every way to make the named changes, the mildest first; `whole`: only the furthest."""
    if not names:
        yield job
        return
    steps = []
    step = changed(job, names[0])
    while step is not None:
        steps.append(step)
        step = changed(step, names[0])
    for step in steps[-1:] if whole else steps:
        yield from ways(step, names[1:], whole=whole)


def changed(job: Workload, name: str) -> Workload | None:
    """The job after one change of `smaller`; None where it cannot be made."""
    return next((other for other_name, other, _ in smaller(job) if other_name == name), None)


def smaller(job: Workload) -> Iterator[tuple[str, Workload, dict[str, Any]]]:
    """What could be changed to need less memory, cheapest first; each alone."""
    rows = job.micro_batch
    if rows > 1 and not job.train.update_in_backward:
        # A batch is a whole number of micro-batches.
        half = next(n for n in range(rows // 2, 0, -1) if job.train.batch_size % n == 0)
        yield "micro_batch", with_micro_batch(job, half), {"rows": half, "batch": rows}
    if not job.train.gradient_checkpointing:
        train = dataclasses.replace(job.train, gradient_checkpointing=True)
        yield "checkpointing", dataclasses.replace(job, train=train), {}
    if job.row_length > 64:
        length = job.row_length // 2
        yield "length", dataclasses.replace(job, length=length), {"length": length}
    if job.optim.optimizer == "adamw" and not job.adapted:
        optim = dataclasses.replace(job.optim, optimizer="adamw16bit")
        yield "optimizer_16", dataclasses.replace(job, optim=optim), {}
    whole = job.micro_batches == 1 and job.precision != "fp16" and not job.exact
    unwatched = not job.optim.spike_deviations  # a spike is told by the whole gradient
    if whole and unwatched and not job.adapted and not job.train.update_in_backward:
        optim = dataclasses.replace(job.optim, clip_norm=0.0)
        train = dataclasses.replace(job.train, update_in_backward=True)
        yield "in_backward", dataclasses.replace(job, optim=optim, train=train), {}
    if job.optim.optimizer == "adamw":
        optim = dataclasses.replace(job.optim, optimizer="adamw8bit")
        yield "optimizer", dataclasses.replace(job, optim=optim), {}
    if job.method == "full":
        yield "lora", dataclasses.replace(job, method="lora"), {}
    if job.method in ("full", "lora"):
        yield "qlora", dataclasses.replace(job, method="qlora"), {}
    if job.method == "qlora" and not job.adapt.quantize_head:
        adapt = dataclasses.replace(job.adapt, quantize_head=True)
        yield "quantize_head", dataclasses.replace(job, adapt=adapt), {}
    if job.method == "qlora" and not job.adapt.cpu_embeddings:
        adapt = dataclasses.replace(job.adapt, cpu_embeddings=True)
        yield "cpu_embeddings", dataclasses.replace(job, adapt=adapt), {}


def largest(values: Sequence[int], good: Callable[[int], bool]) -> int:
    """The largest of ascending values that is good, 0 for none; what is good below it is, too."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if good(values[middle]):
            low = middle + 1
        else:
            high = middle
    return values[low - 1] if low else 0
