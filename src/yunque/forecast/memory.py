"""Peak memory of a run by part, in bytes, by arithmetic; PyTorch is not imported.

A part is what is held at the moment of the peak, which is the greatest of a few known moments: the
end of the forward pass, the way back through the head, the end of the way back, an evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from yunque.forecast.shape import count_parameters, matrices
from yunque.forecast.work import Workload, targeted

LOGITS = 1 << 23
"""Logits that the loss holds at once (train/loss.py); a test holds the two equal."""
EVALUATION_ROWS = 8
"""Rows of an evaluation's batch (data/batches.py)."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, and what they are."""

    weights: int = 0
    quantisation: int = 0
    """Scales of quantised weights."""
    adapter: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    activations: int = 0
    """What the way back needs of the blocks."""
    logits: int = 0
    """Of the loss: a chunk of logits, and the gradient of the head made on the way."""
    base: int = 0
    """Taken before the first tensor: PyTorch's libraries, or the context of the card."""

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))

    def parts(self) -> Mapping[str, int]:
        return dataclasses.asdict(self)


def width(job: Workload) -> int:
    """Bytes of a number in the precision that is computed in."""
    return 4 if job.precision == "fp32" else 2


def stored(job: Workload) -> Memory:
    """What lies in memory between two updates.

    Sources: Rajbhandari et al. 2020, "ZeRO", section 3.1 (weights, gradients, optimizer); Dettmers
    et al. 2023, "QLoRA", section 3 (blocks of 64 weights with a scale, scales in blocks of 256).
    """
    count = count_parameters(job.shape)
    trained = 4 * job.trained_parameters
    states = {"sgd": 1, "muon": 2 if not job.adapted else 1}.get(job.optim.optimizer, 2)
    optimizer = states * trained
    if job.optim.optimizer == "muon":
        # The matrices inside the blocks have one momentum, everything else AdamW's two.
        optimizer -= 4 * count.block_matrices
    if job.optim.optimizer in ("adamw8bit", "paged_adamw8bit"):
        optimizer = trained // 2
    average = trained if job.optim.average_decay else 0
    if not job.adapted:
        return Memory(weights=4 * count.total, optimizer=optimizer, average=average)
    number = width(job)
    scales = 0
    packed = count.block_matrices + (count.head if job.adapt.quantize_head else 0)
    if job.method == "qlora":
        wide = count.total - packed
        if job.adapt.cpu_embeddings:
            wide -= count.token_embedding
        weights = packed * job.adapt.quantize_bits // 8 + number * wide
        if job.adapt.quantize_bits == 4:
            blocks = packed // 64
            scales = blocks + 4 * blocks // 256 if job.adapt.double_quantize else 4 * blocks
    else:
        weights = number * count.total
    return Memory(
        weights=weights,
        quantisation=scales,
        adapter=trained,
        optimizer=optimizer,
        average=average,
    )


def block_activations(job: Workload) -> int:
    """Bytes that one block keeps of one token for the way back.

    Source: Korthikanti et al. 2022, "Reducing Activation Recomputation", section 4.1, for our
    layers and for attention that keeps no (T, T) matrix.
    """
    shape, number = job.shape, width(job)
    C, F, D = shape.hidden_size, shape.intermediate_size, shape.head_size
    queries, keys = shape.num_heads * D, shape.num_kv_heads * D
    attention = queries + 2 * keys + 2 * queries  # q, k, v; the result as made and as read
    if shape.qk_norm:
        attention += queries + keys
    inner = 4 * F if shape.mlp == "swiglu" else 2 * F
    dropped = 2 * C if shape.dropout else 0
    norms = (2 if shape.parallel_residual else 4) * C
    kept = number * (attention + inner + dropped + norms)
    if shape.attention_dropout:
        # Attention in plain steps: scores, their softmax, what was dropped.
        kept += 3 * number * shape.num_heads * job.row_length
    if job.adapted:
        # The small matrices keep their input in float32 beside the layer's own, and its product.
        small = sum(4 * job.adapt.rank for _ in targeted(job))
        copies = sum(4 * m.inputs for m in targeted(job)) if number == 2 else 0
        kept += small + copies
    return kept


