"""What a fine-tuning or a training needs of a device's memory, by arithmetic, before it begins.

Pure functions over a shape: no torch, nothing is loaded. The counts of parameters are exact; those
of activations and overhead are arithmetic that no measurement has confirmed yet. Bytes by part:

| part | what | bytes |
|---|---|---|
| weights | matrices of the blocks, head, embedding, norms and biases | by type or bits |
| adapter | A and B of every adapted layer | 4 each |
| gradients | of what is trained | 4 each |
| optimizer | of what is trained | 8 each (AdamW), 2 with 8 bits, 4 (Muon, SGD) |
| average | a running average of what is trained | 4 each |
| activations | what the forward pass keeps for the backward pass | by rows and tokens |
| logits | one chunk of the loss and its gradient | see `logits_bytes` |
| overhead | the largest weight in the type that it is multiplied in, kernels, the allocator | |

Activations of a token in a block, in numbers of the computing type: the input of every linear
layer, of both norms and of attention (queries, keys, values, their result), and what the
activation function keeps. Linear layers with an adapter keep their input once for both. Attention
itself keeps no T x T matrix without a mask; with one (packed rows) the mask is T bytes a token.
Source: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models",
section 4, whose count this is for our blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from yunque.config import AdaptConfig, ModelConfig, OptimConfig

Method = Literal["full", "lora", "qlora"]

LOGITS_HELD = 1 << 23
"""Logits of one chunk of the loss (`train.loss.CHUNK_ELEMENTS`)."""
SPARE = 0.03
"""Share of all parts that the allocator leaves in holes."""
CUDA_BYTES = 300_000_000
"""What the context of a CUDA device and its libraries take of the card's memory."""
LENGTHS = 64
"""Rows are cut to multiples of this."""


@dataclass(frozen=True)
class Work:
    """How a model is trained, as far as memory goes."""

    method: Method
    weight_bytes: int
    """Of a frozen number that is not quantised: 4 or 2. Trained weights are always float32."""
    compute_bytes: int
    """Of a number that flows through the blocks: 4 (fp32) or 2."""
    rows: int
    """Rows of a micro-batch."""
    length: int
    """Tokens of a row."""
    checkpointing: bool = False
    packed: bool = False


@dataclass(frozen=True)
class Parts:
    """Bytes of each part; their sum is the peak."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def to_json(self) -> dict[str, int]:
        """Part → bytes, with their sum under `total`."""
        return {**vars(self), "total": self.total}


def layer_sizes(shape: ModelConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear layers of one block, by our names.

    Args:
        shape: every automatic size filled in (`ModelConfig.resolved`).
    """
    C, F, D = shape.hidden_size, shape.intermediate_size, shape.head_size
    queries, keys = shape.num_heads * D, shape.num_kv_heads * D
    sizes = {"q_proj": (C, queries), "k_proj": (C, keys), "v_proj": (C, keys)}
    sizes |= {"o_proj": (queries, C), "up_proj": (C, F), "down_proj": (F, C)}
    if shape.mlp == "swiglu":
        sizes["gate_proj"] = (C, F)
    return sizes


def counts(shape: ModelConfig) -> dict[str, int]:
    """Parameters by part: `blocks` (matrices of linear layers), `embedding`, `head` (0 where it is
    the embedding), `positions`, `vectors` (norms and biases), and `total`."""
    C, L = shape.hidden_size, shape.num_layers
    sizes = layer_sizes(shape)
    matrices = L * sum(inputs * outputs for inputs, outputs in sizes.values())
    norm = C * (2 if shape.norm == "layernorm" else 1)
    vectors = norm * (L * (1 if shape.parallel_residual else 2) + 1)
    for name, (_, outputs) in sizes.items():
        attends = name in ("q_proj", "k_proj", "v_proj")
        vectors += L * outputs * (shape.qkv_bias if attends else shape.bias)
    vectors += 2 * L * shape.head_size * shape.qk_norm + shape.vocab_size * shape.head_bias
    found = {
        "blocks": matrices,
        "embedding": shape.vocab_size * C,
        "head": 0 if shape.tie_embeddings else shape.vocab_size * C,
        "positions": shape.context_length * C if shape.positions == "learned" else 0,
        "vectors": vectors,
    }
    return {**found, "total": sum(found.values())}


