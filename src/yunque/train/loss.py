"""Token-true cross-entropy that never holds all the logits.

N rows of hidden states, V vocabulary, C hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from yunque.batch import MASKED

HELD_BYTES = 1 << 26
"""Of logits and what becomes of them, held at once: beyond it memory grows and speed does not."""
COLUMNS = 1 << 12
"""Words of the vocabulary in a product on CPUs: a slice of logits and of the head stay in the cache
until all that reads them has done so (docs/lab-notes.md, "The loss by slices")."""


def count_tokens(targets: Tensor) -> int:
    """Number of targets that carry loss."""
    return int((targets != MASKED).sum())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the losses; the gradients are made chunk by chunk during the forward pass.

    The softmax of a chunk of rows is made for each slice of the vocabulary by itself. The factors
    that make one of all slices, exp(normaliser of the slice - normaliser of all), belong to rows:
    they scale the hidden states and their gradient, never the logits. The target's share - 1, too
    small a number to be left to bf16, is put in its place afterwards.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int
    ) -> Tensor:
        wants, learns = hidden.requires_grad or weight.requires_grad, weight.requires_grad
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if wants else None
        d_weight = torch.empty_like(weight, dtype=torch.float32) if learns else None
        d_bias = None
        if bias is not None and bias.requires_grad:
            d_bias = torch.zeros_like(bias, dtype=torch.float32)
        ctx.weight_dtype = weight.dtype
        if slice_columns(hidden, weight.shape[0]) == weight.shape[0]:
            weight = weight.to(hidden.dtype)  # once, where every product takes it whole
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            x, target = hidden[part], targets[part].unsqueeze(1)  # (rows, C), (rows, 1)
            kept = target != MASKED
            slices, normaliser, chosen = softmax_slices(x, weight, bias, target, held=wants)
            total += torch.where(kept, normaliser - chosen, 0.0).sum()
            if d_hidden is None:
                continue
            safe = target.clamp(min=0)
            # Share of the target - 1, (rows, 1). Without a target the difference means nothing.
            pull = torch.expm1(torch.where(kept, chosen - normaliser, 0.0))
            if len(slices) == 1:  # the softmax itself
                ((_, slope, _),) = slices
                slope.mul_(kept).scatter_(1, safe, pull.to(slope.dtype))
                torch.mm(slope, weight.to(x.dtype), out=d_hidden[part])
                if d_weight is not None:
                    add_product(d_weight, slope.T, x, first=start == 0)
                if d_bias is not None:
                    d_bias += slope.sum(0, dtype=torch.float32)
                continue
            d_x = weight[safe.squeeze(1)].float().mul_(pull)  # (rows, C)
            for columns, shares, own in slices:
                factor = (own - normaliser).exp_().mul_(kept)  # (rows, 1)
                d_x.addcmul_(torch.mm(shares, weight[columns].to(x.dtype)).float(), factor)
                if d_weight is not None:
                    scaled = (x * factor).to(x.dtype)
                    add_product(d_weight[columns], shares.T, scaled, first=start == 0)
                if d_bias is not None:
                    d_bias[columns] += (shares * factor).sum(0)
            d_hidden[part] = d_x
            if d_weight is not None:
                d_weight.index_add_(0, safe.squeeze(1), (x * pull).float())
            if d_bias is not None:
                d_bias.index_add_(0, safe.squeeze(1), pull.squeeze(1))
        ctx.made = d_hidden, d_weight, d_bias
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = grads
        d_hidden, d_weight, d_bias = ctx.made
        ctx.made = None  # they become the gradients: a second way back would scale them twice
        return (
            # In float32: 1 / tokens rounded to bf16 would scale the whole gradient.
            (d_hidden.float() * upstream).to(d_hidden.dtype),
            d_weight.mul_(upstream).to(ctx.weight_dtype) if d_weight is not None else None,
            d_bias.mul_(upstream) if d_bias is not None else None,
            None,
            None,
        )


Slices = list[tuple[slice, Tensor, Tensor]]
"""Columns of the vocabulary, the softmax over them alone `(rows, columns)`, and the logarithm of
its normaliser, `(rows, 1)`."""


def softmax_slices(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *, held: bool
) -> tuple[Slices, Tensor, Tensor]:
    """The softmax of a chunk of rows, slice by slice of the vocabulary.

    Args:
        x: `(rows, C)`.
        weight: `(V, C)`; computed in the type of `x`.
        bias: `(V,)`.
        target: `(rows, 1)`; below 0 where there is none.
        held: whether the slices are wanted, 0 at the target, in the type of `x`.

    Returns:
        The slices, the logarithm of the whole normaliser and the logit of the target, both
        `(rows, 1)`, float32.

    Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax".
    """
    V = weight.shape[0]
    width = slice_columns(x, V)
    slices: Slices = []
    normalisers, chosen = [], []
    for first in range(0, V, width):
        columns = slice(first, min(first + width, V))
        logits = F.linear(x, weight[columns].to(x.dtype))  # (rows, columns)
        if bias is not None:
            logits = logits + bias[columns]
        place = (target - first).clamp_(0, logits.shape[1] - 1)
        here = place == target - first
        chosen.append(torch.where(here, logits.gather(1, place).float(), 0.0))
        shares = torch.softmax(logits, -1, dtype=torch.float32)
        # The share of the largest logit is exp(largest - normaliser).
        largest = logits.amax(-1, keepdim=True).float()
        normalisers.append(largest - shares.amax(-1, keepdim=True).log_())
        if held:
            shares.scatter_(1, place, torch.where(here, 0.0, shares.gather(1, place)))
            slices.append((columns, shares.to(x.dtype), normalisers[-1]))
    if len(chosen) == 1:
        return slices, normalisers[0], chosen[0]
    whole = torch.logsumexp(torch.cat(normalisers, 1), -1, keepdim=True)
    return slices, whole, torch.cat(chosen, 1).sum(-1, keepdim=True)


def add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """total += left · right, or = where it is the `first`; `total` is float32.

    A product in a narrower precision is rounded to it, the sum of the products is not.
    """
    if left.dtype != total.dtype:
        product = torch.mm(left, right)
        total.copy_(product) if first else total.add_(product)
    elif first:
        torch.mm(left, right, out=total)
    else:
        total.addmm_(left, right)


def cross_entropy_sum(hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
    """Sum over the unmasked targets of -log p(target), in nats, float32.

    Args:
        hidden: `(B, T, C)`, from the decoder.
        head: `(..., C)` → logits `(..., V)`. Of an nn.Linear the gradients are made on the way;
            of anything else (soft-capped logits, a wrapped projection) by computing each chunk
            once more on the way back.
        targets: ids `(B, T)`, MASKED where a token carries no loss.

    Returns:
        A scalar that carries gradients to `hidden` and to the head. Divide it by the number of
        unmasked tokens of the *whole* batch, not of this part: losses of parts with different
        numbers of tokens then add up to the loss of the whole.
    """
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)  # (N, C), (N,)
    if flat.device.type == "cpu":
        # Rows without loss need no logits. A GPU would have to wait for their number.
        kept = wanted != MASKED
        if 0 < kept.sum() < len(kept):
            flat, wanted = flat[kept], wanted[kept]
    if type(head) is not nn.Linear:  # a subclass may compute something else
        return _any_head_sum(flat, head, wanted)
    if torch.is_autocast_enabled(flat.device.type):
        flat = flat.to(torch.get_autocast_dtype(flat.device.type))
    rows = chunk_rows(len(flat), row_bytes(flat, head.weight.shape[0]))
    with torch.autocast(flat.device.type, enabled=False):
        result: Tensor = _ChunkedCrossEntropy.apply(flat, head.weight, head.bias, wanted, rows)
    return result


def slice_columns(x: Tensor, vocab_size: int) -> int:
    """Words of a slice of the vocabulary: a GPU wants few large products."""
    return min(vocab_size, COLUMNS) if x.device.type == "cpu" else vocab_size


def row_bytes(x: Tensor, vocab_size: int) -> int:
    """Bytes that a row of a chunk takes: its softmax, and the logits of a slice, in 16 bits with
    their softmax in float32."""
    number = x.element_size()
    passing = 4 + number if number < 4 else number
    return number * vocab_size + passing * slice_columns(x, vocab_size)


def chunk_rows(rows: int, each: int) -> int:
    """Rows of a chunk: as few chunks as HELD_BYTES allows, of equal size.

    A short last chunk would read the whole head for a few rows.

    Args:
        each: bytes that a row takes.
    """
    chunks = max(1, math.ceil(rows / max(1, HELD_BYTES // each)))
    return max(1, math.ceil(rows / chunks))


def _any_head_sum(hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
    """`cross_entropy_sum` of rows `(N, C)` for a head of which nothing is known."""

    def part_sum(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(head(rows).float(), wanted, ignore_index=MASKED, reduction="sum")

    with torch.no_grad():
        vocab_size = head(hidden[:1]).shape[-1]
    rows = chunk_rows(len(hidden), 8 * vocab_size)  # logits, and what becomes of them
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        total = total + checkpoint(part_sum, hidden[part], targets[part], use_reentrant=False)
    return total
