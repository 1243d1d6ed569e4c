"""RMSNorm's own gradient on the CPU against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from yunque.model.layers import RMSNorm


@pytest.mark.parametrize("shape", [(7, 32), (3, 5, 4, 16), (2, 9, 160)])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 100.0])
def test_value_and_gradients_are_those_of_torch(shape: tuple[int, ...], spread: float) -> None:
    torch.manual_seed(1)
    x = (spread * (torch.randn(shape) + 0.5)).requires_grad_()  # a mean that is not zero
    norm = RMSNorm(shape[-1], eps=1e-5)
    torch.nn.init.normal_(norm.weight, 1.0, 0.3)
    upstream = torch.randn(shape) + 0.3
    y = norm(x)
    got = torch.autograd.grad(y, (x, norm.weight), upstream)
    exact = x.detach().double().requires_grad_()
    weight = norm.weight.detach().double().requires_grad_()
    want_y = F.rms_norm(exact, (shape[-1],), weight, 1e-5)
    want = torch.autograd.grad(want_y, (exact, weight), upstream.double())
    torch.testing.assert_close(y.double(), want_y, rtol=2e-6, atol=2e-6)
    for one, other in zip(got, want, strict=True):
        largest = float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=0, atol=4e-6 * largest)


def test_a_frozen_weight_gets_no_gradient_and_evaluation_agrees() -> None:
    torch.manual_seed(2)
    norm, x = RMSNorm(24, eps=1e-6), torch.randn(5, 24, requires_grad=True)
    norm.weight.requires_grad_(False)
    y = norm(x)
    y.sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is None
    with torch.no_grad():
        torch.testing.assert_close(norm(x), y.detach(), rtol=1e-6, atol=1e-6)