def quantized_bytes(numbers: int, bits: int, double: bool, rows: int = 0) -> int:
    """Bytes of a quantised matrix with its scales.

    4 bits: a scale in float32 for 64 numbers, or with double quantisation in 8 bits with another
    for 256 of them. 8 bits: a scale for each row. Source: Dettmers et al. 2023, section 3.

    Args:
        rows: outputs of the layer, for 8 bits.
    """
    if bits == 8:
        return numbers + 4 * rows
    scales = -(-numbers // 64)
    return -(-numbers // 2) + (scales + 4 * -(-scales // 256) if double else 4 * scales)


def weights_bytes(shape: ModelConfig, work: Work, adapt: AdaptConfig) -> int:
    """Bytes of the model's own weights."""
    found = counts(shape)
    width = 4 if work.method == "full" else work.weight_bytes
    plain = width * (found["total"] - found["blocks"])
    if work.method != "qlora":
        return plain + width * found["blocks"]
    bits, double = adapt.quantize_bits, adapt.double_quantize
    blocks = sum(
        quantized_bytes(inputs * outputs, bits, double, outputs)
        for inputs, outputs in layer_sizes(shape).values()
    )
    plain += shape.num_layers * blocks
    if adapt.quantize_head:
        head = quantized_bytes(found["embedding"], bits, double, shape.vocab_size)
        plain += head - width * found["head"]
    if adapt.cpu_embeddings:
        plain -= width * found["embedding"]
    return plain


def adapter_count(shape: ModelConfig, adapt: AdaptConfig) -> int:
    """Parameters of an adapter; targets are known by the ends of their names, else all count."""
    wanted = {name.rpartition(".")[2] for name in adapt.targets}
    sizes = layer_sizes(shape)
    chosen = [size for name, size in sizes.items() if not wanted or name in wanted]
    chosen = chosen or list(sizes.values())  # named as another family does: the most it can be
    lengths = sum(outputs for _, outputs in chosen) if adapt.variant == "dora" else 0
    return shape.num_layers * (adapt.rank * sum(map(sum, chosen)) + lengths)


def block_numbers(shape: ModelConfig, method: Method, rank: int) -> int:
    """Numbers of the computing type that a block keeps of a token for the backward pass."""
    C, F, D = shape.hidden_size, shape.intermediate_size, shape.head_size
    queries, keys = shape.num_heads * D, shape.num_kv_heads * D
    norms = (1 if shape.parallel_residual else 2) * C
    # Into the norms, out of them (inputs of the linear layers), q, k, v before and after the turn.
    attention = 2 * (queries + 2 * keys) + 2 * queries
    # Swiglu keeps gate, up, silu(gate) and their product; gelu its input and its result.
    feed = 4 * F if shape.mlp == "swiglu" else 2 * F
    stream = 2 * C
    adapters = 0
    if method != "full":
        adapters = rank * len(layer_sizes(shape))
    dropped = 2 * 2 * C if shape.dropout else 0
    return 2 * norms + attention + feed + stream + adapters + dropped


def activations_bytes(shape: ModelConfig, work: Work, adapt: AdaptConfig) -> int:
    """Bytes that the forward pass keeps of a micro-batch, and what a block needs beside.

    With checkpointing: the input of each block, and all of one block.
    """
    tokens = work.rows * work.length
    block = block_numbers(shape, work.method, adapt.rank) * work.compute_bytes * tokens
    if work.packed:
        block += tokens * work.length  # what a token may look at
    ends = 4 * shape.hidden_size * work.compute_bytes * tokens
    if work.checkpointing:
        kept = shape.num_layers * shape.hidden_size * work.compute_bytes * tokens
        return kept + 2 * block + ends
    return shape.num_layers * block + block // 2 + ends


def logits_bytes(shape: ModelConfig, work: Work) -> int:
    """Bytes of the loss: one chunk of logits, its copy, and the gradient of a trained head."""
    rows = min(work.rows * work.length, max(1, LOGITS_HELD // shape.vocab_size))
    chunk = rows * shape.vocab_size * (4 + 4 + (2 if work.compute_bytes == 2 else 0))
    head = shape.vocab_size * shape.hidden_size
    trained = 8 * head if work.method == "full" else 0
    cast = head * work.compute_bytes if work.compute_bytes < work.weight_bytes else 0
    return chunk + trained + cast


def estimate(
    shape: ModelConfig, work: Work, adapt: AdaptConfig, optim: OptimConfig, device: str = "cpu"
) -> Parts:
    """The peak memory of an update, by parts.

    Args:
        shape: every automatic size filled in (`ModelConfig.resolved`).
        device: cpu or cuda; a CUDA device holds its own libraries too.
    """
    weights = weights_bytes(shape, work, adapt)
    trained = counts(shape)["total"]
    adapter = 0
    if work.method != "full":
        trained = adapter_count(shape, adapt)
        adapter = 4 * trained
    states = STATE_BYTES[optim.optimizer]
    activations = activations_bytes(shape, work, adapt)
    logits = logits_bytes(shape, work)
    largest = max(inputs * outputs for inputs, outputs in layer_sizes(shape).values())
    # A weight that is kept in another type than it is multiplied in is turned for each product.
    turned = 2 * largest * work.compute_bytes if work.method == "qlora" else 0
    if work.method != "qlora" and work.compute_bytes < (
        4 if work.method == "full" else work.weight_bytes
    ):
        turned = counts(shape)["blocks"] * work.compute_bytes  # autocast keeps them for a pass
    parts = Parts(
        weights=weights,
        adapter=adapter,
        gradients=4 * trained,
        optimizer=states * trained,
        average=4 * trained if optim.average_decay else 0,
        activations=activations,
        logits=logits,
        overhead=turned + (CUDA_BYTES if device == "cuda" else 0),
    )
    return replace(parts, overhead=parts.overhead + int(SPARE * parts.total))


STATE_BYTES: Mapping[str, int] = {
    "adamw": 8,
    "muon": 4,
    "sgd": 4,
    "adamw8bit": 2,
    "paged_adamw8bit": 2,
}
"""Bytes that an optimizer keeps for a trained number; Muon's rest, under AdamW, is small, and so
are the scales of 8 bits. Paged ones are counted as if they could not leave."""


@dataclass(frozen=True)
class Plan:
    """What fits: the settings that were chosen, and what they need."""

    work: Work
    adapt: AdaptConfig
    parts: Parts
    budget: int
    """Bytes."""
    steps: tuple[str, ...]
    """What was given up to fit, in order: `rows`, `checkpointing`, `quantize_head`,
    `cpu_embeddings`, `length`; empty where all fits as it is asked."""

    @property
    def fits(self) -> bool:
        return self.parts.total <= self.budget


def fit(
    shape: ModelConfig,
    work: Work,
    adapt: AdaptConfig,
    optim: OptimConfig,
    budget: int,
    *,
    device: str = "cpu",
    shortest: int = LENGTHS,
) -> Plan:
    """The fastest way to train in `budget` bytes with the batch that is asked for.

    What costs nothing but launches comes first, what costs time next, what changes numbers last:
    fewer rows at once, gradient checkpointing, an output head in 4 bits, the embedding in the
    CPU's memory (QLoRA), shorter rows. Where nothing fits, the smallest is given, and `fits` is
    false.

    Args:
        work: as asked for; `rows` is the whole batch of a process.
        shortest: rows are never cut below this many tokens.
    """
    rows = [n for n in range(work.rows, 0, -1) if work.rows % n == 0]
    lengths = [work.length]
    while lengths[-1] > shortest:
        lengths.append(max(shortest, -(-lengths[-1] // 2 // LENGTHS) * LENGTHS))
    ends = [adapt]
    if work.method == "qlora":
        if not adapt.quantize_head:
            ends.append(replace(adapt, quantize_head=True))
        if not adapt.cpu_embeddings and device == "cuda":
            ends.append(replace(ends[-1], cpu_embeddings=True))
    tried: Plan | None = None
    for length in lengths:
        for settings in ends:
            for checkpointing in sorted({work.checkpointing, True}):
                for count in rows:
                    now = replace(work, rows=count, length=length, checkpointing=checkpointing)
                    parts = estimate(shape, now, settings, optim, device)
                    tried = Plan(now, settings, parts, budget, given_up(work, adapt, now, settings))
                    if tried.fits:
                        return tried
    assert tried is not None
    return tried


def given_up(
    asked: Work, asked_adapt: AdaptConfig, work: Work, adapt: AdaptConfig
) -> tuple[str, ...]:
    """The names of what differs from what was asked for."""
    changed = [name for name in ("rows", "checkpointing") if vars(asked)[name] != vars(work)[name]]
    ends = ("quantize_head", "cpu_embeddings")
    changed += [name for name in ends if getattr(asked_adapt, name) != getattr(adapt, name)]
    return (*changed, "length") if asked.length != work.length else tuple(changed)


def methods_that_fit(
    shape: ModelConfig,
    work: Work,
    adapt: AdaptConfig,
    optim: OptimConfig,
    budget: int,
    *,
    device: str = "cpu",
) -> list[Method]:
    """Of full, LoRA and QLoRA those that fit at all, with every measure taken."""
    known: tuple[Method, ...] = ("full", "lora", "qlora")
    return [
        method
        for method in known
        if fit(shape, replace(work, method=method), adapt, optim, budget, device=device).fits
    ]
