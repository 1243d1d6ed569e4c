"""Updates made on the way back: the bits of the usual ones, and what a broken gradient ends in."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from yunque.assemble.runs import pretrain, resume
from yunque.batch import Batch
from yunque.config import ModelConfig, OptimConfig, Recipe, recipe_faults
from yunque.errors import OutOfMemory
from yunque.model.decoder import Decoder
from yunque.runlog import read
from yunque.runtime import Runtime
from yunque.train import checkpoint, step
from yunque.train.optim import Optimizers
from yunque.train.step import Update, update

FAST: dict[str, Any] = {"update_in_backward": True, "clip_norm": 0.0, "optimizer": "adamw16bit"}
SMALL: dict[str, Any] = {
    "tokenizer": "char",
    "context_length": 16,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_size": 16,
    "batch_size": 4,
    "steps": 8,
    "eval_every": 4,
    "checkpoint_every": 2,
    "checkpoint_minutes": 0.0,
    "sample_tokens": 0,
    "warmup_steps": 2,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    **FAST,
}


def updates(
    optimizer: str, *, in_backward: bool, tied: bool = False, again: bool = False
) -> tuple[list[Update], dict[str, Tensor]]:
    """Some updates of a small model with dropout, and all that they leave."""
    shape = ModelConfig(
        context_length=32, num_layers=2, num_heads=2, hidden_size=64, tie_embeddings=tied
    ).resolved(97)
    model = Decoder(shape, seed=1).train()
    model.checkpointing = again
    optimizers = Optimizers(model, OptimConfig(optimizer=optimizer))  # type: ignore[arg-type]
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def rows(number: int, first: int, count: int) -> Batch:
        ids = torch.randint(97, (4, 33), generator=torch.Generator().manual_seed(number))
        part = ids[first : first + count]
        return Batch(part[:, :-1].contiguous(), part[:, 1:].contiguous())

    done = [
        update(
            number,
            rows,
            model,
            model.head,
            optimizers,
            scaler,
            Runtime(torch.device("cpu"), "fp32"),
            batch_size=4,
            micro_batch_size=4,
            clip_norm=0.0,
            seed=1,
            in_backward=in_backward,
        )
        for number in range(4)
    ]
    assert all(parameter.grad is None for parameter in model.parameters())
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return done, {**weights, **optimizers.state()}


@pytest.mark.parametrize("optimizer", ["adamw", "adamw16bit", "muon", "sgd"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_bits_are_those_of_the_usual_update(optimizer: str, tied: bool) -> None:
    usual, left = updates(optimizer, in_backward=False, tied=tied)
    assert all(one.applied and math.isfinite(one.grad_norm) for one in usual)
    for again in (False, True):
        done, tensors = updates(optimizer, in_backward=True, tied=tied, again=again)
        assert done == usual
        assert tensors.keys() == left.keys()
        assert all(torch.equal(tensors[name], left[name]) for name in left)


def test_one_gradient_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    taken = Optimizers.step

    def counting(self: Optimizers) -> None:
        held.append(sum(p.grad is not None for p in self.names))
        taken(self)

    monkeypatch.setattr(Optimizers, "step", counting)
    updates("adamw", in_backward=True)
    _, left = updates("sgd", in_backward=False)
    trained = sum("|" not in name for name in left)
    assert held == [1] * (4 * trained)


def test_what_it_cannot_go_with_is_refused_by_name() -> None:
    wrong = {
        "clip_norm": 1.0,
        "spike_deviations": 30.0,
        "micro_batch_size": 2,
        "precision": "fp16",
        "exactness": "exact",
    }
    faults = recipe_faults(Recipe().replace(batch_size=4, update_in_backward=True, **wrong))
    told = [fault for fault in faults if fault.startswith("update_in_backward is True and ")]
    assert [fault.split()[4] for fault in told] == list(wrong)
    assert not recipe_faults(Recipe().replace(clip_norm=0.0, update_in_backward=True))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    chance = random.Random(4)
    words = ["yunque", "suena", "martillo", "canta", "hierro", "forma", "quien", "males", "frío"]
    lines = [" ".join(chance.sample(words, 6)) for _ in range(120)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def told(run: Path) -> list[dict[str, Any]]:
    return [{"event": row.event, **row.values} for row in read(run / "log.jsonl")]


def last(run: Path, at: int = 8) -> dict[str, Tensor]:
    model, optimizer, _ = checkpoint.load(checkpoint.path_of(run, at))
    return {**model, **optimizer}


class Breaking:
    """Makes the gradient of one tensor infinite in one update, after others were taken."""

    def __init__(self, at: int, after: int):
        self.at, self.after, self.updates, self.seen = at, after, 0, 0

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        original = step.updated_in_backward
        hooked = step.called_with_gradients

        def counted(*args: Any) -> Update:
            self.updates, self.seen = self.updates + 1, 0
            return original(*args)

        def called(optimizers: Optimizers, take: Any) -> Any:
            def breaking(parameter: Tensor) -> None:
                if self.updates == self.at and self.seen == self.after:
                    assert parameter.grad is not None
                    parameter.grad.fill_(math.inf)
                self.seen += 1
                take(parameter)

            return hooked(optimizers, breaking)

        self.patch.setattr(step, "updated_in_backward", counted)
        self.patch.setattr(step, "called_with_gradients", called)

    def __exit__(self, *error: object) -> None:
        self.patch.undo()


def test_before_the_first_tensor_nothing_changes(text: str, tmp_path: Path) -> None:
    with Breaking(at=5, after=0):
        pretrain(text, tmp_path / "run", **SMALL)
    rows = told(tmp_path / "run")
    (row,) = [row for row in rows if row["event"] == "warning" and row["id"] == "non_finite"]
    assert row["step"] == 5
    assert "left out" in row["text"]
    assert not [row for row in rows if row.get("id") == "rewound"]


def test_in_the_middle_it_goes_back_to_the_checkpoint(text: str, tmp_path: Path) -> None:
    with Breaking(at=6, after=3):
        result = pretrain(text, tmp_path / "run", **SMALL)
    assert result.reason == "steps"
    rows = told(tmp_path / "run")
    (row,) = [row for row in rows if row["event"] == "warning" and row["id"] == "non_finite"]
    assert "made in part" in row["text"]
    (row,) = [row for row in rows if row.get("id") == "rewound"]
    assert (row["step"], row["rewound_to"]) == (6, 4)
    assert all(torch.isfinite(tensor.float()).all() for tensor in last(tmp_path / "run").values())


def test_in_the_middle_without_a_checkpoint_it_stops(text: str, tmp_path: Path) -> None:
    with Breaking(at=2, after=3):
        result = pretrain(text, tmp_path / "run", **{**SMALL, "checkpoint_every": 6})
    assert result.reason == "non_finite"
    assert checkpoint.all_steps(tmp_path / "run") == []
    assert not (tmp_path / "run" / "last").exists()  # half an update is no model


def test_a_loss_that_is_not_finite_changes_nothing(text: str, tmp_path: Path) -> None:
    original, calls = step.cross_entropy_sum, []

    def endless(*args: Any) -> Tensor:
        calls.append(1)
        return original(*args) * (math.inf if len(calls) == 3 else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "cross_entropy_sum", endless)
        pretrain(text, tmp_path / "run", **SMALL)
    rows = told(tmp_path / "run")
    (row,) = [row for row in rows if row["event"] == "warning" and row["id"] == "non_finite"]
    assert (row["step"], "left out" in row["text"]) == (3, True)


def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(text: str, tmp_path: Path) -> None:
    options = {**SMALL, "schedule": "constant", "early_stopping": False}
    pretrain(text, tmp_path / "whole", **options)
    pretrain(text, tmp_path / "run", **{**options, "steps": 4})
    resume(tmp_path / "run", settings={"steps": 8})
    first, second = last(tmp_path / "whole"), last(tmp_path / "run")
    kinds = {name.partition("|")[2]: t.dtype for name, t in first.items() if "|" in name}
    assert kinds == {
        "step": torch.int64,
        "exp_avg": torch.bfloat16,
        "exp_avg_sq": torch.bfloat16,
    }
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_memory_that_runs_out_ends_in_a_message(text: str, tmp_path: Path) -> None:
    def narrow(*args: Any) -> Tensor:
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "cross_entropy_sum", narrow)
        with pytest.raises(OutOfMemory, match=r"way back.*gradient_checkpointing=true"):
            pretrain(text, tmp_path / "run", **SMALL)
