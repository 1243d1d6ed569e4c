"""What an adapter adds to a layer, as one step: y + s · (x Aᵀ) Bᵀ.

PEFT makes of it, on a layer of C to F with N tokens, three tensors of `(N, F)` and two of `(N, C)`
besides the products, and with mixed precision turns its input into float32 and back.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _LowRank(torch.autograd.Function):
    """y `(..., F)`, x `(..., C)`, a `(r, C)`, b `(F, r)`; the products in the type of x.

    Not written into y: bitsandbytes gives views that autograd lets nobody change.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        inside = F.linear(x, a.to(x.dtype))  # (..., r)
        flat, wide = inside.view(-1, inside.shape[-1]), b.to(x.dtype).T
        result = torch.empty_like(y, memory_format=torch.contiguous_format)
        if y.dtype == x.dtype:
            rows = y.reshape(-1, y.shape[-1])
            torch.addmm(rows, flat, wide, alpha=scale, out=result.view(rows.shape))
        else:
            torch.add(y, torch.mm(flat, wide).view(y.shape), alpha=scale, out=result)
        ctx.save_for_backward(x, inside, a, b)
        ctx.scale = scale
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, inside, a, b = ctx.saved_tensors
        kind, rank = x.dtype, inside.shape[-1]
        upstream = grads[0].reshape(-1, b.shape[0]).to(kind)  # (N, F)
        d_inside = torch.mm(upstream, b.to(kind)).mul_(ctx.scale)  # (N, r)
        d_x = d_a = d_b = None
        if ctx.needs_input_grad[1]:
            d_x = torch.mm(d_inside, a.to(kind)).view(x.shape)
        if ctx.needs_input_grad[2]:
            d_a = torch.mm(d_inside.T, x.reshape(-1, a.shape[1])).to(a.dtype)
        if ctx.needs_input_grad[3]:
            d_b = torch.mm(upstream.T, inside.view(-1, rank)).to(b.dtype).mul_(ctx.scale)
        return grads[0], d_x, d_a, d_b, None


def add_low_rank(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """y + scale · (x aᵀ) bᵀ, in the type of y; y `(..., F)`, x `(..., C)`, a `(r, C)`, b `(F, r)`.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """
    device = y.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        step: Any = _LowRank  # PyTorch gives `apply` no types
        result: Tensor = step.apply(y, x, a, b, scale)
    return result


def compute_here(layer: nn.Module) -> None:
    """Let a layer that PEFT made add its adapters by `add_low_rank`, in place.

    Its tensors and its settings stay PEFT's, and so does what `add_low_rank` is not made for:
    DoRA, merged and disabled adapters. A model with such layers can be copied, but not pickled,
    which nothing here does.
    """
    layer.__class__ = with_low_rank(type(layer))  # type: ignore[arg-type]


@functools.cache
def with_low_rank(kind: Any) -> Any:
    """The kind of layer with our forward pass, under its own name; one that has it as it is."""
    if hasattr(kind, "adds_low_rank"):
        return kind

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        active = [name for name in self.active_adapters if name in self.lora_A]
        other = args or kwargs or self.disable_adapters or self.merged
        if other or any(name in self.lora_variant for name in active):
            result: Tensor = kind.forward(self, x, *args, **kwargs)
            return result
        y: Tensor = self.base_layer(x)
        for name in active:
            a, b = self.lora_A[name].weight, self.lora_B[name].weight
            y = add_low_rank(y, self.lora_dropout[name](x), a, b, self.scaling[name])
        return y

    return type(kind.__name__, (kind,), {"forward": forward, "adds_low_rank": True})
