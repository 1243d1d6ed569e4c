"""The parts of a decoder: norms, attention with a cache, feed-forward.

Shapes: B batch, T tokens in this call, S tokens attended to (cache included), C hidden size,
H heads, G key/value heads, D head size, F intermediate size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yunque.config import ModelConfig
from yunque.model.attention import causal_attention, computed_here, for_products
from yunque.model.dropout import Dropout
from yunque.model.rotary import rotate


class RMSNorm(nn.RMSNorm):
    """PyTorch's, in the precision of its input: with mixed precision a float32 weight on a bf16
    input would leave the fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if x.device.type == "cpu" and x.dtype == torch.float32 and torch.is_grad_enabled():
            norm: Any = _RootMeanSquareNorm  # PyTorch gives `apply` no types
            result: Tensor = norm.apply(x, weight, self.eps)
            return result
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class _RootMeanSquareNorm(torch.autograd.Function):
    """RMSNorm with its gradient as one step: on CPUs PyTorch makes both of many small ones.

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float | None) -> Tensor:
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        upstream, size = grads[0].contiguous(), x.shape[-1]
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        # The gradient of LayerNorm at mean 0, without the term that comes from its mean.
        d_x, d_weight, _ = torch.ops.aten.native_layer_norm_backward(
            upstream, x, [size], torch.zeros_like(scale), scale, weight, None, wanted
        )
        if d_x is not None:
            from_mean = torch.matmul(upstream, weight).unsqueeze(-1)  # (..., 1)
            d_x.addcmul_(from_mean, scale, value=1 / size)
        return d_x, d_weight, None


def make_norm(config: ModelConfig, size: int) -> nn.Module:
    """LayerNorm (GPT-2, Phi) or RMSNorm (Llama) over the last dimension, `(..., size)`."""
    if config.norm == "layernorm":
        return nn.LayerNorm(size, eps=config.norm_eps)
    return RMSNorm(size, eps=config.norm_eps)


class LayerCache:
    """Keys and values of one attention layer, allocated once: `(B, G, S_max, D)` each."""

    def __init__(self, batch: int, kv_heads: int, length: int, head_size: int, like: Tensor):
        shape = (batch, kv_heads, length, head_size)
        self.keys = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.values = torch.empty(shape, dtype=like.dtype, device=like.device)

    def append(self, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new positions at `start`; return all keys and values up to there."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]


class Attention(nn.Module):
    """Causal self-attention; grouped key/value heads, optional norm of queries and keys.

    Sources: Vaswani et al. 2017 (section 3.2); Ainslie et al. 2023, "GQA"; the query/key norm as
    in Qwen3 (one RMSNorm over the head size, before the rotary embedding).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        C, D = config.hidden_size, config.head_size
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.head_size = D
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(C, self.num_heads * D, bias=config.qkv_bias)
        self.k_proj = nn.Linear(C, self.num_kv_heads * D, bias=config.qkv_bias)
        self.v_proj = nn.Linear(C, self.num_kv_heads * D, bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.num_heads * D, C, bias=config.bias)
        self.q_norm = RMSNorm(D, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(D, eps=config.norm_eps) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: LayerCache | None,
        start: int,
    ) -> Tensor:
        B, T, _ = x.shape
        D = self.head_size
        q = self.q_proj(x).view(B, T, self.num_heads, D)
        k = self.k_proj(x).view(B, T, self.num_kv_heads, D)
        v = self.v_proj(x).view(B, T, self.num_kv_heads, D)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H|G, T, D)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            k, v = cache.append(start, k, v)  # (B, G, S, D)
        p = self.dropout if self.training else 0.0
        if mask is None and cache is None and computed_here(q, p):
            y = causal_attention(q, k, v, p)  # (B, H, T, D)
        else:
            y = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=p,
                is_causal=mask is None and T > 1,
                enable_gqa=self.num_kv_heads != self.num_heads,
            )  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, self.num_heads * D)
        return self.o_proj(y)


class _GeluProjected(torch.autograd.Function):
    """GELU and the linear layer behind it; x `(B, T, F)`, weight `(C, F)`.

    Of the two widest tensors of a block one is kept for the way back, and the other computed once
    more there: a small part of the products, and a fifth of what a block of GPT-2 keeps.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x, approximate="tanh"), weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        upstream = grads[0].reshape(-1, weight.shape[0])  # (N, C)
        d_x = d_weight = d_bias = None
        if ctx.needs_input_grad[1]:
            active = F.gelu(x, approximate="tanh").view(-1, weight.shape[1])  # (N, F)
            d_weight = upstream.T @ active
            del active
        if ctx.needs_input_grad[2]:
            d_bias = upstream.sum(0)
        if ctx.needs_input_grad[0]:
            d_active = (upstream @ weight).view_as(x)
            d_x = torch.ops.aten.gelu_backward(d_active, x, approximate="tanh")
        return d_x, d_weight, d_bias


class GeluMlp(nn.Module):
    """The feed-forward of GPT-2 and Phi: C → F → C with the tanh form of GELU."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up_proj(x)  # (B, T, F)
        down = self.down_proj
        recomputed = x.device.type == "cpu" and x.dtype == torch.float32 and x.requires_grad
        if recomputed and type(down) is nn.Linear and not torch.is_autocast_enabled("cpu"):
            projected: Any = _GeluProjected  # PyTorch gives `apply` no types
            result: Tensor = projected.apply(x, down.weight, down.bias)
            return result
        return down(F.gelu(x, approximate="tanh"))


class SwigluMlp(nn.Module):
    """Llama's gated feed-forward. Source: Shazeer 2020, "GLU Variants Improve Transformer"."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def make_mlp(config: ModelConfig) -> nn.Module:
    """The feed-forward of a block."""
    return GeluMlp(config) if config.mlp == "gelu" else SwigluMlp(config)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); dropout on both branches."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = make_norm(config, config.hidden_size)
        self.attention = Attention(config)
        self.mlp_norm = make_norm(config, config.hidden_size)
        self.mlp = make_mlp(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: LayerCache | None,
        start: int,
    ) -> Tensor:
        read = for_products(self.attention_norm(x))
        x = x + self.dropout(self.attention(read, rotary, mask, cache, start))
        return x + self.dropout(self.mlp(for_products(self.mlp_norm(x))))


class ParallelBlock(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)), one norm for both; dropout on both branches.

    Sources: Wang and Komatsuzaki 2021, "GPT-J-6B"; Li et al. 2023, "Textbooks Are All You Need II"
    (Phi-1.5).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = make_norm(config, config.hidden_size)
        self.attention = Attention(config)
        self.mlp = make_mlp(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: LayerCache | None,
        start: int,
    ) -> Tensor:
        read = for_products(self.attention_norm(x))
        attended = self.dropout(self.attention(read, rotary, mask, cache, start))
        return attended + self.dropout(self.mlp(read)) + x
