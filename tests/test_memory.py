"""Memory by arithmetic: counts against the model itself; what is given up, in which order."""

from __future__ import annotations

import dataclasses

import pytest

from yunque.adapt.lora import adapter_parameters, add_lora
from yunque.config import AdaptConfig, ModelConfig, OptimConfig
from yunque.memory import (
    Work,
    adapter_count,
    counts,
    estimate,
    fit,
    methods_that_fit,
    quantized_bytes,
)
from yunque.model.decoder import Decoder
from yunque.model.presets import PRESETS
from yunque.weights.families import module_names

SMALL = ModelConfig(
    context_length=256, num_layers=2, num_heads=4, num_kv_heads=2, hidden_size=64, dropout=0.0
).resolved(512)
QLORA = AdaptConfig(method="qlora", rank=4)
OPTIM = OptimConfig()


@pytest.mark.parametrize("name", ["gpt2-124m", "llama-135m", "llama-1.1b", "phi-2.8b", "nano"])
def test_the_parameters_are_those_of_the_model(name: str) -> None:
    shape = PRESETS[name].resolved(1000)
    assert counts(shape)["total"] == Decoder.empty(shape).parameter_counts()["total"]


@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj")])
def test_an_adapter_has_as_many_parameters(targets: tuple[str, ...]) -> None:
    adapt = AdaptConfig(rank=3, targets=targets)
    model = add_lora(Decoder(SMALL), adapt, 1, module_names(SMALL))
    held = sum(p.numel() for p in adapter_parameters(model, "default"))
    assert adapter_count(SMALL, adapt) == held


def test_quantised_matrices_by_hand() -> None:
    # 4 bits: half a byte; one scale for 64 numbers, in 4 bytes or in one with 4 for 256 of them.
    assert quantized_bytes(64 * 512, 4, double=False) == 16384 + 4 * 512
    assert quantized_bytes(64 * 512, 4, double=True) == 16384 + 512 + 4 * 2
    assert quantized_bytes(64 * 512, 8, double=True, rows=64) == 32768 + 4 * 64


def test_phi_2_by_qlora_fits_into_four_gigabytes_and_in_full_does_not() -> None:
    shape = dataclasses.replace(PRESETS["phi-2.8b"], dropout=0.0).resolved(51200)
    work = Work("qlora", 2, 2, rows=8, length=512)
    plan = fit(shape, work, AdaptConfig(method="qlora"), OPTIM, 4 * 10**9, device="cuda")
    assert plan.fits
    assert plan.steps
    known = (shape, work, AdaptConfig(method="qlora"), OPTIM, 4 * 10**9)
    assert methods_that_fit(*known, device="cuda") == ["qlora"]


def test_what_costs_least_is_given_up_first() -> None:
    work = Work("qlora", 4, 4, rows=8, length=128)
    whole = estimate(SMALL, work, QLORA, OPTIM).total
    assert fit(SMALL, work, QLORA, OPTIM, whole).steps == ()
    seen = []
    for budget in range(whole - 1, 0, -whole // 200):
        plan = fit(SMALL, work, QLORA, OPTIM, budget)
        if not plan.fits:
            break
        assert plan.parts.total <= budget
        assert work.rows % plan.work.rows == 0
        if plan.steps not in seen:
            seen.append(plan.steps)
    assert seen[:2] == [("rows",), ("rows", "checkpointing")]
    # Shorter rows change what is learnt: only when no row of the full length fits.
    assert all("length" in steps for steps in seen[2:])
    assert "length" in seen[-1]


def test_parts_add_up_and_grow_with_what_they_stand_for() -> None:
    work = Work("lora", 4, 4, rows=4, length=128)
    parts = estimate(SMALL, work, AdaptConfig(rank=4), OPTIM)
    assert parts.to_json()["total"] == sum(vars(parts).values())
    twice = estimate(SMALL, dataclasses.replace(work, rows=8), AdaptConfig(rank=4), OPTIM)
    assert twice.activations == 2 * parts.activations
    assert twice.weights == parts.weights == 4 * counts(SMALL)["total"]
    trained = adapter_count(SMALL, AdaptConfig(rank=4))
    assert (parts.adapter, parts.gradients, parts.optimizer) == tuple(
        n * trained for n in (4, 4, 8)
    )
