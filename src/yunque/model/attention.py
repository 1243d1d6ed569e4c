"""Causal attention on CPUs, as products of blocks of queries.

B batch, H heads, G key/value heads, T tokens, D head size. PyTorch's fused kernel for CPUs makes
its products in small tiles, in bf16 on the way back at a quarter of the processor's speed, and has
no dropout. Figures: docs/lab-notes.md, "Attention on CPUs".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from yunque.model.dropout import draw_bits, kept_by

QUERIES = 128
"""Queries of a block: keys that lie behind the last of them are not multiplied."""
LONGEST = 512
"""Tokens up to which this is faster than the fused kernel; with dropout it always is."""


def for_products(x: Tensor) -> Tensor:
    """x, of any shape, with mixed precision in the type of the products.

    To be called once for all the layers that read it: autocast makes a copy for each, and each
    would be kept for the way back.
    """
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def computed_here(q: Tensor, p: float) -> bool:
    """Whether `causal_attention` is the way for these queries, `(B, H, T, D)`."""
    T = q.shape[2]
    return q.device.type == "cpu" and T > 1 and (p > 0 or T <= LONGEST)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, p: float = 0.0) -> Tensor:
    """What `scaled_dot_product_attention` computes, each weight dropped with probability p.

    Args:
        q: `(B, H, T, D)`, on the CPU.
        k, v: `(B, G, T, D)`; H is a multiple of G.

    Returns:
        `(B, H, T, D)`, laid out as `(B, T, H, D)`.

    Source: Vaswani et al. 2017, section 3.2.
    """
    q, k, v = for_products(q), for_products(k), for_products(v)
    with torch.autocast("cpu", enabled=False):
        attention: Any = _CausalAttention  # PyTorch gives `apply` no types
        result: Tensor = attention.apply(q, k, v, p)
    return result


class _CausalAttention(torch.autograd.Function):
    """q `(B, H, T, D)`, k and v `(B, G, T, D)`.

    Without dropout the weights are computed once more on the way back. With it they are kept,
    negative where they were dropped.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
        B, H, T, D = q.shape
        ctx.groups = H // k.shape[1]
        q, k, v = (x.reshape(-1, T, D) for x in (q, k, v))
        read_k, read_v = spread(k, ctx.groups), spread(v, ctx.groups)
        y = q.new_empty(B, T, H, D).transpose(1, 2)  # (B, H, T, D)
        kept, ctx.scale = [], 1.0
        for first, end in blocks(T):
            weights = causal_weights(q, read_k, first, end)  # (B·H, end - first, end)
            if p > 0:
                ones, ctx.scale = kept_by(draw_bits(weights.shape), p, q.dtype)
                found = torch.bmm(weights * ones, read_v[:, :end]).mul_(ctx.scale)
                kept.append(weights.mul_(ones.mul_(2).sub_(1)))
            else:
                found = torch.bmm(weights, read_v[:, :end])
            y[:, :, first:end] = found.view(B, H, end - first, D)
        ctx.save_for_backward(q, k, v, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        (B, H, T, D), groups = grads[0].shape, ctx.groups
        d_y = grads[0].reshape(B * H, T, D)
        read_k, read_v = spread(k, groups), spread(v, groups)
        d_q = torch.empty_like(q)
        # Sums over the blocks, in float32 at least.
        wide = torch.promote_types(q.dtype, torch.float32)
        d_k, d_v = (q.new_zeros(q.shape, dtype=wide) for _ in range(2))
        for index, (first, end) in enumerate(blocks(T)):
            upstream = d_y[:, first:end]
            if kept:
                signed, upstream = kept[index], upstream * ctx.scale
                weights, left = signed.abs(), signed.clamp(min=0)
            else:
                weights = left = causal_weights(q, read_k, first, end)
            d_v[:, :end] += torch.bmm(left.transpose(1, 2), upstream)
            d_weights = torch.bmm(upstream, read_v[:, :end].transpose(1, 2))
            if kept:
                d_weights *= torch.gt(signed, 0, out=torch.empty_like(signed))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, q.dtype)
            d_scores *= 1 / math.sqrt(D)
            d_q[:, first:end] = torch.bmm(d_scores, read_k[:, :end])
            d_k[:, :end] += torch.bmm(d_scores.transpose(1, 2), q[:, first:end])
        # Of the heads that read the same keys and values the gradients are added.
        d_k, d_v = (d.view(B, H // groups, groups, T, D).sum(2).to(k.dtype) for d in (d_k, d_v))
        return d_q.view(B, H, T, D), d_k, d_v, None


def spread(x: Tensor, groups: int) -> Tensor:
    """Keys or values `(B·G, T, D)` for each head that reads them, `(B·H, T, D)`."""
    return x.repeat_interleave(groups, 0) if groups > 1 else x


def blocks(T: int) -> Iterator[tuple[int, int]]:
    """First query of each block and the one behind its last; blocks of about equal size."""
    size = math.ceil(T / max(1, round(T / QUERIES)))
    return ((first, min(first + size, T)) for first in range(0, T, size))


def causal_weights(q: Tensor, k: Tensor, first: int, end: int) -> Tensor:
    """Weights of the queries of a block over all keys up to its end, `(B·H, end - first, end)`."""
    ahead = q.new_full((end - first, end), -math.inf).triu_(first + 1)
    keys, scale = k[:, :end].transpose(1, 2), 1 / math.sqrt(q.shape[-1])
    return torch.softmax(torch.baddbmm(ahead, q[:, first:end], keys, alpha=scale), -1)
