"""The rates of this machine, from updates of small models that are timed in a few seconds."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from yunque import runtime
from yunque.adapt.quantize import bitsandbytes
from yunque.batch import Batch
from yunque.config import MachineConfig, ModelConfig, OptimConfig, TrainConfig
from yunque.doctor import cpu_facts
from yunque.forecast.machine import Machine, Rates, fitted
from yunque.forecast.work import Work, Workload, update_work
from yunque.model.decoder import Decoder
from yunque.runtime import Runtime
from yunque.train.optim import Optimizers
from yunque.train.step import update

ROUNDS, SECONDS_EACH, LEAST_UPDATES = 2, 0.3, 2
"""How often all small jobs are timed, one after the other, and how long and how often each is
repeated then. Of a round the median counts, as that of a run's updates does; of the rounds the
lesser: what else the machine did meanwhile lasts for some updates, and not for both."""
UNPACKED, PACKED = 20.0, 300.0
"""Where bitsandbytes is absent: what unpacking a weight and keeping a number's averages in 8 bits
take, as a multiple of moving a byte (docs/lab-notes.md). Nothing can be run with either there."""
LIBRARIES_BYTES = 64_000_000
"""What preparing data and the first optimizer load beyond what is there at the start: measured
(docs/lab-notes.md) for pretraining on a CPU; PEFT, transformers and bitsandbytes not included."""
CPU_WATTS_A_CORE, GPU_WATTS = 15.0, 250.0
"""Where the machine does not say: a guess, named as one."""


def small_jobs() -> list[Workload]:
    """Pieces of work in which each kind of `Work` is the greatest part at least once."""

    def job(
        width: int,
        heads: int,
        layers: int,
        length: int,
        batch: int,
        vocabulary: int,
        mlp: str = "swiglu",
        dropout: float = 0.0,
    ) -> Workload:
        old = mlp == "gelu"
        shape = ModelConfig(
            num_layers=layers,
            hidden_size=width,
            num_heads=heads,
            context_length=length,
            mlp="gelu" if old else "swiglu",
            norm="layernorm" if old else "rmsnorm",
            positions="learned" if old else "rotary",
            bias=old,
            qkv_bias=old,
            qk_norm=False,
            dropout=dropout,
        ).resolved(vocabulary)
        return Workload(shape, TrainConfig(batch_size=batch), OptimConfig())

    return [
        job(64, 2, 1, 32, 1, 100),
        job(64, 2, 10, 32, 1, 100),
        job(64, 1, 6, 64, 4, 100, "gelu"),
        job(128, 4, 4, 64, 8, 500),
        job(128, 4, 3, 128, 24, 500),
        job(128, 4, 1, 1024, 3, 500),
        job(256, 4, 1, 1024, 2, 500, "gelu"),
        job(192, 3, 3, 256, 8, 1000, dropout=0.2),
        job(256, 4, 2, 256, 8, 1000, "gelu", dropout=0.1),
        job(384, 6, 2, 128, 8, 4000, "gelu"),
        job(512, 8, 2, 256, 4, 1000),
        job(1024, 16, 1, 256, 2, 1000, "gelu"),
        job(1024, 16, 1, 128, 1, 1000),
        job(768, 12, 1, 64, 1, 24_000),
        job(128, 4, 1, 128, 8, 24_000),
    ]


def repeated(work: Callable[[], object], where: Runtime) -> list[float]:
    """Seconds of each of some repeats, after a first that is not counted."""
    times: list[float] = []
    work()
    while len(times) < LEAST_UPDATES or sum(times) < SECONDS_EACH:
        began = time.perf_counter()
        work()
        if where.device.type == "cuda":
            torch.cuda.synchronize(where.device)
        times.append(time.perf_counter() - began)
    return times


def direct_rates(where: Runtime) -> dict[str, float]:
    """Rates of one matrix product and of one copy; 0 for what they leave open.

    They hold the fit of the small jobs in place where other work disturbs those.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(where.precision, torch.float32)
    side, numbers = 768, 1 << 22
    left = torch.ones(side, side, dtype=dtype, device=where.device)
    long = torch.ones(numbers, device=where.device)
    other = torch.empty_like(long)
    product = statistics.median(repeated(lambda: left @ left, where)) / (2 * side**3)
    moved = statistics.median(repeated(lambda: other.copy_(long), where)) / (2 * 4 * numbers)
    return {
        "matrix_operations": product,
        "matrix_bytes": moved,
        "attention_operations": 2 * product,
        "elementwise_bytes": moved,
        "update_bytes": moved,
    }


def packed_rates(where: Runtime, moved: float) -> dict[str, float]:
    """Seconds to unpack a weight of 4 bits, and to update a number whose averages have 8."""
    guessed = {"unpacked_weights": UNPACKED * moved, "packed_states": PACKED * moved}
    try:
        return measured_packed_rates(bitsandbytes(), where)
    except Exception:  # absent, or whatever a missing kernel raises (train/optim.py)
        return guessed


