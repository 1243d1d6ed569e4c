"""Peak memory of a run by part, in bytes, by arithmetic; PyTorch is not imported.

A part is what is held at the moment of the peak, which is the greatest of a few known moments: the
loss at the end of the forward pass, the beginning and the end of the way back, an evaluation.

What a block keeps for the way back is counted tensor by tensor; a test holds the count equal to
what autograd keeps. Source of the method: Korthikanti et al. 2022, "Reducing Activation
Recomputation in Large Transformer Models", section 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from yunque.forecast.shape import Matrix, count_parameters, matrices
from yunque.forecast.work import COLUMNS, HELD, LONGEST, QUERIES, Workload, logits_row, targeted

LOGITS = 1 << 23
"""Logits that an evaluation makes at once (evaluate.py); a test holds the two equal."""
EVALUATION_ROWS = 16
"""Most rows of an evaluation's batch (assemble/runs.py); a test holds the two equal."""


@dataclass(frozen=True)
class Heap:
    """What the C library's heap holds unused beside the tensors, as a multiple of what makes it.

    PyTorch asks for aligned pieces, which glibc cuts out of larger ones. Where something small
    settles between two tensors, what was freed no longer holds a tensor of its own size. A training
    command keeps small objects from most of these places (heap.py); a program that calls us does
    not, and its heap may take twice as much. By least cubes of the logarithm of outcome / forecast
    over the runs of bench/plan.py. Tensors on a GPU have an allocator that rounds little.
    """

    plain: float
    """Of the geometric mean of what the blocks keep and of their gradients: what is kept settles
    where the last update's gradients were, and those of the next do not find their places again.
    Where either is small, little is lost."""
    gated: float
    """The same with a gated feed-forward, which keeps more tensors of more sizes."""
    in_backward: float
    """The same where each gradient is freed as soon as it is used."""
    again: float
    """Of all that the blocks make, where gradient checkpointing makes it once more before there
    are gradients."""
    adapted: float
    """Of the same where it is kept and an adapter's sums lie beside the layers'."""