def passing(job: Workload) -> Memory:
    """What an update holds beside `stored` at its peak."""
    shape, N = job.shape, job.micro_batch * job.row_length
    C, V, number = shape.hidden_size, shape.vocab_size, width(job)
    block = N * block_activations(job)
    ends = N * C * number * (4 + (1 if shape.dropout else 0))  # embedding, last norm, its gradient
    if job.train.gradient_checkpointing:
        activations = shape.num_layers * N * C * number + block + ends
    else:
        activations = shape.num_layers * block + ends
    chunk = min(N * V, max(V, LOGITS))
    logits = 4 * chunk * 2 + (0 if number == 4 else 2 * chunk)
    gradients = 4 * job.trained_parameters
    head = 0 if job.adapted else 4 * V * C
    if number == 2 and not job.adapted:
        head += 2 * V * C  # the head in working precision; a frozen one is kept in it
    biggest = max(4 * m.weights for m in matrices(shape))
    unpacked = 2 * number * biggest // 4 if job.method == "qlora" else 0
    moments = (
        # The end of the forward pass: the head's gradient is there, the last chunk of logits too.
        Memory(activations=activations, logits=logits + head),
        # Into the way back: the head's gradient is scaled into a second copy.
        Memory(activations=activations, logits=2 * head, gradients=0),
        # The way back through the first block: nearly all gradients, one block's activations.
        Memory(
            activations=block + ends,
            gradients=gradients,
            logits=(4 * V * C if not job.adapted else 0),
        ),
    )
    peak = max(moments, key=lambda memory: memory.total)
    if job.micro_batches > 1 and not job.adapted:
        # The gradients of the micro-batches before are held through the next forward pass.
        later = dataclasses.replace(moments[0], gradients=gradients)
        peak = max(peak, later, key=lambda memory: memory.total)
    elif job.micro_batches > 1 or job.adapted:
        peak = dataclasses.replace(peak, gradients=gradients)
    return dataclasses.replace(peak, activations=peak.activations + unpacked)


def evaluating(job: Workload) -> Memory:
    """What an evaluation holds beside `stored`: one block at a time, one chunk of logits."""
    N = EVALUATION_ROWS * job.row_length
    chunk = min(N * job.shape.vocab_size, LOGITS)
    return Memory(
        activations=N * (block_activations(job) + 2 * width(job) * job.shape.hidden_size),
        logits=2 * 4 * chunk,
    )


def generating(job: Workload, rows: int = 1) -> Memory:
    """What writing samples holds beside `stored`: keys and values of prompt and sample."""
    shape = job.shape
    length = min(shape.context_length, job.row_length + job.train.sample_tokens)
    each = 2 * shape.num_kv_heads * shape.head_size * width(job)
    return Memory(activations=rows * shape.num_layers * length * each)


def together(*parts: Memory) -> Memory:
    """The parts of several added up."""
    return Memory(*(sum(values) for values in zip(*map(dataclasses.astuple, parts), strict=True)))


def peak_memory(job: Workload, base: int = 0) -> Memory:
    """Peak memory of a run on a machine of which `base` bytes are taken already."""
    held = together(stored(job), Memory(base=base))
    moments = [together(held, work(job)) for work in (passing, evaluating, generating)]
    return max(moments, key=lambda memory: memory.total)


def disk_bytes(job: Workload, token_bytes: int = 0) -> int:
    """What a run leaves and needs: its checkpoints, one more while it is saved, best/ and last/."""
    held = stored(job)
    trained = 4 * job.trained_parameters
    checkpoint = trained + held.optimizer + held.average
    # best/ and last/ hold the whole model, or the adapter.
    models = 2 * (trained if job.adapted else held.weights)
    return (job.train.keep_checkpoints + 1) * checkpoint + models + token_bytes
