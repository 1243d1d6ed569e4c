"""What is given up to fit into a memory, and in which order."""

from __future__ import annotations

import dataclasses
import math

from yunque.config import AdaptConfig, ModelConfig, OptimConfig, TrainConfig
from yunque.forecast.fit import fit, methods_that_fit
from yunque.forecast.history import MEMORY_SPREAD, SPARE
from yunque.forecast.machine import CUDA_CONTEXT
from yunque.forecast.memory import peak_memory
from yunque.forecast.plan import NORMAL_90
from yunque.forecast.work import Workload
from yunque.model.presets import PRESETS

SMALL = ModelConfig(
    context_length=256, num_layers=2, num_heads=4, num_kv_heads=2, hidden_size=64, dropout=0.0
).resolved(512)
QLORA = AdaptConfig(method="qlora", rank=4)


def test_phi_2_by_qlora_fits_into_four_gigabytes_and_in_full_does_not() -> None:
    job = Workload(
        dataclasses.replace(PRESETS["phi-2.8b"], dropout=0.0).resolved(51200),
        TrainConfig(batch_size=8),
        OptimConfig(),
        "qlora",
        AdaptConfig(method="qlora"),
        length=512,
        precision="fp16",
        device="cuda",
    )
    chosen = fit(job, 4 * 10**9, CUDA_CONTEXT)
    assert chosen.fits
    assert chosen.steps
    assert chosen.memory.base == CUDA_CONTEXT
    assert methods_that_fit(job, 4 * 10**9, CUDA_CONTEXT) == ["qlora"]


def test_what_costs_least_is_given_up_first() -> None:
    # Of two blocks one is half the model: only where there are more does checkpointing save.
    deep = dataclasses.replace(SMALL, num_layers=12)
    job = Workload(deep, TrainConfig(batch_size=8), OptimConfig(), "qlora", QLORA, length=128)
    # On a GPU: the heap of a CPU keeps what checkpointing frees.
    job = dataclasses.replace(job, device="cuda")
    whole = peak_memory(job).total
    assert fit(job, whole).steps == ()
    seen = []
    for budget in range(whole - 1, 0, -whole // 200):
        chosen = fit(job, budget)
        if not chosen.fits:
            break
        assert chosen.memory.total <= budget
        assert chosen.job.train.batch_size == 8
        assert 8 % chosen.job.micro_batch == 0
        if chosen.steps not in seen:
            seen.append(chosen.steps)
    assert seen[:2] == [("rows",), ("rows", "checkpointing")]
    # A head in 4 bits rounds, shorter rows change what is learnt: only when nothing else fits.
    assert all("quantize_head" in steps or "length" in steps for steps in seen[2:])
    assert "length" in seen[-1]


def test_what_the_program_takes_counts() -> None:
    job = Workload(SMALL, TrainConfig(batch_size=8), OptimConfig(), length=128)
    job = dataclasses.replace(job, device="cuda")
    whole = peak_memory(job).total
    assert fit(job, whole + 10**6, 10**6).steps == ()
    assert fit(job, whole, 10**6).steps == ("rows",)


def test_on_a_cpu_the_high_end_must_fit() -> None:
    # What the heap takes is known to some 5 %, and a little stays free: a budget of the
    # likeliest value is not enough.
    job = Workload(SMALL, TrainConfig(batch_size=8), OptimConfig(), length=128)
    whole = peak_memory(job, 10**9).total
    most = fit(job, 10**12, 10**9).most
    assert most == round(whole * math.exp(NORMAL_90 * MEMORY_SPREAD) * SPARE)
    assert fit(job, most, 10**9).steps == ()
    assert fit(job, most - 1, 10**9).steps != ()
