"""Schedules by table, Muon against PyTorch's own, state saved and restored."""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import Any

import pytest
import torch
from torch import nn

from yunque.config import ModelConfig, OptimConfig
from yunque.errors import InputError, MissingPackageError
from yunque.model.decoder import Decoder
from yunque.train.optim import (
    DRAWN,
    AdamW16bit,
    Muon,
    Optimizers,
    WeightAverage,
    cut_at_random,
    learning_rate_multiplier,
    orthogonalise,
)

NEEDS_BITSANDBYTES = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
IN_8_BITS = pytest.param("adamw8bit", marks=NEEDS_BITSANDBYTES)


@pytest.mark.parametrize(
    ("schedule", "step", "want"),
    [
        ("cosine", 0, 1 / 11),
        ("cosine", 9, 10 / 11),
        ("cosine", 10, 1.0),
        ("cosine", 60, 0.1 + 0.9 * 0.5),
        ("cosine", 109, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.99))),
        ("linear", 60, 0.1 + 0.9 * 0.5),
        ("linear", 109, 0.1 + 0.9 * 0.01),
        ("constant", 10, 1.0),
        ("constant", 109, 1.0),
        ("wsd", 10, 1.0),
        ("wsd", 89, 1.0),
        ("wsd", 100, 0.1 + 0.9 * 0.5),
    ],
)
def test_schedules(schedule: str, step: int, want: float) -> None:
    config = OptimConfig(
        schedule=schedule,  # type: ignore[arg-type]
        warmup_steps=10,
        decay_fraction=0.2,
        final_learning_rate_fraction=0.1,
    )
    assert learning_rate_multiplier(step, 110, config) == pytest.approx(want)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("warmup", [0, 1, 50, 5000])
def test_every_update_has_a_rate_above_zero_and_none_above_the_peak(
    schedule: str, steps: int, warmup: int
) -> None:
    config = OptimConfig(
        schedule=schedule,  # type: ignore[arg-type]
        warmup_steps=warmup,
        final_learning_rate_fraction=0.0,
    )
    rates = [learning_rate_multiplier(step, steps, config) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_orthogonalise_pushes_singular_values_towards_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_steps_as_torch_does() -> None:
    """PyTorch's Muon works in bf16; the tolerance is bf16's spacing at the update's size."""
    torch.manual_seed(0)
    start = torch.randn(32, 16)
    gradients = [torch.randn(32, 16) for _ in range(3)]
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, momentum=0.95, weight_decay=0.1, nesterov=True, adjust_lr_fn="original"
    )
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    moved = (theirs.detach() - start).norm()
    assert moved > 0.1
    assert (ours.detach() - theirs.detach()).norm() / moved < 0.03


def tiny(hidden_size: int = 16) -> Decoder:
    shape = ModelConfig(
        context_length=8,
        num_layers=2,
        num_heads=2,
        hidden_size=hidden_size,
        qk_norm=True,
        dropout=0.0,
    ).resolved(11)
    return Decoder(shape, seed=3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "adamw16bit", IN_8_BITS])
