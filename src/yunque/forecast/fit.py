"""The fastest way to train in a given memory with the batch that is asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from yunque.config import Method
from yunque.forecast.history import MEMORY_SPREAD, SPARE, Correction
from yunque.forecast.memory import Memory, other_base, peak_memory
from yunque.forecast.plan import Interval, corrected
from yunque.forecast.work import Workload

LENGTHS = 64
"""Rows are cut to multiples of this."""


@dataclass(frozen=True)
class Fit:
    """What fits: the job as it was chosen, and what it needs."""

    job: Workload
    memory: Memory
    budget: int
    """Bytes."""
    steps: tuple[str, ...]
    """What was given up to fit, in order: `rows`, `checkpointing`, `quantize_head`,
    `cpu_embeddings`, `length`; empty where all fits as it is asked."""
    most: int
    """Bytes that it may come to."""

    @property
    def fits(self) -> bool:
        return self.most <= self.budget

    def to_json(self) -> dict[str, Any]:
        """What was chosen as a JSON object; bytes."""
        return {
            "fits": self.fits,
            "budget_bytes": self.budget,
            "memory_bytes": self.memory.total,
            "most_bytes": self.most,
            "micro_batch_size": self.job.micro_batch,
            "gradient_checkpointing": self.job.train.gradient_checkpointing,
            "max_length": self.job.row_length,
            "given_up": list(self.steps),
        }


def fit(
    asked: Workload,
    budget: int,
    base: int = 0,
    *,
    shortest: int = LENGTHS,
    past: Correction | None = None,
) -> Fit:
    """The fastest way to train in `budget` bytes with the batch that is asked for.

    What costs nothing but launches comes first, what costs time next, what changes numbers last:
    fewer rows at once, gradient checkpointing, an output head in 4 bits, the embedding in the
    CPU's memory (QLoRA), shorter rows. Where nothing fits, the smallest is given, and `fits` is
    false.

    Args:
        base: bytes that are taken before the first tensor, the libraries of what is asked for
            among them.
        shortest: rows are never cut below this many tokens.
        past: how well the memory is known. None: by arithmetic alone, which on a CPU does not know
            exactly what the heap takes.
    """
    known = past or Correction(memory_spread=MEMORY_SPREAD if asked.device == "cpu" else 0.0)
    most, batch = asked.micro_batch, asked.train.batch_size
    rows = [n for n in range(most, 0, -1) if most % n == 0 or batch % n == 0]
    if asked.train.update_in_backward:
        rows = [most]  # one pass has the whole gradient
    lengths = [asked.row_length]
    while lengths[-1] > shortest:
        lengths.append(max(shortest, -(-lengths[-1] // 2 // LENGTHS) * LENGTHS))
    ends = [asked.adapt]
    if asked.method == "qlora":
        if not asked.adapt.quantize_head:
            ends.append(dataclasses.replace(asked.adapt, quantize_head=True))
        if not asked.adapt.cpu_embeddings and asked.device == "cuda":
            ends.append(dataclasses.replace(ends[-1], cpu_embeddings=True))
    tried: Fit | None = None
    for length in lengths:
        for adapt in ends:
            for checkpointing in sorted({asked.train.gradient_checkpointing, True}):
                for count in rows:
                    train = dataclasses.replace(
                        asked.train, micro_batch_size=count, gradient_checkpointing=checkpointing
                    )
                    job = dataclasses.replace(asked, train=train, adapt=adapt, length=length)
                    memory = peak_memory(job, other_base(base, asked, job))
                    high = Interval.around(corrected(memory, known), known.memory_spread).high
                    if known.memory_spread:  # else it is known to the byte
                        high *= SPARE
                    tried = Fit(job, memory, budget, given_up(asked, job), round(high))
                    if tried.fits:
                        return tried
    assert tried is not None
    return tried


def given_up(asked: Workload, job: Workload) -> tuple[str, ...]:
    """The names of what differs from what was asked for."""
    differs = {
        "rows": asked.micro_batch != job.micro_batch,
        "checkpointing": asked.train.gradient_checkpointing != job.train.gradient_checkpointing,
        "quantize_head": asked.adapt.quantize_head != job.adapt.quantize_head,
        "cpu_embeddings": asked.adapt.cpu_embeddings != job.adapt.cpu_embeddings,
        "length": asked.row_length != job.row_length,
    }
    return tuple(name for name, changed in differs.items() if changed)


def methods_that_fit(job: Workload, budget: int, base: int = 0) -> list[Method]:
    """Of full, LoRA and QLoRA those that fit at all, with every measure taken."""
    known: tuple[Method, ...] = ("full", "lora", "qlora")
    others = {method: dataclasses.replace(job, method=method) for method in known}
    return [
        method
        for method, other in others.items()
        if fit(other, budget, other_base(base, job, other)).fits
    ]
