"""What a decoder of a given shape consists of: its matrices and vectors, counted by arithmetic.

No tensor is made and PyTorch is not imported. C hidden size, D head size, H heads, G key/value
heads, F intermediate size, V vocabulary, T tokens at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from yunque.config import ModelConfig


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
