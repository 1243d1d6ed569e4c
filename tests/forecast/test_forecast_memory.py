"""Memory by arithmetic: what a block keeps against autograd itself; parts by hand."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from yunque import evaluate
from yunque.adapt.lora import add_lora, apply_method
from yunque.assemble import runs
from yunque.config import AdaptConfig, ModelConfig, OptimConfig, TrainConfig
from yunque.forecast import memory
from yunque.forecast.memory import block_activations, quantised_bytes, stored
from yunque.forecast.shape import Matrix, count_parameters
from yunque.forecast.work import Workload
from yunque.model import attention
from yunque.model.decoder import Decoder
from yunque.train import loss
from yunque.weights.families import module_names

OLD: dict[str, Any] = {
    "mlp": "gelu",
    "norm": "layernorm",
    "positions": "learned",
    "bias": True,
    "qkv_bias": True,
    "qk_norm": False,
}
LORA = AdaptConfig(rank=4)
ROWS, T = 2, 64


def workload(adapt: AdaptConfig | None = None, packed: bool = False, **sizes: Any) -> Workload:
    """A small job of the shape that `sizes` change."""
    known = {"context_length": T, "num_heads": 4, "hidden_size": 64, "intermediate_size": 192}
    known |= {"num_layers": 2, "dropout": 0.0, "qk_norm": False}
    shape = ModelConfig(**{**known, **sizes}).resolved(50)
    method = adapt.method if adapt else "pretrain"
    train = TrainConfig(batch_size=ROWS)
    return Workload(shape, train, OptimConfig(), method, adapt or LORA, packed=packed)


def kept_by_autograd(job: Workload, rows: int) -> int:
    """Bytes that the forward pass keeps, each storage once, weights and buffers apart."""
    model: Any = Decoder(job.shape).train()
    model.checkpointing = job.train.gradient_checkpointing
    if job.adapted:
        model = apply_method(model, job.adapt, 1, module_names(job.shape))
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}
    held = []  # a storage that is let go could come back under the same address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held.append(tensor)
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    layout = {}
    if job.packed:
        layout["segments"] = torch.zeros(rows, T, dtype=torch.long)
        layout["positions"] = torch.arange(T).expand(rows, T)
    with (
        torch.autocast("cpu", enabled=job.precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        model(torch.randint(0, 50, (rows, T)), **layout)
    return sum(seen.values())


CASES: dict[str, Workload] = {
    "llama": workload(),
    "grouped": workload(num_kv_heads=2),
    "qwen3": workload(qk_norm=True),
    "gpt2": workload(**OLD),
    "gpt2 with dropout": workload(**OLD, dropout=0.1),
    "gpt2 with both": workload(**OLD, dropout=0.1, attention_dropout=0.1),
    "phi": workload(**{**OLD, "positions": "rotary"}, parallel_residual=True, head_bias=True),
    "packed": workload(packed=True),
    "bf16": dataclasses.replace(workload(), precision="bf16"),
    "lora": workload(LORA),
    "lora of gpt2": workload(LORA, **OLD),
    "lora of two": workload(dataclasses.replace(LORA, targets=("q_proj", "v_proj"))),
    "lora with dropout": workload(dataclasses.replace(LORA, lora_dropout=0.1)),
    "lora in bf16": dataclasses.replace(workload(LORA), precision="bf16", kept_bytes=4),
    "dora": workload(dataclasses.replace(LORA, variant="dora")),
    "qlora": workload(dataclasses.replace(LORA, method="qlora")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_block_keeps_what_autograd_keeps(name: str) -> None:
    # Differences of two depths and of two batches: neither the ends nor what does not grow with
    # the rows is left. The second block, for what enters the first needs no gradient of its own.
    job = CASES[name]

    def of(layers: int, rows: int) -> int:
        shape = dataclasses.replace(job.shape, num_layers=layers)
        return kept_by_autograd(dataclasses.replace(job, shape=shape), rows)

    grown = (of(3, 4) - of(2, 4)) - (of(3, 2) - of(2, 2))
    assert grown == 2 * T * block_activations(job)


def test_the_limits_are_those_of_the_loss_and_of_the_evaluation() -> None:
    assert (memory.HELD, memory.COLUMNS) == (loss.HELD_BYTES, loss.COLUMNS)
    assert (memory.QUERIES, memory.LONGEST) == (attention.QUERIES, attention.LONGEST)
    for T in (1, 64, 200, 512, 1000):
        assert memory.weights_made(T) == sum((end - a) * end for a, end in attention.blocks(T))
    assert memory.LOGITS == evaluate.CHUNK_ELEMENTS
    assert memory.EVALUATION_ROWS == runs.EVALUATION_ROWS
    for rows, vocabulary in ((1, 100), (300, 50_257), (4096, 8_000), (8192, 1_000)):
        for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            job = dataclasses.replace(workload(vocab_size=vocabulary), precision=precision)
            each = loss.row_bytes(torch.empty(1, dtype=kind), vocabulary)
            assert memory.logits_bytes(job, rows) == loss.chunk_rows(rows, each) * each
        card = dataclasses.replace(job, device="cuda")
        each = loss.row_bytes(torch.empty(1, dtype=kind, device="meta"), vocabulary)
        assert memory.logits_bytes(card, rows) == loss.chunk_rows(rows, each) * each


MEASURED = {
    # bench/plan.py, docs/lab-notes.md: method, layers, width, heads, vocabulary, rows, MB of the
    # whole process. Shapes as GPT-2's, with gradient checkpointing; 256 tokens a row.
    "lora 30m": ("lora", 8, 512, 8, 8_000, 8, 918),
    "lora 124m": ("lora", 12, 768, 12, 50_257, 2, 1_189),
    "pretrain 124m": ("pretrain", 12, 768, 12, 50_257, 2, 2_555),
}


@pytest.mark.parametrize("name", MEASURED)
def test_with_checkpointing_the_whole_process_is_as_measured(name: str) -> None:
    method, layers, width, heads, vocabulary, rows, megabytes = MEASURED[name]
    sizes = {"num_layers": layers, "hidden_size": width, "num_heads": heads, "context_length": 1024}
    shape = ModelConfig(**{**OLD, **sizes}, dropout=0.0).resolved(vocabulary)
    train = TrainConfig(batch_size=rows, gradient_checkpointing=True)
    job = Workload(shape, train, OptimConfig(), method, AdaptConfig(method="lora"), length=256)
    whole = memory.peak_memory(job, 306_000_000 + memory.library_bytes(job)).total
    assert whole == pytest.approx(megabytes * 1e6, rel=0.04)
    # Of a card nothing of the kind is taken.
    assert memory.peak_memory(dataclasses.replace(job, device="cuda")).holes == 0


def test_adamw_in_eight_bits_unpacks_the_tensor_that_it_updates() -> None:
    optim = pytest.importorskip("bitsandbytes.optim")
    parameter = torch.nn.Parameter(torch.ones(256, 512))
    optimizer = optim.AdamW8bit([parameter])

    def step() -> None:
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    step()  # makes the averages
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda event: event.start_ns())]
    peak = max(itertools.accumulate(sizes)) - 4 * parameter.numel()  # the new gradient
    assert peak == pytest.approx(memory.UNPACKED * parameter.numel(), rel=0.01)
    job = workload()
    eight = dataclasses.replace(job, optim=OptimConfig(optimizer="adamw8bit"))
    assert memory.optimizer_working(eight) == memory.UNPACKED * 64 * 192  # a feed-forward's matrix
    assert memory.optimizer_working(job) == 0
    assert memory.optimizer_working(dataclasses.replace(eight, device="cuda")) == 0
    assert [memory.library_bytes(one) for one in (job, eight)] == [0, memory.BITSANDBYTES_BYTES]


def test_quantised_matrices_by_hand() -> None:
    # 4 bits: half a byte; one scale for 64 numbers, in 4 bytes or in one with 4 for 256 of them.
    matrix = Matrix("up_proj", 512, 64, False)
    assert quantised_bytes(matrix, 4, double=False) == (16384, 4 * 512)
    assert quantised_bytes(matrix, 4, double=True) == (16384, 512 + 4 * 2)
    assert quantised_bytes(matrix, 8, double=True) == (32768, 4 * 64)


def test_what_lies_in_memory_between_two_updates_by_hand() -> None:
    job = workload()
    count = count_parameters(job.shape)
    # Embedding 50 x 64; a block 4 x 64 x 64 and 3 x 64 x 192, two norms; the last norm.
    assert count.total == 50 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 192 + 2 * 64) + 64
    held = stored(job)
    assert (held.weights, held.optimizer, held.average) == (4 * count.total, 8 * count.total, 0)
    muon = dataclasses.replace(job, optim=OptimConfig(optimizer="muon", average_decay=0.9))
    blocks = 2 * (4 * 64 * 64 + 3 * 64 * 192)
    assert stored(muon).optimizer == 4 * blocks + 8 * (count.total - blocks)
    assert stored(muon).average == 4 * count.total
    tuned = workload(dataclasses.replace(LORA, method="qlora"))
    adapter = 2 * 4 * (4 * (64 + 64) + 3 * (64 + 192))
    assert stored(tuned).adapter == 4 * adapter
    assert stored(tuned).optimizer == 8 * adapter
    assert stored(tuned).weights == blocks // 2 + 4 * (count.total - blocks)


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj")])
@pytest.mark.parametrize("family", [{}, OLD])
def test_an_adapter_has_as_many_parameters(
    variant: Any, targets: tuple[str, ...], family: dict[str, Any]
) -> None:
    if family and targets:
        targets = ("c_attn",)
    adapt = dataclasses.replace(LORA, variant=variant, targets=targets)
    job = workload(adapt, **family)
    model = add_lora(Decoder(job.shape), adapt, 1, module_names(job.shape))
    held = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert job.adapter_parameters == held
