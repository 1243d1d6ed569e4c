"""Dropout on the CPU: the right share, the right scale, the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from yunque.model.layers import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_share_and_scale(p: float) -> None:
    torch.manual_seed(0)
    n = 400_003  # no multiple of four: the last word of bits is used in part
    y = Dropout(p)(torch.ones(n))
    dropped = (y == 0).float()
    error = 4 * (p * (1 - p) / n) ** 0.5  # four standard deviations
    assert abs(dropped.mean().item() - p) < error
    assert y.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)
    for lane in range(4):  # each 16-bit lane of the 64-bit words is uniform
        assert abs(dropped[lane::4].mean().item() - p) < 2 * error


def test_it_is_a_function_of_the_seed_and_off_in_evaluation() -> None:
    x, layer = torch.randn(3, 5, 7), Dropout(0.5)
    torch.manual_seed(4)
    one = layer(x)
    torch.manual_seed(4)
    assert torch.equal(layer(x), one)
    assert not torch.equal(layer(x), one)
    assert layer.eval()(x) is x


def test_the_gradient_passes_where_the_value_did() -> None:
    x = torch.randn(64, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0)
