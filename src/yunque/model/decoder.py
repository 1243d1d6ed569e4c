"""One decoder for GPT-2, Llama, Mistral, Qwen and Phi: tokens → hidden states → logits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from yunque.config import ModelConfig
from yunque.model.dropout import Dropout
from yunque.model.int8 import Int8Linear
from yunque.model.layers import Attention, Block, LayerCache, ParallelBlock, make_norm
from yunque.model.rotary import rotary_tables
from yunque.model.vocabulary import add_rows


class Cache:
    """The key/value cache of a whole decoder and the number of positions it holds."""

    def __init__(self, layers: list[LayerCache], length: int):
        self.layers = layers
        self.length = length
        self.used = 0

    def reorder(self, rows: Tensor) -> None:
        """Make row i continue what row `rows[i]` held; `rows` may name more or fewer rows."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]

    def replace_end(self, rows: Tensor, other: Cache) -> None:
        """Let all that `other` holds stand for the last positions of `rows`, in their order."""
        span = slice(self.used - other.used, self.used)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.keys[rows, :, span] = theirs.keys[:, :, : other.used]
            mine.values[rows, :, span] = theirs.values[:, :, : other.used]

    def forget(self, positions: int) -> None:
        """Drop the first `positions` of every row."""
        kept = self.used - positions
        for layer in self.layers:
            for held in (layer.keys, layer.values):
                held[:, :, :kept] = held[:, :, positions : self.used].clone()
        self.used = kept


def unfilled_embedding(rows: int, size: int) -> nn.Embedding:
    """An embedding that `Decoder.initialise` fills.

    nn.Embedding's own filling would be a second one, and on "meta" its first call imports
    PyTorch's compiler, which takes seconds.
    """
    return nn.Embedding(rows, size, _weight=torch.empty(rows, size))


def segment_mask(segments: Tensor) -> Tensor:
    """Where a token may look: at itself and at those before it of its segment.

    Args:
        segments: `(B, T)`, equal where tokens belong together.

    Returns:
        `(B, 1, T, T)`, bool.
    """
    same = segments.unsqueeze(2) == segments.unsqueeze(1)  # (B, T, T)
    return same.tril_().unsqueeze(1)


def window_mask(start: int, T: int, window: int, device: torch.device) -> Tensor:
    """Where T tokens after `start` others may look: at themselves and the window - 1 before.

    Columns and not positions are counted: within a row, and within a segment of it, they are apart
    by the same number.

    Returns:
        `(T, start + T)`, bool.
    """
    looked_at = torch.arange(start + T, device=device)
    looking = torch.arange(start, start + T, device=device).unsqueeze(1)
    return (looked_at <= looking) & (looked_at > looking - window)


