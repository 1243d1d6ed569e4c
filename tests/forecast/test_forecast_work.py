"""What an update computes and moves, against counts by hand."""

from __future__ import annotations

import dataclasses

import pytest

from yunque.config import AdaptConfig, ModelConfig, OptimConfig, TrainConfig
from yunque.forecast.machine import Rates
from yunque.forecast.work import Workload, back_elements, elements, pass_work, update_work

OLD = ModelConfig(
    preset="",
    num_layers=1,
    hidden_size=8,
    num_heads=2,
    intermediate_size=32,
    context_length=16,
    positions="learned",
    norm="layernorm",
    mlp="gelu",
    bias=True,
    qkv_bias=True,
    qk_norm=False,
    dropout=0.0,
).resolved(100)
NEW = dataclasses.replace(
    OLD, positions="rotary", norm="rmsnorm", mlp="swiglu", bias=False, qkv_bias=False
)


def job(shape: ModelConfig = OLD, batch: int = 4, micro: int = 0, **options: object) -> Workload:
    made = Workload(shape, TrainConfig(batch_size=batch, micro_batch_size=micro), OptimConfig())
    return dataclasses.replace(made, **options)  # type: ignore[arg-type]


def test_scores_are_half_of_a_square_a_head_and_made_again_by_checkpointing() -> None:
    half = 4 * 2 * 16 * 16 / 2  # rows, heads, half of the (T, T) scores
    assert pass_work(job(), 4, backward=False).attention_scores == half
    assert pass_work(job(), 4, backward=True).attention_scores == 2 * half
    train = TrainConfig(batch_size=4, gradient_checkpointing=True)
    assert pass_work(job(train=train), 4, backward=True).attention_scores == 3 * half


def test_elementwise_passes_of_a_token() -> None:
    # Forward: two sums and heads side by side 8 C, two norms 2 C each, GELU 2 F.
    assert elements(job()) == 8 * 8 + 2 * 2 * 8 + 2 * 32
    # Back: meeting gradients 14 C, norms 4 C each, GELU 3 F, biases 3 C + C + F + C.
    assert back_elements(job()) == 14 * 8 + 2 * 4 * 8 + 3 * 32 + (5 * 8 + 32)
    # RMSNorm by steps on a CPU 5 C, gated 5 F, both turns 10 (H + G) D.
    assert elements(job(NEW)) == 8 * 8 + 2 * 5 * 8 + 5 * 32 + 10 * 16
    assert elements(job(NEW, device="cuda")) == 8 * 8 + 2 * 2 * 8 + 5 * 32 + 10 * 16


def test_the_head_is_read_anew_by_every_chunk_of_logits() -> None:
    def moved(vocabulary: int) -> float:
        shape = dataclasses.replace(OLD, vocab_size=vocabulary)
        blocks = pass_work(job(dataclasses.replace(OLD, vocab_size=1)), 4, backward=False)
        rest = blocks.matrix_bytes - 4 * (64 * 9 + 8)
        return pass_work(job(shape), 4, backward=False).matrix_bytes - rest

    # 64 rows take 64 MiB in one chunk: 4 bytes a word, and 4 more of a slice of 4,096. One word
    # more makes it two.
    V = 2**18 - 4096
    assert moved(V) == 4 * (64 * (8 + V) + 8 * V)
    assert moved(V + 1) == 4 * (64 * (9 + V) + 2 * 8 * (V + 1))


def test_further_micro_batches_add_their_gradients() -> None:
    trained = job().trained_parameters
    once, twice = update_work(job()), update_work(job(micro=2))
    # Three numbers moved for each parameter, and the head's gradient made twice.
    assert twice.update_bytes - once.update_bytes == 4 * trained * 3 + 4 * 100 * 8 * 6
    assert twice.matrix_operations == once.matrix_operations


def test_packed_states_are_those_that_are_trained() -> None:
    narrow = OptimConfig(optimizer="adamw8bit")
    assert update_work(job()).packed_states == 0
    assert update_work(job(optim=narrow)).packed_states == job().trained_parameters
    lora = job(optim=narrow, method="lora", adapt=AdaptConfig(rank=2, targets=("up_proj",)))
    assert update_work(lora).packed_states == 2 * (8 + 32)


def test_seconds_are_counts_times_rates() -> None:
    work = update_work(job())
    one = {field.name: 0.0 for field in dataclasses.fields(Rates)}
    for name, amount in work.named().items():
        assert Rates(**{**one, name: 3.0}).seconds(work) == pytest.approx(3 * amount), name