def test_every_parameter_is_updated_once_and_decay_spares_vectors(optimizer: str) -> None:
    model = tiny()
    config = OptimConfig(optimizer=optimizer)  # type: ignore[arg-type]
    optimizers = Optimizers(model, config)
    groups = [group for part in optimizers.parts for group in part.param_groups]
    taken = [id(p) for group in groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in model.parameters())
    for group in groups:
        if group["weight_decay"]:
            assert all(p.dim() >= 2 for p in group["params"])
    if optimizer == "muon":
        muon = {id(p) for group in optimizers.parts[-1].param_groups for p in group["params"]}
        names = {name for name, p in model.named_parameters() if id(p) in muon}
        assert "token_embedding.weight" not in names
        assert len(names) == 2 * 7


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "adamw16bit", IN_8_BITS])
def test_state_survives_a_round_trip_bit_for_bit(optimizer: str) -> None:
    config = OptimConfig(optimizer=optimizer)  # type: ignore[arg-type]
    # Matrices of 4,096 numbers and more are those that bitsandbytes keeps in 8 bits.
    one, other = tiny(64), tiny(64)
    first, second = Optimizers(one, config), Optimizers(other, config)

    def step(model: Decoder, optimizers: Optimizers, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizers.set_rate(0.5)
        optimizers.step()

    step(one, first, 1)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    with torch.no_grad():
        for target, source in zip(other.parameters(), one.parameters(), strict=True):
            target.copy_(source)
    second.load(saved)
    step(one, first, 2)
    step(other, second, 2)
    for target, source in zip(other.parameters(), one.parameters(), strict=True):
        assert torch.equal(target, source)
    assert first.state().keys() == second.state().keys()
    assert all(torch.equal(first.state()[key], second.state()[key]) for key in first.state())
    kinds = {value.dtype for key, value in first.state().items() if key.endswith("|state1")}
    assert kinds == ({torch.uint8, torch.float32} if optimizer == "adamw8bit" else set())


@NEEDS_BITSANDBYTES
def test_eight_bits_step_nearly_as_adamw_does_and_decay_the_same() -> None:
    """After some updates: within a few hundredths of the way; without a gradient exactly."""
    moved = {}
    for optimizer in ("adamw", "adamw8bit"):
        model = tiny(64)
        start = [p.detach().clone() for p in model.parameters()]
        made = Optimizers(model, OptimConfig(optimizer=optimizer, weight_decay=0.1))  # type: ignore[arg-type]
        torch.manual_seed(0)
        for _ in range(5):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            made.step()
        moved[optimizer] = torch.cat(
            [(p.detach() - q).flatten() for p, q in zip(model.parameters(), start, strict=True)]
        )
    off = (moved["adamw8bit"] - moved["adamw"]).norm() / moved["adamw"].norm()
    assert 0 < off < 0.05

    for optimizer in ("adamw", "adamw8bit"):
        model = tiny(64)
        matrix, vector = model.token_embedding.weight, model.final_norm.weight
        before = [matrix.detach().clone(), vector.detach().clone()]
        made = Optimizers(
            model,
            OptimConfig(optimizer=optimizer, learning_rate=0.5, weight_decay=0.1),  # type: ignore[arg-type]
        )
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        made.step()
        torch.testing.assert_close(matrix.detach(), 0.95 * before[0])
        assert torch.equal(vector.detach(), before[1])


@NEEDS_BITSANDBYTES
def test_eight_bits_where_they_do_not_work_name_what_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match=r"the device is cpu\. Use --optimizer adamw8bit"):
        Optimizers(tiny(), OptimConfig(optimizer="paged_adamw8bit"))
    from bitsandbytes.optim import AdamW8bit

    def no_kernel(self: Any, *given: Any) -> None:
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(AdamW8bit, "update_step", no_kernel)
    with pytest.raises(InputError, match=r"on cpu here \(no kernel\). Use --optimizer adamw\."):
        Optimizers(tiny(), OptimConfig(optimizer="adamw8bit"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(MissingPackageError, match=r"yunque\[quant\]"):
        Optimizers(tiny(), OptimConfig(optimizer="adamw8bit"))


def test_weight_average_is_the_recursion_and_swaps_back() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    want = model.weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update(step)
        decay = min(0.5, step / (step + 10))
        want = decay * want + (1 - decay) * model.weight.detach()
    now = model.weight.detach().clone()
    average.swap()
    torch.testing.assert_close(model.weight.detach(), want)
    average.swap()
    assert torch.equal(model.weight.detach(), now)


def moved_by(optimizer: str, beta2: float, updates: int) -> torch.Tensor:
    """How far a matrix goes on gradients of very different sizes."""
    torch.manual_seed(0)
    matrix = nn.Linear(300, 200, bias=False)
    start = matrix.weight.detach().clone()
    sizes = torch.logspace(-6, 0, 300)
    made = Optimizers(matrix, OptimConfig(optimizer=optimizer, beta2=beta2))  # type: ignore[arg-type]
    for _ in range(updates):
        matrix.weight.grad = torch.randn_like(start) * sizes
        made.step()
    return matrix.weight.detach() - start


@pytest.mark.parametrize("beta2", [0.95, 0.999])
def test_sixteen_bits_step_nearly_as_adamw_does(beta2: float) -> None:
    want, got = (moved_by(name, beta2, 40) for name in ("adamw", "adamw16bit"))
    off = (got - want).norm() / want.norm()
    assert 0 < off < 0.005


def test_sixteen_bits_keep_falling_where_rounding_to_the_nearest_would_stand_still() -> None:
    """After large gradients small ones: the mean of squares falls by a thousandth each time."""
    weight = nn.Parameter(torch.zeros(4096))
    made = AdamW16bit([weight], 1e-3, (0.9, 0.999))
    for number in range(400):
        weight.grad = torch.full_like(weight, 1.0 if number == 0 else 0.0)
        made.step()
    kept = made.state[weight]["exp_avg_sq"].float()
    want = 1e-3 * 0.999**399
    assert kept.mean().item() == pytest.approx(want, rel=0.005)
    stuck = torch.tensor(1e-3).bfloat16()
    assert torch.equal((stuck.float() * 0.999).bfloat16(), stuck)


def test_cutting_at_random_keeps_the_expected_value_and_what_bf16_has() -> None:
    values = torch.tensor([1.0 + 2**-9, 1.0 + 3 * 2**-9, -1e-30, 3.3e7])
    sums = torch.zeros(4, dtype=torch.float64)
    count = 50
    for seed in range(count):
        drawn = torch.randint(
            1 << 16, (DRAWN,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32
        )
        block = values.repeat(DRAWN + 7)
        cut_at_random(block, drawn)
        assert torch.equal(block.bfloat16().float(), block)
        sums += block.view(-1, 4).double().mean(0)
    spacing = values.double().abs() * 2**-7
    error = 5 * spacing * 0.5 / math.sqrt(count * DRAWN / 4)  # five standard deviations, at most
    assert ((sums / count - values.double()).abs() < error).all()
    exact = torch.tensor([0.0, -0.0, 1.5, -(2.0**-126), 2.0**-133]).repeat(1000)
    block = exact.clone()
    cut_at_random(block, drawn)
    assert torch.equal(block, exact)