class Decoder(nn.Module):
    """A decoder-only transformer; `forward` gives hidden states, `head` turns them into logits.

    The two are apart so that the loss can walk over the rows without holding all logits.
    """

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: ModelConfig, seed: int | None = 0):
        super().__init__()
        self.config = config = config.resolved(config.vocab_size)
        C, V, T = config.hidden_size, config.vocab_size, config.context_length
        self.token_embedding = unfilled_embedding(V, C)
        learned = config.positions == "learned"
        self.position_embedding = unfilled_embedding(T, C) if learned else None
        self.dropout = Dropout(config.dropout)
        self.checkpointing = False
        """Whether training keeps only what enters each block. Source: Chen et al. 2016."""
        kind = ParallelBlock if config.parallel_residual else Block
        self.blocks = nn.ModuleList(kind(config) for _ in range(config.num_layers))
        self.final_norm = make_norm(config, C)
        self.head = nn.Linear(C, V, bias=config.head_bias)
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight
        if config.positions == "rotary":
            cos, sin = rotary_tables(config)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        if seed is not None:
            self.initialise(seed)

    @classmethod
    def empty(cls, config: ModelConfig) -> Decoder:
        """The shape without its weights (device meta), for weights that are read from a file."""
        with torch.device("meta"):
            return cls(config, seed=None)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Set every weight here, from one seed.

        | tensor | value |
        |---|---|
        | embeddings | normal, std embedding_std (0.02) |
        | head, where untied | normal, std 0.02 |
        | matrices that read the stream | normal, std 0.02 |
        | o_proj, down_proj (write to the stream) | normal, std 0.02 / sqrt(2 · layers) |
        | norm weights / all biases | 1 / 0 |

        Source: GPT-2 (Radford et al. 2019, section 2.3), the scaling by depth included.
        """
        generator = torch.Generator().manual_seed(seed)
        residual_std = 0.02 / math.sqrt(2 * self.config.num_layers)
        ends = {
            "o_proj.weight": residual_std,
            "down_proj.weight": residual_std,
            "embedding.weight": self.config.embedding_std,
        }
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            else:
                std = next((std for end, std in ends.items() if name.endswith(end)), 0.02)
                parameter.normal_(0.0, std, generator=generator)

    def add_rows(self, rows: int, new: Sequence[int], known: Sequence[int]) -> None:
        """Grow to a vocabulary of `rows` tokens; the rest as `model.vocabulary.with_rows`."""
        self.config = dataclasses.replace(self.config, vocab_size=rows)
        add_rows(self.token_embedding, self.head, rows, new, known)

    def set_dropout(self, p: float, attention: float) -> None:
        """Drop with other probabilities than those the shape was made with, from now on."""
        self.config = dataclasses.replace(self.config, dropout=p, attention_dropout=attention)
        for module in self.modules():
            if isinstance(module, Dropout):
                module.p = p
            elif isinstance(module, Attention):
                module.dropout = attention

    def new_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows of up to `length` tokens, allocated once."""
        # The embedding has the type of the stream, but may lie in the CPU's memory.
        device = next(self.final_norm.parameters()).device
        like = self.token_embedding.weight.new_empty(0, device=device)
        kv_heads, head_size = self.config.num_kv_heads, self.config.head_size
        layers = [LayerCache(batch, kv_heads, length, head_size, like) for _ in self.blocks]
        return Cache(layers, length)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part; a tied matrix is counted once, under `token_embedding`."""
        counts: dict[str, int] = {}
        sizes = [(name, one.numel()) for name, one in self.named_parameters()]  # a shared one once
        for name, module in self.named_modules():
            if isinstance(module, Int8Linear) and not (
                name == "head" and self.config.tie_embeddings
            ):
                sizes.append((name, module.out_features * module.in_features))
                sizes += [(name, module.out_features)] if module.bias is not None else []
        for name, size in sizes:
            top, _, rest = name.partition(".")
            part = rest.split(".")[1] if top == "blocks" else top
            part = {"attention_norm": "norms", "mlp_norm": "norms", "final_norm": "norms"}.get(
                part, part
            )
            counts[part] = counts.get(part, 0) + size
        counts["total"] = sum(counts.values())
        return counts

    def forward(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the last norm; `self.head` makes logits of them.

        Args:
            tokens: ids `(B, T)`, int64.
            cache: holds the tokens before these; its `used` grows by T.
            positions: `(T,)` or `(B, T)`; by default they follow what the cache holds.
            mask: bool `(B, 1, T, S)`, True where a token may look; by default causal. Needed
                with padded rows. A sliding window narrows it further.
            segments: `(B, T)`, equal where tokens belong together: a token then looks at those
                before it of its own segment only. Without cache and mask; `positions` should
                restart with each segment.

        Returns:
            `(B, T, C)`.
        """
        T = tokens.shape[1]
        start = cache.used if cache is not None else 0
        if mask is None and start > 0 and T > 1:
            ahead = torch.arange(start + T, device=tokens.device)
            mask = ahead <= torch.arange(start, start + T, device=tokens.device).unsqueeze(1)
        if segments is not None:
            assert cache is None, "segments are for whole rows, read at once"
            assert mask is None, "the segments make the mask"
            mask = segment_mask(segments)
        if positions is None:
            positions = torch.arange(start, start + T, device=tokens.device)  # (T,)
        x = self.token_embedding(tokens)  # (B, T, C)
        rotary = None
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        else:
            cos, sin = self.rotary_cos[positions], self.rotary_sin[positions]  # (T, R) or (B, T, R)
            if positions.dim() == 2:
                cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (B, 1, T, R)
            rotary = (cos.to(x.dtype), sin.to(x.dtype))
        x = self.dropout(x)
        near, window = mask, self.config.sliding_window
        if 0 < window < start + T:  # else a window hides nothing
            near = window_mask(start, T, window, tokens.device)
            near = near if mask is None else near & mask
        for index, block in enumerate(self.blocks):
            seen = mask if index < self.config.full_layers else near
            held = cache.layers[index] if cache else None
            if self.checkpointing and self.training and torch.is_grad_enabled():
                # Dropout draws the same numbers again: the generator's state is kept with them.
                x = checkpoint(block, x, rotary, seen, held, start, use_reentrant=False)
            else:
                x = block(x, rotary, seen, held, start)
        if cache is not None:
            cache.used += T
        return self.final_norm(x)
