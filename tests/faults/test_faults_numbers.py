"""Numbers that are none and memory that runs out: the run goes on by a stated rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from small_runs import SMALL, assert_same_run, rows, without_pages, write_text
from torch import nn

from yunque import evaluate
from yunque.assemble import runs
from yunque.assemble.replay import replay
from yunque.assemble.runs import pretrain, resume
from yunque.errors import OutOfMemory
from yunque.model.decoder import Decoder
from yunque.screen import SilentScreen
from yunque.train import checkpoint, loop, spikes
from yunque.train import step as steps
from yunque.train.adamw import AdamW
from yunque.train.loop import NON_FINITE_LIMIT, REWINDS_LIMIT
from yunque.train.step import Update

Many = Callable[[int, int], int]
Say = Callable[[str], None]
STEPS = 20
RUN: dict[str, Any] = {**SMALL, "steps": STEPS, "checkpoint_every": 4, "eval_every": 5}
NAN = float("nan")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_text(tmp_path_factory.mktemp("sources")))


def losses(run: Path) -> dict[int, Any]:
    return {row["step"]: row["train_loss"] for row in rows(run, "step")}


def weights(run: Path, name: str = "last") -> bytes:
    return (run / name / "model.safetensors").read_bytes()


def warned(run: Path, id: str) -> list[dict[str, Any]]:
    return [row for row in rows(run, "warning") if row["id"] == id]


def train(text: str, run: Path, update: Any = None, **options: Any) -> Path:
    with without_pages(), pytest.MonkeyPatch.context() as patch:
        if update is not None:
            patch.setattr(loop, "update", update)
        pretrain(text, run, **{**RUN, **options})
    return run


def poisoning(what: str, at: int, value: float, times: int = 1) -> Any:
    """`update` that meets a number that is none at step `at`, the first `times` it comes by."""
    original, left = steps.update, [times]

    def update(step: int, read: Any, model: nn.Module, *others: Any, **named: Any) -> Update:
        if step != at or not left[0]:
            return original(step, read, model, *others, **named)
        left[0] -= 1
        parameters = list(model.parameters())
        if what == "gradient":
            hook = parameters[-1].register_hook(lambda gradient: gradient * value)
            done = original(step, read, model, *others, **named)
            hook.remove()
            return done
        if what == "loss":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    steps,
                    "cross_entropy_sum",
                    lambda hidden, head, targets: hidden.sum() * value,
                )
                return original(step, read, model, *others, **named)
        with torch.no_grad():
            if what == "weight":
                parameters[-1].view(-1)[0] = value
            else:
                optimizers = others[1]
                held = optimizers.parts[0].state[parameters[-1]]
                held["exp_avg"].view(-1)[0] = value
        return original(step, read, model, *others, **named)

    return update


def passing(begin: int, end: int) -> Any:
    """`update` without effect at the steps `begin` … `end` - 1: the stated skip."""
    original = steps.update

    def update(step: int, *others: Any, **named: Any) -> Update:
        if begin <= step < end:
            return Update(NAN, NAN, 0, applied=False)
        return original(step, *others, **named)

    return update


def test_f28_not_finite(
    text: str, tmp_path: Path, chance: Random, many: Many, figures: Say
) -> None:
    kinds = [(what, value) for what in ("loss", "gradient") for value in (NAN, float("inf"))]
    kinds += [("weight", NAN), ("optimizer state", NAN)]
    count, compared, went_back = many(3, 20), 0, 0
    chance.shuffle(kinds)
    for number in range(count):
        what, value = kinds[number % len(kinds)] if number else ("weight", NAN)
        # An update with a broken state of the optimizer breaks the weights, the next one fails.
        at = chance.randrange(5, 12)
        run = train(text, tmp_path / f"{number}", poisoning(what, at, value))
        if what in ("loss", "gradient"):
            begin, end = at, at + 1
            (row,) = warned(run, "non_finite")
            assert row["step"] == at + 1
            assert len(row["rows"]) == RUN["batch_size"]
        else:
            (row,) = warned(run, "rewound")
            begin, end = row["rewound_to"], row["step"]
            went_back += 1
            assert begin == at - at % 4
            assert at < end
        wanted = train(text, tmp_path / f"{number}-skip", passing(begin, end))
        ours, theirs = losses(run), losses(wanted)
        later = [step for step in range(1, STEPS + 1) if not begin < step <= end]
        assert [ours[step] for step in later] == [theirs[step] for step in later]
        assert weights(run) == weights(wanted)
        compared += len(later)
        again = train(text, tmp_path / f"{number}-again", poisoning(what, at, value))
        assert rows(run, "step", "warning") == rows(again, "step", "warning")
        assert weights(run) == weights(again)
        for step in checkpoint.all_steps(run):
            model, optimizer, _ = checkpoint.load(checkpoint.path_of(run, step))
            assert all(torch.isfinite(one).all() for one in [*model.values(), *optimizer.values()])
    figures(
        f"F28  {count} injections of NaN and infinity, {went_back} of them went back to a "
        f"checkpoint: {compared} losses equal to the stated skip, the same when repeated"
    )


def test_f28_the_places_are_those_of_the_batch(text: str, tmp_path: Path) -> None:
    run = train(text, tmp_path / "run", poisoning("loss", 6, NAN), batch_size=2, steps=8)
    stored = bytearray((run / "data" / "train.bin").read_bytes())
    tokens = torch.frombuffer(stored, dtype=torch.int16)
    batches: list[torch.Tensor] = []
    original = steps.update

    def noting(step: int, read: Any, *others: Any, **named: Any) -> Update:
        if step == 6:
            batches.append(read(step, 0, 2).inputs)
        return original(step, read, *others, **named)

    train(text, tmp_path / "other", noting, batch_size=2, steps=8)
    (row,) = warned(run, "non_finite")
    for place, inputs in zip(row["rows"], batches[0], strict=True):
        first = int(place.split()[1]) - 1
        ring = torch.cat([tokens, tokens])
        assert torch.equal(ring[first : first + 16].long(), inputs)


def test_f28_resumed_and_replayed_over_the_way_back(text: str, tmp_path: Path) -> None:
    whole = train(text, tmp_path / "whole", poisoning("weight", 9, NAN))
    (row,) = warned(whole, "rewound")
    assert (row["rewound_to"], row["step"]) == (8, 9 + NON_FINITE_LIMIT)

    class Stopping(SilentScreen):
        def step(self, row: Any) -> None:
            if row["step"] == 16:
                made.signal = 2

    made = runs.Interrupt()
    with without_pages(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "Interrupt", lambda: made)
        patch.setattr(loop, "update", poisoning("weight", 9, NAN))
        pretrain(text, tmp_path / "stopped", screen=Stopping(), **RUN)
    with without_pages():
        resume(tmp_path / "stopped")
    assert assert_same_run(whole, tmp_path / "stopped") == STEPS
    done = replay(whole, steps=2)
    assert done.confirmed
    assert done.begun_at == 16
    done = replay(whole, steps=18)  # from the beginning up to the way back, and nothing is poisoned
    assert (done.begun_at, done.steps) == (0, 9 + NON_FINITE_LIMIT)
    assert min(one.step for one in done.differences) > 9


def test_f28_without_a_way_back_it_stops(text: str, tmp_path: Path) -> None:
    run = train(text, tmp_path / "none", poisoning("weight", 3, NAN), checkpoint_every=0)
    (stop,) = rows(run, "stop")
    assert (stop["reason"], stop["step"]) == ("non_finite", 3 + NON_FINITE_LIMIT)
    assert checkpoint.all_steps(run) == []
    assert not (run / "last").exists()
    again = train(text, tmp_path / "often", always_nan_from(9), steps=60)
    assert len(warned(again, "rewound")) == REWINDS_LIMIT
    assert rows(again, "stop")[0]["reason"] == "non_finite"


def always_nan_from(at: int) -> Any:
    original = steps.update

    def update(step: int, *others: Any, **named: Any) -> Update:
        if step < at:
            return original(step, *others, **named)
        return poisoning("loss", step, NAN)(step, *others, **named)

    return update


def spiking(what: str, begin: int, end: int) -> Any:
    """`update` whose loss or gradient is finite and far too high from `begin` on, before `end`."""
    original = steps.update

    def update(step: int, *others: Any, **named: Any) -> Update:
        if begin <= step < end:
            return poisoning(what, step, 1e6)(step, *others, **named)
        return original(step, *others, **named)

    return update


LONG: dict[str, Any] = {"steps": 56, "eval_every": 28, "spike_deviations": 30.0}


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_f28_a_spike_is_left_out(what: str, text: str, tmp_path: Path, figures: Say) -> None:
    at, options = 40, {**LONG, "checkpoint_every": 0}
    without = {**options, "spike_deviations": 0.0}
    run = train(text, tmp_path / "run", spiking(what, at, at + 1), **options)
    (row,) = warned(run, "spike")
    assert row["step"] == at + 1
    assert len(row["rows"]) == RUN["batch_size"]
    wanted = train(text, tmp_path / "skip", passing(at, at + 1), **without)
    ours, theirs = losses(run), losses(wanted)
    assert ours.keys() - theirs.keys() == {at + 1}
    assert {step: ours[step] for step in theirs} == theirs
    assert weights(run) == weights(wanted)
    # By default nothing finite is left out, and the same spike reaches the weights.
    off = train(text, tmp_path / "off", spiking(what, at, at + 1), **without)
    assert warned(off, "spike") == []
    assert weights(off) != weights(wanted)
    figures(f"F28  a spike of the {what}: {len(theirs)} losses equal to the stated skip")


def test_f28_spikes_in_a_row_go_back_and_resume_alike(text: str, tmp_path: Path) -> None:
    begin = 42
    whole = train(text, tmp_path / "whole", spiking("gradient", begin, begin + 5), **LONG)
    assert [row["step"] for row in warned(whole, "spike")] == list(range(43, 48))
    (row,) = warned(whole, "rewound")
    assert (row["rewound_to"], row["step"]) == (40, begin + NON_FINITE_LIMIT)
    assert "5 updates in a row were spikes" in row["text"]

    class Stopping(SilentScreen):
        def step(self, row: Any) -> None:
            if row["step"] == 44:  # amid the spikes
                made.signal = 2

    made, run = runs.Interrupt(), tmp_path / "stopped"
    with without_pages(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "update", spiking("gradient", begin, begin + 5))
        with pytest.MonkeyPatch.context() as first:
            first.setattr(runs, "Interrupt", lambda: made)
            pretrain(text, run, screen=Stopping(), **{**RUN, **LONG})
        resume(run)
    assert assert_same_run(whole, run) == LONG["steps"]


def test_f28_a_spike_is_replayed_as_it_was(text: str, tmp_path: Path) -> None:
    """A recipe that calls healthy updates spikes: the log of such a run is confirmed too."""
    run = train(text, tmp_path / "run", **{**LONG, "spike_deviations": 4.0, "clip_norm": 0.0})
    state = json.loads((checkpoint.path_of(run, 56) / "state.json").read_text())
    assert len(state["recent"]["losses"]) == 56 - len(warned(run, "spike"))
    # A checkpoint from before there was such a rule knows nothing of what is usual.
    state["state"] = {k: v for k, v in state["state"].items() if k not in ("spikes", "recent")}
    old = runs.state_of({"state": state["state"], "stopping": state["stopping"]})
    assert (old.step, old.spikes, old.recent) == (56, 0, spikes.Recent())
    assert replay(run, steps=4).confirmed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spikes, "highest", lambda values, deviations: 0.0)
        assert not replay(run, steps=4).confirmed  # each of these is now left out


def test_f28_spikes_without_a_way_back_stop(text: str, tmp_path: Path) -> None:
    options = {**LONG, "checkpoint_every": 0}
    run = train(text, tmp_path / "run", spiking("loss", 40, 99), **options)
    (stop,) = rows(run, "stop")
    assert (stop["reason"], stop["step"]) == ("spikes", 40 + NON_FINITE_LIMIT)


ERRORS: dict[str, Callable[[], BaseException]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    "python": MemoryError,
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"),
}


class Allocator:
    """Has room for `rows` rows at once from update `since` on, in the forward or the backward."""

    def __init__(self, rows: int, since: int, error: str, backward: bool):
        self.rows, self.since, self.error, self.backward = rows, since, error, backward
        self.failed = 0

    def __enter__(self) -> Allocator:
        self.patch = pytest.MonkeyPatch()
        update, loss, now = steps.update, steps.cross_entropy_sum, [0]

        def noting(step: int, *others: Any, **named: Any) -> Update:
            now[0] = step
            return update(step, *others, **named)

        def narrow(hidden: torch.Tensor, head: Any, targets: torch.Tensor) -> torch.Tensor:
            lacks = now[0] >= self.since and len(hidden) > self.rows
            if lacks and not self.backward:
                self.fail()
            if lacks:
                hidden.register_hook(self.fail)
            return loss(hidden, head, targets)

        self.patch.setattr(loop, "update", noting)
        self.patch.setattr(steps, "cross_entropy_sum", narrow)
        return self

    def fail(self, *_: Any) -> None:
        self.failed += 1
        raise ERRORS[self.error]()

    def __exit__(self, *error: object) -> None:
        self.patch.undo()


def test_f29_memory_runs_out(
    text: str, tmp_path: Path, chance: Random, many: Many, figures: Say
) -> None:
    count, compared = many(3, 20), 0
    options = {"batch_size": 8, "steps": 8, "eval_every": 4}
    for number in range(count):
        room = chance.choice((1, 2, 4))
        since = chance.randrange(6) if number else 0
        error = list(ERRORS)[number % len(ERRORS)]
        with Allocator(room, since, error, chance.random() < 0.5) as allocator:
            run = train(text, tmp_path / f"{number}", loop.update, **options)
        halvings = {4: 1, 2: 2, 1: 3}[room]
        assert allocator.failed == halvings
        told = warned(run, "out_of_memory")
        assert [row["micro_batch_size"] for row in told] == [4, 2, 1][:halvings]
        assert {row["step"] for row in told} == {since}
        rule, first = loop.rows_at_once, since

        def from_there_on(job: Any, state: Any) -> int:
            return room if state.step >= first else rule(job, state)  # noqa: B023

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "rows_at_once", from_there_on)
            wanted = train(text, tmp_path / f"{number}-small", **options)
        if since == 0:
            plain = train(text, tmp_path / f"{number}-plain", **options, micro_batch_size=room)
            assert losses(plain) == losses(run)
            assert weights(plain) == weights(run)
        assert losses(run) == losses(wanted)
        assert weights(run) == weights(wanted)
        assert rows(run, "eval") == rows(wanted, "eval")
        compared += len(losses(run))
    figures(
        f"F29  {count} runs out of memory, forward and backward: {compared} losses and the last "
        "weights equal to those with the small micro-batch"
    )


def test_f29_at_one_row_checkpointing_comes_in_then_a_message(text: str, tmp_path: Path) -> None:
    loss = steps.cross_entropy_sum
    options = {"steps": 4, "eval_every": 2, "micro_batch_size": 1}
    wanted = train(text, tmp_path / "wanted", gradient_checkpointing=True, **options)
    enough: list[bool] = []

    def narrow(hidden: torch.Tensor, head: Any, targets: torch.Tensor) -> torch.Tensor:
        if not enough[0] or not any(one.checkpointing for one in made):
            raise MemoryError
        return loss(hidden, head, targets)

    made: list[Decoder] = []
    original = Decoder.__init__

    def noting(self: Decoder, *others: Any, **named: Any) -> None:
        original(self, *others, **named)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "__init__", noting)
        patch.setattr(steps, "cross_entropy_sum", narrow)
        enough.append(True)
        run = train(text, tmp_path / "run", **options)
        assert losses(run) == losses(wanted)
        assert weights(run) == weights(wanted)
        (row,) = warned(run, "out_of_memory")
        assert "gradient checkpointing" in row["text"]
        state = json.loads((checkpoint.path_of(run, 4) / "state.json").read_text())["state"]
        assert state["gradient_checkpointing"] is True
        enough[0] = False
        made.clear()
        with pytest.raises(OutOfMemory, match=r"(?s)does not hold one row.*None was saved"):
            train(text, tmp_path / "none", **options)


def test_f29_in_the_optimizer_nothing_torn_is_saved(text: str, tmp_path: Path) -> None:
    step = AdamW.step
    calls: list[int] = []

    def failing(self: Any, *others: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            raise MemoryError
        return step(self, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdamW, "step", failing)
        with pytest.raises(OutOfMemory, match=r"in the optimizer.*that of step 4"):
            train(text, tmp_path / "run", steps=10)
    with without_pages():
        resume(tmp_path / "run")
    assert assert_same_run(train(text, tmp_path / "whole", steps=10), tmp_path / "run") == 10


def test_f29_in_an_evaluation(text: str, tmp_path: Path) -> None:
    score = evaluate.score

    def narrow(model: Any, batches: list[Any]) -> Any:
        if len(batches[0].inputs) > 2:
            raise MemoryError
        return score(model, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "score", narrow)
        run = train(text, tmp_path / "run", steps=4)
    wanted = train(text, tmp_path / "wanted", steps=4)
    assert losses(run) == losses(wanted)
    assert weights(run) == weights(wanted)
    for ours, theirs in zip(rows(run, "eval"), rows(wanted, "eval"), strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-6)
    assert len(warned(run, "out_of_memory")) == 1
