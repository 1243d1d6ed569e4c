"""Exact mode: the same bits for every split of a batch, over micro-batches and processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from yunque.batch import MASKED, Batch
from yunque.config import InputError, MachineConfig, ModelConfig, OptimConfig, Recipe, validate
from yunque.model.decoder import Decoder
from yunque.runtime import Runtime
from yunque.train.optim import Optimizers
from yunque.train.step import update

B, T, UPDATES = 8, 12, 3
SHAPE = ModelConfig(
    vocab_size=24,
    context_length=T,
    num_layers=2,
    num_heads=2,
    hidden_size=16,
    dropout=0.2,
).resolved(24)


def rows(step: int, first: int, count: int) -> Batch:
    """Rows of unequal numbers of targets; of the third none carries loss."""
    made = torch.Generator().manual_seed(100 + step)
    ids = torch.randint(24, (B, T + 1), generator=made)
    targets = ids[:, 1:].clone()
    for row in range(B):
        targets[row, : row + 2] = MASKED
    targets[2] = MASKED
    part = slice(first, first + count)
    return Batch(ids[part, :-1].contiguous(), targets[part])


def learnt(world: int, rank: int, micro: int, exact: bool) -> tuple[dict[str, Any], list[float]]:
    """The weights after some updates, and the losses and norms on the way."""
    where = Runtime(torch.device("cpu"), "fp32", rank, world)
    model = Decoder(SHAPE, seed=1).train()
    optimizers = Optimizers(model, OptimConfig(learning_rate=1e-2, clip_norm=0.5))
    spread: nn.Module = where.spread(model)
    figures = []
    for step in range(UPDATES):
        done = update(
            step,
            rows,
            spread,
            model.head,
            optimizers,
            torch.amp.GradScaler("cpu", enabled=False),
            where,
            batch_size=B,
            micro_batch_size=micro,
            clip_norm=0.5,
            seed=3,
            exact=exact,
        )
        assert done.applied
        figures += [done.loss, done.grad_norm]
    return {name: p.detach().clone() for name, p in model.named_parameters()}, figures


def one_process(folder: Path, world: int, rank: int, micro: int, exact: bool) -> None:
    torch.set_num_threads(1)
    place = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=world)
    weights, figures = learnt(world, rank, micro, exact)
    kept = {**weights, "figures": torch.tensor(figures, dtype=torch.float64)}
    save_file(kept, folder / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()


def spread_over(folder: Path, world: int, micro: int, exact: bool) -> list[dict[str, Any]]:
    """What every process of `world` ends with."""
    folder.mkdir()
    fork = multiprocessing.get_context("fork")
    others = [
        fork.Process(target=one_process, args=(folder, world, rank, micro, exact))
        for rank in range(world)
    ]
    for other in others:
        other.start()
    for other in others:
        other.join(120)
        assert other.exitcode == 0
    return [load_file(folder / f"{rank}.safetensors") for rank in range(world)]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def equal(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_every_split_of_a_batch_gives_the_same_bits(tmp_path: Path) -> None:
    weights, figures = learnt(1, 0, B, exact=True)
    for micro in (4, 2, 1):
        others, same = learnt(1, 0, micro, exact=True)
        assert same == figures
        assert equal(others, weights)
    for world, micro in ((2, 4), (2, 1), (4, 2)):
        for found in spread_over(tmp_path / f"{world}-{micro}", world, micro, exact=True):
            assert found.pop("figures").tolist() == figures
            assert equal(found, weights)
    # What it is for: without it the splits differ, in the sums and in what dropout drops.
    assert not equal(learnt(1, 0, 4, exact=False)[0], learnt(1, 0, B, exact=False)[0])


def test_the_gradient_is_that_of_the_batch() -> None:
    """Without dropout the exact loss and norm are those of the plain sum, but for rounding."""
    plain, exact = learnt_undropped(False), learnt_undropped(True)
    assert exact == pytest.approx(plain, rel=1e-5)


def learnt_undropped(exact: bool) -> list[float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "train", lambda self, mode=True: nn.Module.train(self, False))
        return learnt(1, 0, B, exact)[1]


def test_what_cannot_be_exact_is_refused() -> None:
    machine = MachineConfig(exactness="exact", precision="fp16")
    with pytest.raises(InputError, match="the loss that fp16 needs is found by overflow"):
        validate(Recipe(machine=machine))
