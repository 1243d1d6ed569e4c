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

CHUNK_ELEMENTS = 1 << 23
"""Logits held at once: 8 Mi elements, 32 MiB in float32. Measured on 2 cores at V = 50,257: from
there up the speed no longer grows, while the peak memory does."""


def count_tokens(targets: Tensor) -> int:
    """Number of targets that carry loss."""
    return int((targets != MASKED).sum())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the losses; the gradients are made chunk by chunk during the forward pass."""

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
        work = weight.to(hidden.dtype)
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = F.linear(hidden[part], work).float()  # (rows, V)
            if bias is not None:
                logits += bias
            log_normaliser = torch.logsumexp(logits, dim=-1, keepdim=True)  # (rows, 1)
            target = targets[part].unsqueeze(1)  # (rows, 1)
            kept = target != MASKED
            safe = target.clamp(min=0)
            losses = log_normaliser - logits.gather(1, safe)
            total += torch.where(kept, losses, 0.0).sum()
            if d_hidden is not None:
                # d loss / d logits = softmax - one-hot, 0 in masked rows; made in place.
                slope = logits.sub_(log_normaliser).exp_()
                slope.scatter_add_(1, safe, torch.full_like(log_normaliser, -1.0))
                slope *= kept
                narrow = slope.to(hidden.dtype)
                torch.mm(narrow, work, out=d_hidden[part])
                if d_weight is not None:
                    add_product(d_weight, narrow.T, hidden[part], first=start == 0)
                if d_bias is not None:
                    d_bias += slope.sum(0)
        ctx.made = d_hidden, d_weight, d_bias
        ctx.weight_dtype = weight.dtype
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
    rows = chunk_rows(len(flat), head.weight.shape[0])
    if torch.is_autocast_enabled(flat.device.type):
        flat = flat.to(torch.get_autocast_dtype(flat.device.type))
    with torch.autocast(flat.device.type, enabled=False):
        result: Tensor = _ChunkedCrossEntropy.apply(flat, head.weight, head.bias, wanted, rows)
    return result


def chunk_rows(rows: int, vocab_size: int) -> int:
    """Rows of a chunk: as few chunks as CHUNK_ELEMENTS allows, of equal size.

    A short last chunk would read the whole head for a few rows.
    """
    most = max(1, CHUNK_ELEMENTS // vocab_size)
    chunks = max(1, math.ceil(rows / most))
    return max(1, math.ceil(rows / chunks))


def _any_head_sum(hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
    """`cross_entropy_sum` of rows `(N, C)` for a head of which nothing is known."""

    def part_sum(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(head(rows).float(), wanted, ignore_index=MASKED, reduction="sum")

    with torch.no_grad():
        vocab_size = head(hidden[:1]).shape[-1]
    rows = chunk_rows(len(hidden), vocab_size)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        total = total + checkpoint(part_sum, hidden[part], targets[part], use_reentrant=False)
    return total