def measured_packed_rates(packed: Any, where: Runtime) -> dict[str, float]:
    """The same, timed."""
    numbers = torch.randn(512, 512, device=where.device)
    small, state = packed.functional.quantize_4bit(numbers, quant_type="nf4")
    unpack = repeated(lambda: packed.functional.dequantize_4bit(small, state), where)
    parameter = torch.nn.Parameter(numbers)
    parameter.grad = numbers.clone()
    optimizer = packed.optim.AdamW8bit([parameter], lr=1e-6)
    keep = repeated(optimizer.step, where)
    return {
        "unpacked_weights": statistics.median(unpack) / numbers.numel(),
        "packed_states": statistics.median(keep) / numbers.numel(),
    }


def update_seconds(job: Workload, where: Runtime) -> list[float]:
    """Seconds of each of some updates of this job, on random tokens."""
    model = Decoder(job.shape).to(where.device).train()
    optimizers = Optimizers(model, job.optim)
    scaler = torch.amp.GradScaler(where.device.type, enabled=where.precision == "fp16")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(
        job.shape.vocab_size, (job.train.batch_size, job.row_length + 1), generator=generator
    )
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())  # (B, T) each

    def once() -> object:
        return update(
            0,
            lambda step, first, count: batch,
            model,
            model.head,
            optimizers,
            scaler,
            where,
            batch_size=job.train.batch_size,
            micro_batch_size=job.train.batch_size,
            clip_norm=1.0,
            seed=0,
        )

    return repeated(once, where)


@dataclass(frozen=True)
class Timings:
    """What was measured, before any arithmetic."""

    rounds: Sequence[Sequence[float]]
    """Of each round the median seconds of an update of each of `small_jobs`."""
    direct: Mapping[str, float]
    """As `direct_rates` and `packed_rates`."""
    unsteadiness: float


def timings(where: Runtime, told: Callable[[int, int], None]) -> Timings:
    """Measure."""
    jobs = [dataclasses.replace(job, precision=where.precision) for job in small_jobs()]
    rounds = []
    for index in range(ROUNDS):
        found = []
        for place, job in enumerate(jobs):
            told(index * len(jobs) + place, ROUNDS * len(jobs))
            found.append(update_seconds(job, where))
        rounds.append(found)
    direct = direct_rates(where)
    of_each = list(zip(*rounds, strict=True))  # the repeats of each job, by round
    return Timings(
        [[statistics.median(times) for times in found] for found in rounds],
        {**direct, **packed_rates(where, direct["elementwise_bytes"])},
        statistics.median(steadiest(repeats) for repeats in of_each),
    )


def steadiest(rounds: Sequence[Sequence[float]]) -> float:
    """How much longer than the shortest of all the usual repeat of the lesser round took."""
    return min(map(statistics.median, rounds)) / min(chain(*rounds)) - 1


def rates_of(found: Timings, precision: str) -> Rates:
    """The rates with which the arithmetic of `work.py` comes nearest to what was measured."""
    names = [field.name for field in dataclasses.fields(Work)] + ["update"]
    works = [update_work(dataclasses.replace(job, precision=precision)) for job in small_jobs()]
    rows = [[*work.values(), 1.0] for work in works]
    seconds = [min(medians) for medians in zip(*found.rounds, strict=True)]
    fit = fitted(rows, seconds, [found.direct.get(name, 0.0) for name in names])
    rates = Rates(**dict(zip(names, fit, strict=True)))
    packed = {name: found.direct[name] for name in ("unpacked_weights", "packed_states")}
    return dataclasses.replace(rates, **packed)


def calibrate(machine: MachineConfig, told: Callable[[int, int], None]) -> Machine:
    """Measure this machine; about twenty seconds.

    Args:
        machine: device, precision and threads that are measured.
        told: hears how many of how many pieces of work are done.
    """
    where = runtime.start(machine)
    base = where.resident_bytes()
    runtime.keep_freed_memory()
    return machine_of(where, base, timings(where, told))


def machine_of(where: Runtime, base: int | None, found: Timings) -> Machine:
    """This machine, as it was measured; `base`: bytes taken before the first tensor."""
    rates = rates_of(found, where.precision)
    cuda = where.device.type == "cuda"
    return Machine(
        name=torch.cuda.get_device_name(where.device) if cuda else cpu_facts(False).name,
        kind=where.device.type,
        memory=where.memory_size() or 0,
        rates={where.precision: rates, "fp32": rates},
        base_memory=(base or 0) + (0 if cuda else LIBRARIES_BYTES),
        watts=GPU_WATTS if cuda else CPU_WATTS_A_CORE * torch.get_num_threads(),
        measured=True,
        threads=torch.get_num_threads(),
        unsteadiness=found.unsteadiness,
    )
