"""What a decoder of a given shape consists of: its matrices and vectors, counted by arithmetic.

No tensor is made and PyTorch is not imported. C hidden size, D head size, H heads, G key/value
heads, F intermediate size, V vocabulary, T tokens at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yunque.config import ModelConfig
from yunque.errors import InputError


@dataclass(frozen=True)
class Matrix:
    """A linear layer, `inputs` → `outputs`, that every block has."""

    name: str
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return self.weights + (self.outputs if self.bias else 0)


def matrices(shape: ModelConfig) -> list[Matrix]:
    """The linear layers of one block, under the names of the Decoder."""
    C, D, F = shape.hidden_size, shape.head_size, shape.intermediate_size
    queries, keys = shape.num_heads * D, shape.num_kv_heads * D
    attention = [
        Matrix("q_proj", C, queries, shape.qkv_bias),
        Matrix("k_proj", C, keys, shape.qkv_bias),
        Matrix("v_proj", C, keys, shape.qkv_bias),
        Matrix("o_proj", queries, C, shape.bias),
    ]
    gate = [Matrix("gate_proj", C, F, shape.bias)] if shape.mlp == "swiglu" else []
    up = [Matrix("up_proj", C, F, shape.bias), Matrix("down_proj", F, C, shape.bias)]
    return attention + gate + up


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model consists of, by part; a tied head counts once."""

    token_embedding: int
    position_embedding: int
    block_matrices: int
    """Weights of the linear layers of all blocks, biases not included: what is quantised."""
    block_vectors: int
    """Biases and norms of all blocks, and the last norm."""
    head: int
    """0 where it is tied to the embedding (its bias is counted)."""

    @property
    def total(self) -> int:
        return (
            self.token_embedding
            + self.position_embedding
            + self.block_matrices
            + self.block_vectors
            + self.head
        )


def count_parameters(shape: ModelConfig) -> Parameters:
    """The parameters of a resolved shape (`ModelConfig.resolved`)."""
    C, V = shape.hidden_size, shape.vocab_size
    layers = matrices(shape)
    norm = 2 * C if shape.norm == "layernorm" else C
    norms = (1 if shape.parallel_residual else 2) * norm
    if shape.qk_norm:
        norms += 2 * shape.head_size
    biases = sum(matrix.parameters - matrix.weights for matrix in layers)
    return Parameters(
        token_embedding=V * C,
        position_embedding=shape.context_length * C if shape.positions == "learned" else 0,
        block_matrices=shape.num_layers * sum(matrix.weights for matrix in layers),
        block_vectors=shape.num_layers * (biases + norms) + norm,
        head=(0 if shape.tie_embeddings else V * C) + (V if shape.head_bias else 0),
    )


KEYS = {
    "num_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "num_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "num_kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim",),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"),
    "vocab_size": ("vocab_size", "n_vocab"),
    "context_length": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
}
"""Our name → what families call it in a config.json, the most usual first."""
NEEDED = ("num_layers", "hidden_size", "num_heads", "vocab_size")


def generic_shape(config: Mapping[str, Any], where: str) -> ModelConfig:
    """A shape of about the size of a model that the Decoder does not compute, from its config.json.

    What its keys do not say is taken as in Llama: gated feed-forward where the activation is SiLU,
    rotary positions, no biases.

    Args:
        where: the file, for messages.

    Raises:
        InputError: the sizes are not all there.
    """
    inner = config.get("text_config")
    stated = {**config, **(inner if isinstance(inner, Mapping) else {})}
    found: dict[str, int] = {}
    for name, keys in KEYS.items():
        value = next((stated[key] for key in keys if isinstance(stated.get(key), int)), 0)
        if value > 0:
            found[name] = value
    lacking = [KEYS[name][0] for name in NEEDED if name not in found]
    if lacking:
        raise InputError(
            f"{where}: {', '.join(lacking)} missing, so the size of this model cannot be told."
        )
    activation = str(stated.get("hidden_act") or stated.get("activation_function") or "silu")
    gated = "silu" in activation or "swish" in activation or "gated" in activation
    shape = dataclasses.replace(
        ModelConfig(preset="", qk_norm=False),
        mlp="swiglu" if gated else "gelu",
        tie_embeddings=bool(stated.get("tie_word_embeddings", True)),
        **found,  # type: ignore[arg-type]
    )
    return shape.resolved(found["vocab_size"])