HEAP = Heap(0.58, 0.88, 0.65, 0.21, 0.345)
UNPACKED = 20
"""Bytes a number of the tensor that 8-bit AdamW updates on a CPU: bitsandbytes unpacks both
averages into float32 and makes three more such tensors; a test holds it equal."""
STATE_BYTES: Mapping[str, int] = {
    "adamw": 8,
    "muon": 8,
    "sgd": 4,
    "adamw16bit": 4,
    "adamw8bit": 2,
    "paged_adamw8bit": 2,
}
"""Bytes that an optimizer keeps for a trained number; of 8 bits the scales are small. Paged ones
are counted as if they could not leave."""
PEFT_BYTES = 179_000_000
"""What PEFT and what it imports, bitsandbytes too, take on a CPU. Measured (docs/lab-notes.md)."""
BITSANDBYTES_BYTES = 124_000_000
"""What bitsandbytes and what it imports take on a CPU. Measured (docs/lab-notes.md)."""
COMPILER_BYTES = 80_000_000
"""What PyTorch's compiler takes, which its gradient checkpointing and its SGD load when they are
first called. PEFT and bitsandbytes load it as well."""
BLOCK, SCALES = 64, 256
"""Weights that share a scale, and scales that share one. Source: Dettmers et al. 2023, "QLoRA",
section 3."""


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
    working: int = 0
    """For a moment: weights in the type that they are multiplied in, the gradients inside a block,
    the optimizer's own products."""
    holes: int = 0
    """Held unused between tensors by the heap; CPU only."""
    base: int = 0
    """Taken whatever the model: the program and its libraries, or the context of the card."""

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

    Source: Rajbhandari et al. 2020, "ZeRO", section 3.1 (weights, gradients, optimizer).
    """
    count = count_parameters(job.shape)
    trained = 4 * job.trained_parameters
    optimizer = STATE_BYTES[job.optim.optimizer] * job.trained_parameters
    if job.optim.optimizer == "muon" and not job.adapted:
        # The matrices inside the blocks have one momentum, everything else AdamW's two.
        optimizer -= 4 * count.block_matrices
    average = trained if job.optim.average_decay else 0
    if not job.adapted:
        return Memory(weights=4 * count.total, optimizer=optimizer, average=average)
    weights, scales = frozen_weights(job)
    return Memory(
        weights=weights,
        quantisation=scales,
        adapter=trained,
        optimizer=optimizer,
        average=average,
    )


def frozen_weights(job: Workload) -> tuple[int, int]:
    """(bytes of a frozen base, bytes of the scales of what of it is quantised)."""
    count, number = count_parameters(job.shape), job.frozen_bytes
    if job.method != "qlora":
        return number * count.total, 0
    shape, adapt = job.shape, job.adapt
    V, C = shape.vocab_size, shape.hidden_size
    wide = count.total - count.block_matrices
    quantised = [m for m in matrices(shape) for _ in range(shape.num_layers)]
    if adapt.quantize_head:
        # A tied head gets a quantised copy; the embedding stays.
        quantised.append(Matrix("head", C, V, False))
        wide -= 0 if shape.tie_embeddings else V * C
    if adapt.cpu_embeddings and job.device == "cuda":
        wide -= count.token_embedding
    packed = [quantised_bytes(m, adapt.quantize_bits, adapt.double_quantize) for m in quantised]
    return number * wide + sum(size for size, _ in packed), sum(scales for _, scales in packed)


def quantised_bytes(matrix: Matrix, bits: int, double: bool) -> tuple[int, int]:
    """(bytes of a quantised matrix, bytes of its scales).

    4 bits: a scale in float32 for 64 numbers, or with double quantisation in 8 bits with another
    for 256 of them. 8 bits: a scale for each row.
    """
    if bits == 8:
        return matrix.weights, 4 * matrix.outputs
    scales = -(-matrix.weights // BLOCK)
    return -(-matrix.weights // 2), scales + 4 * -(-scales // SCALES) if double else 4 * scales


def block_activations(job: Workload) -> int:
    """Bytes that one block keeps of one token for the way back.

    Each line is a tensor that autograd keeps: the inputs of norms, of linear layers with something
    to learn and of the activation function; queries, keys, values and the result of attention,
    which keeps no (T, T) matrix but where it drops weights or is given a mask.
    """
    shape, number = job.shape, width(job)
    C, F, D, H = shape.hidden_size, shape.intermediate_size, shape.head_size, shape.num_heads
    T, G = job.row_length, shape.num_kv_heads
    queries, keys = H * D, G * D
    learning = {m.name for m in (targeted(job) if job.adapted else matrices(shape))}
    statistic = 8 if shape.norm == "layernorm" else 4  # mean and scale, or scale
    norms = 1 if shape.parallel_residual else 2
    kept = norms * (stream_bytes(job) * C + statistic)
    if shape.qk_norm:
        kept += number * (queries + keys) + 4 * (H + G)
    kept += number * (queries + 2 * keys)  # rotary turns them into new ones; the old ones go
    drops = shape.attention_dropout > 0
    masked = job.packed or 0 < shape.sliding_window < T
    fused = job.device == "cuda" or masked or not (drops or T <= LONGEST)
    if fused or ("o_proj" in learning and not (job.adapted and job.adapt.lora_dropout)):
        kept += number * queries  # the result, which is also what o_proj reads
    if drops and fused:
        kept += number * H * T  # weights
    elif drops:
        kept += number * H * weights_made(T) // T
    elif fused:
        kept += 4 * H  # the logarithm of the sum of a row's weights
    if job.packed:
        kept += number * T  # which tokens may be seen, as numbers that are added
    kept += number * F * (3 if shape.mlp == "swiglu" else 1)
    kept += inputs_kept(job, learning)
    if shape.dropout:
        kept += 2 * C * (1 if job.device == "cuda" else 2)  # a mask, or the random bits of one
    if job.adapted:
        kept += number * job.adapt.rank * len(learning)
        if job.adapt.variant == "dora":
            # What the layer gave, and what its adapter added, before they are scaled.
            kept += 2 * number * sum(m.outputs for m in targeted(job))
        if job.adapt.lora_dropout:
            noise = 1 if job.device == "cuda" else 4
            kept += noise * sum(m.inputs for m in targeted(job))
    return kept


def weights_made(T: int) -> int:
    """Attention weights of T tokens on a CPU: a block of queries has those of no key behind it."""
    size = -(-T // max(1, round(T / QUERIES)))
    ends = [min(first + size, T) for first in range(0, T, size)]
    return sum((end - first) * end for first, end in zip(range(0, T, size), ends, strict=True))


def inputs_kept(job: Workload, learning: set[str]) -> int:
    """Bytes a token of what the linear layers read, as far as it is kept for their gradients.

    Layers that read the same share it, and o_proj reads what attention keeps already. The dropout
    of an adapter makes each layer its own.
    """
    number, shape = width(job), job.shape
    sizes = {m.name: m.inputs for m in matrices(shape)}
    if job.adapted and job.adapt.lora_dropout:
        return number * sum(sizes[name] for name in learning)
    read = [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",)]
    if shape.parallel_residual:
        read = [read[0] + read[1], read[2]]
    if number == 4 and shape.mlp == "gelu" and job.device == "cpu" and not job.adapted:
        read.pop()  # computed once more from what GELU read
    return number * sum(
        shape.intermediate_size if group == ("down_proj",) else shape.hidden_size
        for group in read
        if learning.intersection(group)
    )


def stream_bytes(job: Workload) -> int:
    """Bytes of a number of what flows from block to block: as the embedding is kept."""
    return job.frozen_bytes if job.adapted else 4


def logits_bytes(job: Workload, rows: int) -> int:
    """What the loss holds of so many tokens: equal chunks, as few as it may make."""
    each = logits_row(job)
    return -(-rows // max(1, -(-rows // max(1, HELD // each)))) * each


def passing(job: Workload) -> Memory:
    """What an update holds beside `stored` at its peak."""
    shape, N, number = job.shape, job.micro_batch * job.row_length, width(job)
    C, V, F = shape.hidden_size, shape.vocab_size, shape.intermediate_size
    count = count_parameters(shape)
    block, stream = N * block_activations(job), N * C * stream_bytes(job)
    layers = matrices(shape)
    if job.adapted and job.adapt.variant == "dora":
        block += 4 * sum(m.weights for m in targeted(job))  # weight and adapter as one
    # Into the last norm, out of it, and the gradient that the loss makes on the way.
    ends = 2 * stream + N * C * number
    activations = shape.num_layers * (stream if job.train.gradient_checkpointing else block)
    logits = logits_bytes(job, math.ceil(N * (job.learnt if job.device == "cpu" else 1.0)))
    head = 0 if job.adapted else 4 * V * C
    cast = 0
    if number == 2:
        if not job.adapted or (job.method == "lora" and job.frozen_bytes == 4):
            cast = 2 * count.block_matrices  # autocast makes them, the way back needs them
        if stream_bytes(job) == 4:
            logits += 2 * (min(V, COLUMNS) if job.device == "cpu" else V) * C
    biggest = max(m.weights for m in layers)
    if job.method == "qlora":
        cast = number * biggest  # one layer's weights at a time as numbers
    # The gradients inside a block: of what the feed-forward made, and of its input.
    inside = N * number * ((3 * F if shape.mlp == "swiglu" else 2 * F) + 2 * C)
    again = block if job.train.gradient_checkpointing else 0
    gradients = 4 * job.trained_parameters
    if job.train.update_in_backward:  # one at a time; the widest comes last
        gradients = 4 * max(0 if job.adapted else count.token_embedding, biggest)
    # A tied head's gradient waits for that of the embedding.
    waiting = head if shape.tie_embeddings else 0
    held = gradients if job.micro_batches > 1 else 0
    moments = [
        Memory(activations=activations + ends, logits=logits + head, gradients=held, working=cast),
        Memory(
            activations=activations + ends + N * C * number,
            logits=head,
            gradients=held,
            working=cast + inside + again,
        ),
        Memory(
            activations=(block if not job.train.gradient_checkpointing else stream) + ends,
            gradients=4 * biggest
            if job.train.update_in_backward
            else gradients - (0 if job.adapted else 4 * count.token_embedding),
            logits=head if shape.tie_embeddings else 0,
            working=inside + again,
        ),
        Memory(activations=ends, gradients=gradients, logits=waiting * (1 + (held > 0))),
        Memory(gradients=gradients, working=optimizer_working(job)),
    ]
    peak = max(moments, key=lambda memory: memory.total)
    if job.device != "cpu":
        return peak
    unused = holes(job, block * shape.num_layers, peak.gradients > 0)
    return dataclasses.replace(peak, holes=round(unused))


def holes(job: Workload, through: int, gradients: bool) -> float:
    """What the heap holds unused at the peak.

    Args:
        through: bytes of all that the blocks make, kept or computed once more.
        gradients: whether there are any at the peak.
    """
    if job.train.gradient_checkpointing:
        # So little is kept that the gradients of a whole model find their places.
        return HEAP.again * through if job.adapted or not gradients else 0.0
    if job.adapted:
        return HEAP.adapted * through
    share = HEAP.gated if job.shape.mlp == "swiglu" else HEAP.plain
    if job.train.update_in_backward:
        share = HEAP.in_backward
    return share * math.sqrt(through * 4.0 * count_parameters(job.shape).block_matrices)


def optimizer_working(job: Workload) -> int:
    """What the optimizer takes for a moment: Muon's products, or averages that are unpacked."""
    layers = matrices(job.shape)
    if job.optim.optimizer == "adamw8bit" and job.device == "cpu":
        if job.adapted:
            return UNPACKED * job.adapt.rank * max(max(m.inputs, m.outputs) for m in layers)
        embedding = count_parameters(job.shape).token_embedding
        return UNPACKED * max(embedding, *(m.weights for m in layers))
    if job.optim.optimizer != "muon" or job.adapted:
        return 0
    largest = max(layers, key=lambda m: m.weights)
    short = min(largest.inputs, largest.outputs)
    return 4 * (3 * largest.weights + 2 * short**2)


