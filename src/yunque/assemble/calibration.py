"""The rates of this machine, from updates of small models that are timed in a few seconds."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from yunque import runtime
from yunque.batch import Batch
from yunque.config import MachineConfig, ModelConfig, OptimConfig, TrainConfig
from yunque.doctor import cpu_facts
from yunque.forecast.machine import Machine, Rates, fitted
from yunque.forecast.work import Workload, update_work
from yunque.model.decoder import Decoder
from yunque.runtime import Runtime
from yunque.train.optim import Optimizers
from yunque.train.step import update

SECONDS_EACH = 0.8
"""How long each small job is repeated; its shortest time counts."""
LEAST_UPDATES = 4
LIBRARIES_BYTES = 55_000_000
"""What preparing data and the first optimizer load beyond what is there at the start: measured
(docs/lab-notes.md) for pretraining on a CPU; PEFT, transformers and bitsandbytes not included."""
CPU_WATTS_A_CORE, GPU_WATTS = 15.0, 250.0
"""Where the machine does not say: a guess, named as one."""


def small_jobs() -> list[Workload]:
    """Pieces of work in which each kind of `Work` is the greatest part at least once."""

    def job(
        width: int,
        layers: int,
        length: int,
        batch: int,
        vocabulary: int,
        mlp: str = "swiglu",
        dropout: float = 0.0,
        optimizer: str = "adamw",
    ) -> Workload:
        old = mlp == "gelu"
        shape = ModelConfig(
            num_layers=layers,
            hidden_size=width,
            num_heads=max(1, width // 64),
            context_length=length,
            mlp="gelu" if old else "swiglu",
            norm="layernorm" if old else "rmsnorm",
            positions="learned" if old else "rotary",
            bias=old,
            qkv_bias=old,
            qk_norm=not old,
            dropout=dropout,
        ).resolved(vocabulary)
        train = TrainConfig(batch_size=batch)
        return Workload(shape, train, OptimConfig(optimizer=optimizer))  # type: ignore[arg-type]

    return [
        job(64, 6, 64, 2, 100),
        job(64, 2, 64, 2, 100, "gelu"),
        job(128, 4, 64, 12, 100),
        job(128, 4, 128, 16, 100, optimizer="muon"),
        job(192, 4, 256, 8, 100, dropout=0.2),
        job(256, 2, 256, 8, 100, "gelu", dropout=0.1),
        job(256, 2, 1024, 2, 100),
        job(384, 2, 128, 8, 4000, "gelu"),
        job(512, 2, 256, 4, 1000),
        job(768, 2, 256, 2, 1000, "gelu"),
        job(768, 1, 64, 1, 16_000),
        job(128, 1, 128, 8, 30_000),
    ]


def direct_rates(where: Runtime) -> Rates:
    """Rates of one matrix product and of one copy, each at its fastest; 0 for what they leave open.

    They hold the fit of the small jobs in place where other work disturbs those.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(where.precision, torch.float32)
    side, numbers = 768, 1 << 22
    left = torch.ones(side, side, dtype=dtype, device=where.device)
    long = torch.ones(numbers, device=where.device)

    def shortest(work: Callable[[], object]) -> float:
        times = []
        for _ in range(8):
            began = time.perf_counter()
            work()
            if where.device.type == "cuda":
                torch.cuda.synchronize(where.device)
            times.append(time.perf_counter() - began)
        return min(times)

    product = shortest(lambda: left @ left) / (2 * side**3)
    other = torch.empty_like(long)
    moved = shortest(lambda: other.copy_(long)) / (2 * 4 * numbers)
    return Rates(product, moved, 2 * product, moved, moved, 0.0, 0.0)


def seconds_of(job: Workload, where: Runtime) -> tuple[float, float]:
    """(shortest, median) time of an update of this job, in seconds, on random tokens.

    Whatever else the machine does makes an update longer, never shorter: the shortest counts, and
    the median says how steady the machine was.
    """
    model = Decoder(job.shape).to(where.device).train()
    optimizers = Optimizers(model, job.optim)
    scaler = torch.amp.GradScaler(where.device.type, enabled=where.precision == "fp16")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(
        job.shape.vocab_size, (job.train.batch_size, job.row_length + 1), generator=generator
    )
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())  # (B, T) each

    def once(step: int) -> float:
        began = time.perf_counter()
        update(
            step,
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
        return time.perf_counter() - began

    once(0)  # the first also prepares kernels and the optimizer's state
    times: list[float] = []
    while len(times) < LEAST_UPDATES or sum(times) < SECONDS_EACH:
        times.append(once(len(times) + 1))
    return min(times), statistics.median(times)


def calibrate(machine: MachineConfig, told: Callable[[int, int], None]) -> Machine:
    """Measure this machine; about twenty seconds.

    Args:
        machine: device, precision and threads that are measured.
        told: hears how many of how many pieces of work are done.
    """
    where = runtime.start(machine)
    base = where.resident_bytes()
    runtime.keep_freed_memory()
    rows: list[list[float]] = []
    seconds: list[float] = []
    excess: list[float] = []
    jobs = small_jobs()
    for index, job in enumerate(jobs):
        told(index, len(jobs))
        job = dataclasses.replace(job, precision=where.precision)
        rows.append([*update_work(job).values(), 1.0])
        shortest, usual = seconds_of(job, where)
        seconds.append(shortest)
        excess.append(usual / shortest - 1)
    rates = Rates(*fitted(rows, seconds, dataclasses.astuple(direct_rates(where))))
    if not rates.unpacked_weights:
        # No small job has quantised weights: half a byte read and a number written for each.
        rates = dataclasses.replace(rates, unpacked_weights=5 * rates.elementwise_bytes)
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
        unsteadiness=statistics.median(excess),
    )
