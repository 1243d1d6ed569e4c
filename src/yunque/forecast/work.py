"""What one update computes and moves, counted by arithmetic; PyTorch is not imported.

Times are made of these counts by the rates of a machine (`machine.py`), so that a forecast is a sum
that can be read: so many operations at so many a second, so many bytes at so many a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from yunque.config import AdaptConfig, ModelConfig, OptimConfig, TrainConfig
from yunque.forecast.shape import Matrix, count_parameters, matrices

MUON_ITERATIONS = 5
"""Newton-Schulz iterations of an update of Muon."""
HELD, COLUMNS = 1 << 26, 1 << 12
"""Bytes of logits that the loss holds at once, and words of the vocabulary in a slice of them on
CPUs (train/loss.py); a test holds them equal."""
QUERIES, LONGEST = 128, 512
"""Queries of a block of attention on CPUs, and tokens up to which it is computed so where nothing
is dropped (model/attention.py); a test holds them equal."""


@dataclass(frozen=True)
class Workload:
    """What a forecast needs to know of a run; all of it stands in a recipe or follows from it."""

    shape: ModelConfig
    """Resolved: no automatic zeros."""
    train: TrainConfig
    optim: OptimConfig
    method: str = "pretrain"
    """pretrain, full, lora or qlora."""
    adapt: AdaptConfig = dataclasses.field(default_factory=AdaptConfig)
    length: int = 0
    """Tokens of a row, padding included. 0: the context length."""
    precision: str = "fp32"
    """fp32, bf16 or fp16: what the matrix products are computed in."""
    steps: int = 0
    epoch_rows: int = 0
    """Rows of one pass over the training data. 0: not known."""
    val_rows: int = 0
    """Rows of one pass over the validation data. 0: none, or not known."""
    validated: bool = True
    """Whether anything is held out; else an evaluation reads training data only."""
    learnt: float = 1.0
    """Share of the tokens that carry loss."""
    packed: bool = False
    """Whether rows hold several documents, so that attention is given a mask."""
    kept_bytes: int = 0
    """Of a frozen number that is not quantised. 0: as the precision is."""
    device: str = "cpu"
    """cpu or cuda: kernels keep different things."""
    exact: bool = False
    """Whether every row is computed by itself, which some savers of memory cannot do."""

    @property
    def row_length(self) -> int:
        return self.length or self.shape.context_length

    @property
    def micro_batch(self) -> int:
        return self.train.micro_batch_size or self.train.batch_size

    @property
    def micro_batches(self) -> int:
        return -(-self.train.batch_size // self.micro_batch)

    @property
    def adapted(self) -> bool:
        return self.method in ("lora", "qlora")

    @property
    def frozen_bytes(self) -> int:
        """Bytes of a frozen number that is not quantised."""
        return self.kept_bytes or (4 if self.precision == "fp32" else 2)

    @property
    def adapter_parameters(self) -> int:
        """Parameters of an adapter: A and B of every chosen layer, with DoRA a length a row.

        In GPT-2's format queries, keys and values share A (adapt/lora.py).
        """
        if not self.adapted:
            return 0
        layers, rank = targeted(self), self.adapt.rank
        each = sum(rank * (m.inputs + m.outputs) for m in layers)
        if self.adapt.variant == "dora":
            each += sum(m.outputs for m in layers)
        stacked = {"q_proj", "k_proj", "v_proj"}.issubset(m.name for m in layers)
        if self.shape.family == "gpt2" and stacked:
            each -= 2 * rank * self.shape.hidden_size
        return self.shape.num_layers * each

    @property
    def trained_parameters(self) -> int:
        return self.adapter_parameters if self.adapted else count_parameters(self.shape).total


def targeted(job: Workload) -> list[Matrix]:
    """The linear layers of a block that get small matrices: all, or those that are named.

    Names of the published models are recognised by their last part; GPT-2's c_attn stands for
    queries, keys and values.
    """
    layers = matrices(job.shape)
    if not job.adapt.targets:
        return layers
    named = {name.rpartition(".")[2] for name in job.adapt.targets}
    alias = {
        "c_attn": {"q_proj", "k_proj", "v_proj"},
        "c_proj": {"o_proj", "down_proj"},
        "c_fc": {"up_proj"},
        "dense": {"o_proj"},
        "fc1": {"up_proj"},
        "fc2": {"down_proj"},
    }
    wanted = named.union(*(alias.get(name, set()) for name in named))
    return [matrix for matrix in layers if matrix.name in wanted] or layers


@dataclass(frozen=True)
class Work:
    """Counts of one update. Operations: a multiplication and an addition are two."""

    matrix_operations: float = 0.0
    """Products of matrices, those of attention apart."""
    matrix_bytes: float = 0.0
    """What these products read and write: narrow ones are held up by it."""
    attention_operations: float = 0.0
    attention_scores: float = 0.0
    """Their softmax and its way back: what a score takes besides the products."""
    elementwise_bytes: float = 0.0
    """Norms, activations, dropout, residuals, softmax of the logits: read and written."""
    update_bytes: float = 0.0
    """Read and written by clipping and the optimizer."""
    packed_states: float = 0.0
    """Numbers whose two averages the optimizer unpacks from 8 bits and packs again."""
    unpacked_weights: float = 0.0
    """Quantised weights turned into numbers."""
    calls: float = 0.0
    """Operations that PyTorch is asked for, whatever their size."""

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def times(self, factor: float) -> Work:
        return Work(*(factor * value for value in self.values()))

    def values(self) -> tuple[float, ...]:
        return dataclasses.astuple(self)

    def named(self) -> Mapping[str, float]:
        return dataclasses.asdict(self)


def pass_work(job: Workload, rows: int, *, backward: bool) -> Work:
    """One forward pass over `rows` rows, and the way back.

    Sources: Kaplan et al. 2020, table 1 (operations of the products); Korthikanti et al. 2022,
    section 4 (what is kept and read of each block).
    """
    shape, width = job.shape, 4 if job.precision == "fp32" else 2
    T, C = job.row_length, shape.hidden_size
    N, D, V = rows * T, shape.head_size, shape.vocab_size
    frozen = job.adapted
    # On the way back: the gradient of the input, and that of the weight unless it is frozen.
    ways = 1 + (1 if frozen else 2) * backward
    again = 1 if backward and job.train.gradient_checkpointing else 0
    layers = matrices(shape)
    weights = sum(matrix.weights for matrix in layers)
    moved = sum(N * (m.inputs + m.outputs) + m.weights for m in layers)
    block = Work(
        matrix_operations=2.0 * N * weights * (ways + again),
        matrix_bytes=float(width * moved * (ways + again)),
        # Half of the (T, T) products lie behind the diagonal; the way back makes them 2.5 times.
        attention_operations=2.0 * N * T * shape.num_heads * D * (1 + again + 2.5 * backward),
        attention_scores=0.5 * N * T * shape.num_heads * (1 + again + backward),
        elementwise_bytes=float(
            width * N * (elements(job) * (1 + again) + back_elements(job) * backward)
        ),
        calls=(18 + 3 * len(layers)) * (1 + again + 1.5 * backward),
    )
    if frozen:
        small = sum(job.adapt.rank * (m.inputs + m.outputs) for m in targeted(job))
        outputs = sum(m.outputs for m in targeted(job))
        inputs = sum(m.inputs for m in targeted(job))
        # Each output is scaled and added; on the way back scaled, and the inputs' gradients added.
        touched = 5 * outputs * (1 + again) + (2 * outputs + 3 * inputs) * backward
        block += Work(
            matrix_operations=2.0 * N * small * (1 + again + 2 * backward),
            matrix_bytes=4.0 * N * (inputs + outputs) * (1 + again + 2 * backward),
            elementwise_bytes=4.0 * N * touched,
            calls=len(targeted(job)) * 5.0 * (1 + again + 1.5 * backward),
        )
    if job.method == "qlora":
        block += Work(unpacked_weights=float(weights * (1 + again + backward)))
    learnt = N * (job.learnt if frozen else 1.0)
    chunks = -(-learnt // max(1, HELD // logits_row(job)))  # each reads the head anew
    # The head's gradient is scaled by the upstream one; the embedding's is cleared, filled and,
    # where both are one matrix, added.
    gradient = (0 if frozen else 6 if shape.tie_embeddings else 3) * backward
    head = Work(
        matrix_operations=2.0 * learnt * C * V * ways,
        matrix_bytes=4.0 * (learnt * (C + V) + C * V * chunks) * ways,
        # Largest, differences, powers and sum of each row; the slope is made in place.
        elementwise_bytes=4.0 * learnt * V * (6 + 6 * backward) + 4.0 * N * C * 4,
        update_bytes=4.0 * C * V * gradient,
        calls=60.0,
    )
    return block.times(shape.num_layers) + head


def logits_row(job: Workload) -> int:
    """Bytes that the loss takes for a token: its softmax in the type of the products, and the
    logits of a slice of the vocabulary, in 16 bits with their softmax in float32."""
    V, number = job.shape.vocab_size, 4 if job.precision == "fp32" else 2
    passing = 4 + number if number < 4 else number
    return number * V + passing * (min(V, COLUMNS) if job.device == "cpu" else V)


def elements(job: Workload) -> int:
    """Numbers a token makes the elementwise operations of a block read and write, forward."""
    shape = job.shape
    C, F = shape.hidden_size, shape.intermediate_size
    # Two sums, heads put side by side.
    norms = 1 if shape.parallel_residual else 2
    stream = 8 * C + norms * norm_elements(job, C)
    inner = 5 * F if shape.mlp == "swiglu" else 2 * F
    dropped = 14 * C if shape.dropout else 0  # two masks drawn, scaled and applied
    return stream + inner + head_elements(job) + dropped


def back_elements(job: Workload) -> int:
    """The same on the way back."""
    shape = job.shape
    C, F = shape.hidden_size, shape.intermediate_size
    # Gradients that meet: at the two sums, of the three that read the first norm.
    norms = 1 if shape.parallel_residual else 2
    stream = 14 * C + norms * (norm_elements(job, C) + 2 * C)
    # Of the gate: two products, two gradients that meet, SiLU.
    inner = 9 * F + 3 * C if shape.mlp == "swiglu" else 3 * F
    biases = sum(matrix.outputs for matrix in matrices(shape) if matrix.bias)
    dropped = 6 * C if shape.dropout else 0
    return stream + inner + biases + head_elements(job) + dropped


def norm_elements(job: Workload, size: int) -> int:
    """Read and written by a norm of so many numbers; RMSNorm takes steps on CPUs (layers.py)."""
    return (5 if job.shape.norm == "rmsnorm" and job.device == "cpu" else 2) * size


def head_elements(job: Workload) -> int:
    """Read and written by the turns and norms of queries and keys."""
    shape = job.shape
    heads = (shape.num_heads + shape.num_kv_heads) * shape.head_size
    turned = 10 * heads if shape.positions == "rotary" else 0
    return turned + (norm_elements(job, heads) if shape.qk_norm else 0)


def update_work(job: Workload) -> Work:
    """One update: its micro-batches, clipping, the optimizer."""
    whole = pass_work(job, job.micro_batch, backward=True).times(job.micro_batches)
    trained = job.trained_parameters
    # Clipping reads the gradient twice and writes it once; AdamW reads four numbers, writes three,
    # and in 16 or 8 bits four of those seven are half or a quarter as long. Each further
    # micro-batch adds its gradient to the sum.
    packed = {"adamw16bit": 8, "adamw8bit": 7, "paged_adamw8bit": 7}
    moved = {"adamw": 10, "sgd": 8, "muon": 12, **packed}[job.optim.optimizer]
    moved += 3 * (job.micro_batches - 1) + (3 if job.optim.average_decay else 0)
    tensors = (2 * len(targeted(job)) if job.adapted else 9) * job.shape.num_layers + 4
    after = Work(
        update_bytes=4.0 * trained * moved,
        packed_states=float(trained if job.optim.optimizer.endswith("8bit") else 0),
        calls=4.0 * tensors,
    )
    if job.optim.optimizer == "muon":
        after += orthogonalisation(job)
    return whole + after


def orthogonalisation(job: Workload) -> Work:
    """Newton-Schulz of every matrix inside the blocks: three products an iteration.

    Source: Jordan et al. 2024, "Muon".
    """
    operations = 0.0
    for matrix in matrices(job.shape):
        short, long = sorted((matrix.inputs, matrix.outputs))
        operations += MUON_ITERATIONS * (4.0 * short * short * long + 2.0 * short**3)
    each = Work(
        matrix_operations=operations,
        calls=float(len(matrices(job.shape)) * (12 + 6 * MUON_ITERATIONS)),
    )
    return each.times(job.shape.num_layers)


def evaluation_work(job: Workload) -> Work:
    """One evaluation, forward only: as many rows of the training as of the validation set."""
    most = max(1, evaluated_tokens(job) // job.row_length)
    if not job.validated:
        return pass_work(job, min(most, job.epoch_rows or most), backward=False)
    rows = job.val_rows or most
    if job.train.eval_tokens:
        rows = min(rows, most)
    return pass_work(job, 2 * rows, backward=False)


def evaluated_tokens(job: Workload) -> int:
    """Most tokens of a set that an evaluation reads; of one whose size is not known, the usual."""
    return job.train.eval_tokens or TrainConfig().eval_tokens
