"""Attention on CPUs against the formula in double precision: values, gradients, dropout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from yunque.model.attention import QUERIES, blocks, causal_attention, computed_here
from yunque.model.dropout import draw_bits, kept_by

B, D = 2, 8
TOLERANCE = {torch.float32: 4e-6, torch.bfloat16: 4e-2}
LENGTHS = (2, 37, QUERIES, 200, 4 * QUERIES)


def formula(q: Tensor, k: Tensor, v: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    """softmax(q kᵀ / √D) v of the tokens before, in double precision."""
    groups, T = q.shape[1] // k.shape[1], q.shape[2]
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) / D**0.5
    ahead = torch.ones(T, T).triu(1).bool()
    return (torch.softmax(scores.masked_fill(ahead, -torch.inf), -1) * kept) @ v


def drawn(T: int, H: int, G: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Queries, keys and values, and the gradient of what is made of them."""
    torch.manual_seed(2)
    made = [torch.randn(B, T, n, D, dtype=dtype).transpose(1, 2) for n in (H, G, G, H)]
    return made[:3], made[3]


def hold_equal(ours: list[Tensor], want: list[Tensor], dtype: torch.dtype) -> None:
    for one, other in zip(ours, want, strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        size = other.abs().max().item()
        assert (one.double() - other).abs().max().item() <= TOLERANCE[dtype] * size


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize(("H", "G"), [(3, 3), (4, 2)])
def test_it_is_the_formula(T: int, H: int, G: int, dtype: torch.dtype) -> None:
    inputs, upstream = drawn(T, H, G, dtype)
    q, k, v = (x.clone().requires_grad_() for x in inputs)
    y = causal_attention(q, k, v)
    ours = [y.detach(), *torch.autograd.grad(y, (q, k, v), upstream)]
    assert y.transpose(1, 2).is_contiguous()
    q, k, v = (x.double().requires_grad_() for x in inputs)
    want = formula(q, k, v)
    hold_equal(
        ours, [want.detach(), *torch.autograd.grad(want, (q, k, v), upstream.double())], dtype
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", LENGTHS)
def test_with_dropout_it_is_the_formula_of_the_weights_that_are_left(
    T: int, dtype: torch.dtype
) -> None:
    H, p = 3, 0.3
    inputs, upstream = drawn(T, H, H, dtype)
    q, k, v = (x.clone().requires_grad_() for x in inputs)
    torch.manual_seed(5)
    y = causal_attention(q, k, v, p)
    ours = [y.detach(), *torch.autograd.grad(y, (q, k, v), upstream)]
    torch.manual_seed(5)
    kept = torch.zeros(B * H, T, T, dtype=torch.float64)
    for first, end in blocks(T):
        shape = torch.Size((B * H, end - first, end))
        ones, scale = kept_by(draw_bits(shape), p, torch.float64)
        kept[:, first:end, :end] = ones * scale
    below = kept[:, torch.ones(T, T).tril().bool()] > 0
    if T > 2:
        assert 0.25 < 1 - below.double().mean().item() < 0.35
    q, k, v = (x.double().requires_grad_() for x in inputs)
    want = formula(q, k, v, kept.view(B, H, T, T))
    hold_equal(
        ours, [want.detach(), *torch.autograd.grad(want, (q, k, v), upstream.double())], dtype
    )


@pytest.mark.parametrize("T", [1, 2, 127, 128, 129, 200, 512, 1000])
def test_blocks_cover_every_query_once(T: int) -> None:
    found = list(blocks(T))
    assert [query for first, end in found for query in range(first, end)] == list(range(T))
    assert max(end - first for first, end in found) <= 1.5 * QUERIES


def test_where_it_is_the_way() -> None:
    def q(T: int) -> Tensor:
        return torch.empty(1, 1, T, 4)

    assert computed_here(q(512), 0.0)
    assert not computed_here(q(513), 0.0)
    assert computed_here(q(513), 0.1)
    assert not computed_here(q(1), 0.1)  # one token, as writing asks for: nothing to drop by blocks
    assert not computed_here(q(64).to("meta"), 0.0)
