"""What an adapter adds, in one step, against PEFT's own forward pass: values and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from yunque.adapt.low_rank import add_low_rank, compute_here
from yunque.adapt.quantize import quantize
from yunque.config import AdaptConfig

N, C, F, RANK = 5, 12, 20, 4


class Layers(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(C, F, bias), nn.Linear(F, C, bias)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.other(torch.tanh(self.one(x)))
        return result


def made(bias: bool, dropout: float = 0.0, **values: Any) -> nn.Module:
    """Two layers with PEFT's adapters on them, of which nothing is zero."""
    torch.manual_seed(0)
    model = Layers(bias)
    config = LoraConfig(
        r=RANK, lora_alpha=6, target_modules=["one", "other"], lora_dropout=dropout, **values
    )
    inject_adapter_in_model(config, model, "first")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def here(model: nn.Module) -> nn.Module:
    """The same with our forward pass."""
    other = copy.deepcopy(model)
    for layer in (other.one, other.other):
        compute_here(layer)  # type: ignore[arg-type]
    return other


def passed(model: nn.Module, x: Tensor, mixed: bool) -> list[Tensor]:
    """Value, gradient of the input and those of the adapters."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # of the dropout
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        y = model(x)
    y.float().square().sum().backward()
    assert x.grad is not None
    found = [p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None]
    return [y.detach(), x.grad, *found]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("mixed", [False, True])
def test_values_and_gradients_are_those_of_peft(bias: bool, dropout: float, mixed: bool) -> None:
    model, x = made(bias, dropout), torch.randn(3, N, C)
    ours, theirs = passed(here(model), x, mixed), passed(model, x, mixed)
    assert len(ours) == len(theirs) == 2 + 4
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        bound = (2e-2 if mixed else 1e-6) * other.abs().max().item()
        assert (one - other).abs().max().item() <= bound


def test_what_it_is_not_made_for_stays_pefts() -> None:
    model, x = made(False, use_dora=True), torch.randn(2, N, C)
    for one, other in zip(passed(here(model), x, False), passed(model, x, False), strict=True):
        assert torch.equal(one, other)
    model = made(False)
    ours = here(model)
    for layer in (ours.one, ours.other):
        layer.enable_adapters(False)  # type: ignore[operator, union-attr]
    plain = x @ model.one.base_layer.weight.T  # type: ignore[operator, union-attr]
    torch.testing.assert_close(ours.one(x), plain)  # type: ignore[operator]
    assert not torch.allclose(model.one(x), plain)  # type: ignore[operator]


def test_a_layer_keeps_its_name_and_can_be_copied() -> None:
    model = here(made(True))
    assert type(model.one).__name__ == "Linear"
    assert type(copy.deepcopy(model).one) is type(model.one)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_over_a_quantised_base_too(bits: int, bias: bool, mixed: bool) -> None:
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128, bias), nn.Tanh(), nn.Linear(128, 64, bias))
    quantize(model, AdaptConfig(method="qlora", quantize_bits=bits))
    config = LoraConfig(r=RANK, lora_alpha=6, target_modules=["0", "2"])
    inject_adapter_in_model(config, model, "first")
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    x = torch.randn(3, N, 64)
    theirs = passed(model, x, mixed)
    model.zero_grad()
    for place in (0, 2):
        compute_here(model[place])
    for one, other in zip(passed(model, x, mixed), theirs, strict=True):
        bound = (3e-2 if mixed else 1e-5) * other.abs().max().item()
        assert (one - other).abs().max().item() <= bound


def test_two_adapters_add_up_and_the_class_is_changed_once() -> None:
    model = here(made(True))
    kind = type(model.one)
    config = LoraConfig(r=RANK, lora_alpha=6, target_modules=["one", "other"])
    inject_adapter_in_model(config, model, "second")
    for layer in (model.one, model.other):
        compute_here(layer)  # type: ignore[arg-type]
        layer.set_adapter(["first", "second"])  # type: ignore[operator, union-attr]
    assert type(model.one) is kind
    nn.init.normal_(model.one.lora_B["second"].weight)  # type: ignore[index, union-attr]
    x: Any = torch.randn(2, N, C)
    layer: Any = model.one
    want = layer.base_layer(x)
    for name in ("first", "second"):
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        want = want + layer.scaling[name] * (x @ a.T) @ b.T
    torch.testing.assert_close(layer(x), want)


def test_finite_differences_agree() -> None:
    torch.manual_seed(3)
    shapes = ((N, F), (N, C), (RANK, C), (F, RANK))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def step(y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return add_low_rank(y, x, a, b, 0.7)

    assert torch.autograd.gradcheck(step, inputs)