def evaluating(job: Workload) -> Memory:
    """What an evaluation holds beside `stored`: one block at a time, one chunk of logits."""
    shape, number = job.shape, width(job)
    N = min(EVALUATION_ROWS, job.micro_batch) * job.row_length
    F = shape.intermediate_size * (3 if shape.mlp == "swiglu" else 2)
    inside = N * number * max(F, 3 * shape.hidden_size)
    stream = 2 * N * shape.hidden_size * stream_bytes(job)
    # Whole rows of logits in float32, and their logarithms.
    logits = 8 * min(N, max(1, LOGITS // shape.vocab_size)) * shape.vocab_size
    return Memory(activations=inside + stream, logits=logits)


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


def library_bytes(job: Workload) -> int:
    """What the libraries take that this job imports beyond those of every run; on a CPU."""
    if job.device != "cpu":
        return 0
    if job.adapted:
        return PEFT_BYTES
    if job.optim.optimizer == "adamw8bit":
        return BITSANDBYTES_BYTES
    return loaded_later(job)


def loaded_later(job: Workload) -> int:
    """Of these what is not there yet when a run is about to begin."""
    late = job.train.gradient_checkpointing or job.optim.optimizer == "sgd"
    there = job.device != "cpu" or job.adapted or job.optim.optimizer == "adamw8bit"
    return COMPILER_BYTES if late and not there else 0


def other_base(base: int, job: Workload, other: Workload) -> int:
    """`base`, in which the libraries of `job` are counted, with those of another job instead."""
    return base + library_bytes(other) - library_bytes(job)


def disk_bytes(job: Workload, token_bytes: int = 0) -> int:
    """What a run leaves and needs: its checkpoints, one more while it is saved, best/ and last/."""
    held = stored(job)
    trained = 4 * job.trained_parameters
    checkpoint = trained + held.optimizer + held.average
    # best/ and last/ hold the whole model, or the adapter.
    models = 2 * (trained if job.adapted else held.weights)
    return (job.train.keep_checkpoints + 1) * checkpoint + models + token_bytes
