"""Dropout on the CPU: the right share, the right scale, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yunque.model.dropout import Dropout, draw_bits, kept_by


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


def test_the_mask_is_that_of_the_words_that_were_drawn() -> None:
    """An element is kept where its 16 bits, as a number, are not among the lowest."""
    torch.manual_seed(3)
    kept, scale = kept_by(draw_bits(torch.Size((5, 7))), 0.25, torch.float32)
    torch.manual_seed(3)
    words = np.random.SFC64(int(torch.randint(2**63 - 1, ()).item())).random_raw(9)
    bits = torch.from_numpy(words.view(np.int16)[:35].reshape(5, 7).copy())
    assert torch.equal(kept, (bits >= -(2**14)).float())
    assert scale == pytest.approx(4 / 3)
