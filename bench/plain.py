"""The training that one writes when one has read how a GPT works: what Yunque is measured against.

Nothing here is tuned, on purpose: separate projections, attention with a mask buffer written out,
all logits at once, PyTorch's dropout and AdamW as they come. `fused_attention` is the one step
that everybody knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """A GPT-2 shape."""

    vocab_size: int
    context: int
    layers: int
    heads: int
    width: int
    dropout: float = 0.0
    bias: bool = True
    tied: bool = False
    fused_attention: bool = False

    @property
    def flops_per_token(self) -> int:
        """Of forward and backward: 6 for each weight of a matrix product; attention is left out."""
        return 6 * (12 * self.layers * self.width**2 + self.vocab_size * self.width)


class Attention(nn.Module):
    """Causal attention, `(B, T, C)` → `(B, T, C)`."""

    mask: Tensor

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.fused = shape.heads, shape.fused_attention
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=shape.bias)
        self.dropout = nn.Dropout(shape.dropout)
        ones = torch.ones(shape.context, shape.context)
        self.register_buffer("mask", torch.triu(ones, diagonal=1).bool())

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        split = (B, T, self.heads, C // self.heads)
        q = self.query(x).view(split).transpose(1, 2)  # (B, H, T, D)
        k = self.key(x).view(split).transpose(1, 2)
        v = self.value(x).view(split).transpose(1, 2)
        if self.fused:
            p = self.dropout.p if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        else:
            scores = q @ k.transpose(2, 3) / math.sqrt(C // self.heads)  # (B, H, T, T)
            scores = scores.masked_fill(self.mask[:T, :T], -math.inf)
            y = self.dropout(torch.softmax(scores, dim=-1)) @ v
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside the stream."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width, bias=shape.bias)
        self.attention = Attention(shape)
        self.mlp_norm = nn.LayerNorm(shape.width, bias=shape.bias)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=shape.bias)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=shape.bias)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.down(F.gelu(self.up(self.mlp_norm(x)))))


class GPT(nn.Module):
    """Ids `(B, T)` → logits `(B, T, V)`."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width, bias=shape.bias)
        self.head = nn.Linear(shape.width, shape.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                writes = name.endswith(("out.weight", "down.weight"))
                std = 0.02 / math.sqrt(2 * shape.layers) if writes else 0.02
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        if shape.tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.tokens(ids) + self.positions(places))
        return self.head(self.norm(self.blocks(x)))


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token, from all logits at once."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
