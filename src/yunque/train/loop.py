"""The loop, in time order, on one screen. Every effect stands where it happens."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from yunque.config import OptimConfig, TrainConfig
from yunque.errors import StorageError
from yunque.runlog import RunLog
from yunque.runtime import Interrupt, Runtime
from yunque.train.optim import Optimizers, WeightAverage, learning_rate_multiplier
from yunque.train.step import Rows, update
from yunque.train.stopping import Stopping

NON_FINITE_LIMIT = 5
"""Updates in a row with a loss or gradient that is not finite after which a run stops."""
FAILED_SAVES_LIMIT = 3
"""Checkpoints in a row that could not be saved, after which a run stops."""
SAVING_SHARE = 0.03
"""Saving by the clock takes at most this share of the time: where a save is slow, it is rarer."""


class Screen(Protocol):
    """What the loop tells while it works."""

    def step(self, row: Mapping[str, Any]) -> None: ...
    def evaluation(self, row: Mapping[str, Any], best: bool) -> None: ...
    def sample(self, prompt: str, text: str) -> None: ...
    def exam(self, row: Mapping[str, Any]) -> None: ...
    def warning(self, text: str) -> None: ...
    def checkpoint(self, path: str) -> None: ...


@dataclass(frozen=True)
class State:
    """Where a run stands: all that is not a tensor. Saved whole, restored whole."""

    stopping: Stopping
    step: int = 0
    """Updates made."""
    tokens_seen: int = 0
    """Tokens that carried loss so far."""
    seconds: float = 0.0
    """Working time so far, over all sessions."""
    evaluated_step: int = -1
    """Step of the last evaluation: a resumed run does not repeat it."""
    non_finite: int = 0
    """Updates in a row that were not applied."""


@dataclass(frozen=True)
class Job:
    """Everything that the loop uses, made by the caller."""

    train: TrainConfig
    optim: OptimConfig
    seed: int
    steps: int
    windows: int
    """Training windows of an epoch."""
    runtime: Runtime
    model: nn.Module
    head: Callable[[torch.Tensor], torch.Tensor]
    optimizers: Optimizers
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    rows: Rows
    measure: Callable[[], tuple[float, float | None]]
    """Training and validation loss of the model as it is, nats per token."""
    sample: Callable[[], tuple[str, str]] | None
    """Prompt and text written by the model as it is."""
    exam: Callable[[int], Mapping[str, Any] | None] | None
    """Updates made → `right`, `total` and more of an exam that the model sits as it is; None where
    it sits none now."""
    general: Callable[[], float] | None
    """Loss of the model as it is on a text that is none of its training, nats per token."""
    keep_best: Callable[[], None]
    save: Callable[[State], str]
    """Write a checkpoint; returns its path."""
    log: RunLog
    screen: Screen
    interrupt: Interrupt
    resumed_step: int
    """Step of the checkpoint that the run goes on from, -1 for a new run."""


def run(job: Job, state: State) -> tuple[State, str]:
    """Train until the steps are done, the patience is used up, or a signal comes.

    Returns:
        The last state and the reason: "steps", "early_stopping", "interrupted", "non_finite".
    """
    clock, saved = Clock(state.seconds), time.monotonic()
    # An evaluation that a stop had left out changes the state without an update.
    saved_at = (job.resumed_step, state.evaluated_step)
    cost, failed = 0.0, 0
    micro = job.train.micro_batch_size or job.train.batch_size
    while True:
        interrupted = job.runtime.any(job.interrupt.asked)
        due = state.step % job.train.eval_every == 0 or state.step >= job.steps
        if due and state.evaluated_step != state.step and not interrupted:
            state = evaluate(job, state, clock)
        reason = (
            "interrupted"
            if interrupted
            else "non_finite"
            if state.non_finite >= NON_FINITE_LIMIT
            else "early_stopping"
            if state.stopping.stop
            else "steps"
            if state.step >= job.steps
            else ""
        )
        due = bool(reason) or checkpoint_due(job, state.step, time.monotonic() - saved, cost)
        if due and saved_at != (at := (state.step, state.evaluated_step)):
            state = dataclasses.replace(state, seconds=clock.seconds())
            began = time.monotonic()
            fault = save(job, state)
            saved = time.monotonic()
            cost = saved - began
            saved_at, failed = (saved_at, failed + 1) if fault else (at, 0)
            if failed and (reason or failed >= FAILED_SAVES_LIMIT):
                raise StorageError(fault)
            if failed:
                left_over(job, state, clock, fault)
        if reason:
            return state, reason

        began = time.monotonic()
        rate = job.optimizers.set_rate(learning_rate_multiplier(state.step, job.steps, job.optim))
        done = update(
            state.step,
            job.rows,
            job.model,
            job.head,
            job.optimizers,
            job.scaler,
            job.runtime,
            batch_size=job.train.batch_size,
            micro_batch_size=micro,
            clip_norm=job.optim.clip_norm,
            seed=job.seed,
        )
        finite = done.applied or done.rescaled or done.tokens == 0
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            tokens_seen=state.tokens_seen + done.tokens,
            non_finite=0 if finite else state.non_finite + 1,
        )
        if job.average is not None:
            job.average.update(state.step)
        if done.tokens == 0:
            text = f"step {state.step}: no token of the batch carries loss; nothing was learnt."
            job.log.write("warning", **common(job, state, clock), id="no_loss", text=text)
            job.screen.warning(text)
            continue
        row = {
            **common(job, state, clock),
            "train_loss": done.loss,
            "learning_rate": rate,
            "grad_norm": done.grad_norm,
            "tokens_per_second": round(done.tokens / (time.monotonic() - began), 1),
            "memory_bytes": job.runtime.memory_bytes(),
        }
        job.log.write("step", **row)
        job.screen.step({**row, "steps": job.steps})
        if not finite:
            text = f"step {state.step}: loss or gradient is not finite; the update was left out."
            job.log.write("warning", **common(job, state, clock), id="non_finite", text=text)
            job.screen.warning(text)


def evaluate(job: Job, state: State, clock: Clock) -> State:
    """Losses, a sample, the exam; keep the model where the validation loss is the lowest yet."""
    if job.average is not None:
        job.average.swap()
    train_loss, val_loss = job.measure()
    marks = job.exam(state.step) if job.exam is not None else None
    watched = train_loss if val_loss is None else val_loss
    if job.train.watch == "exam" and marks is not None:
        watched = 1.0 - marks["right"] / marks["total"]
    stopping = state.stopping.seen(state.step, watched)
    best = stopping.best_step == state.step
    state = dataclasses.replace(state, evaluated_step=state.step, stopping=stopping)
    row = {**common(job, state, clock), "train_loss": train_loss, "val_loss": val_loss}
    if job.general is not None:
        row["general_loss"] = job.general()
    job.log.write("eval", **row)
    job.screen.evaluation(row, best)
    if job.sample is not None:
        prompt, text = job.sample()
        job.log.write("sample", **common(job, state, clock), prompt=prompt, text=text)
        job.screen.sample(prompt, text)
    if marks is not None:
        row = {**common(job, state, clock), **marks}
        job.log.write("exam", **row)
        job.screen.exam(row)
    if best:
        job.keep_best()
    if job.average is not None:
        job.average.swap()
    return state


def save(job: Job, state: State) -> str:
    """Write a checkpoint; returns why it could not be, or nothing."""
    path, fault = "", ""
    try:
        path = job.save(state)
    except StorageError as error:
        fault = str(error)
    if job.runtime.any(bool(fault)):
        return fault or "the main process could not save."
    job.screen.checkpoint(path)
    return ""


def left_over(job: Job, state: State, clock: Clock, fault: str) -> None:
    """Tell of a checkpoint that could not be saved; the training goes on."""
    text = f"step {state.step}: no checkpoint was saved, the training goes on. {fault}"
    job.screen.warning(text)
    with contextlib.suppress(StorageError):  # the log is on the same disk
        job.log.write("warning", **common(job, state, clock), id="not_saved", text=text)


def checkpoint_due(job: Job, step: int, seconds_since: float, cost: float) -> bool:
    """Whether a checkpoint is wanted after this update, by count or by the clock.

    `cost`: seconds that the last one took.
    """
    every, minutes = job.train.checkpoint_every, job.train.checkpoint_minutes
    by_count = every > 0 and step > 0 and step % every == 0
    wait = max(60 * minutes, cost / SAVING_SHARE)
    return by_count or job.runtime.any(minutes > 0 and seconds_since >= wait)


def common(job: Job, state: State, clock: Clock) -> dict[str, Any]:
    """The keys that every row of the run log has, now."""
    return row_keys(state, clock.seconds(), job.train.batch_size, job.windows)


def row_keys(state: State, seconds: float, batch_size: int, windows: int) -> dict[str, Any]:
    """The keys that every row of the run log has; `windows`: training windows of an epoch."""
    return {
        "step": state.step,
        "epoch": round(state.step * batch_size / windows, 4),
        "tokens_seen": state.tokens_seen,
        "seconds": round(seconds, 3),
    }


class Clock:
    """Monotonic seconds since the run began, sessions before this one included."""

    def __init__(self, before: float):
        self.origin = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self.origin
