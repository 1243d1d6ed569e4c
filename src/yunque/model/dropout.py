"""Dropout, on CPUs from 16 random bits an element."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero each element with probability p and scale the rest by 1 / (1 - p), while training.

    On CPUs the mask comes from 16 random bits an element, drawn 64 at a time by a fast generator: a
    fraction of the time of PyTorch's own there (docs/lab-notes.md), and p is exact to 2^-17.

    Source: Srivastava et al. 2014, "Dropout".
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped: Any = _Dropped  # PyTorch gives `apply` no types
        result: Tensor = dropped.apply(x, self.p)
        return result


class _Dropped(torch.autograd.Function):
    """Dropout on the CPU; the way back keeps the random bits, half as wide as a mask of float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        bits, ctx.p = draw_bits(x.shape), p
        ctx.save_for_backward(bits)
        kept, scale = kept_by(bits, p, x.dtype)
        return x * kept.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        kept, scale = kept_by(bits, ctx.p, grads[0].dtype)
        return kept.mul_(scale).mul_(grads[0]), None


def draw_bits(shape: torch.Size) -> Tensor:
    """16 random bits an element, int16, on the CPU."""
    seed = int(torch.randint(2**63 - 1, ()).item())  # so that PyTorch's seed decides
    words = np.random.SFC64(seed).random_raw((shape.numel() + 3) // 4)
    return torch.from_numpy(words.view(np.int16)[: shape.numel()]).view(shape)


def kept_by(bits: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """1 where an element is kept and 0 where it is dropped; what the kept grow by."""
    dropped = round(p * 2**16)  # of the 2^16 values, the lowest
    kept = torch.empty(bits.shape, dtype=dtype)
    torch.ge(bits, dropped - 2**15, out=kept)  # an eighth of the time of a bool result
    return kept, 2**16 / (2**16 - dropped)
