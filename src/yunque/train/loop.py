"""The loop, in time order, on one screen. Every effect stands where it happens."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from yunque.config import OptimConfig, TrainConfig
from yunque.errors import OutOfMemory, StorageError
from yunque.runlog import RunLog
from yunque.runtime import Interrupt, Runtime, lacks_memory
from yunque.train.optim import Optimizers, WeightAverage, learning_rate_multiplier
from yunque.train.spikes import Recent
from yunque.train.step import Rows, Update, update
from yunque.train.stopping import Stopping

NON_FINITE_LIMIT = 5
"""Updates in a row that were left out, with a loss or gradient that is not finite or a spike, after
which a run goes back to its last good checkpoint, or stops where there is none."""
REWINDS_LIMIT = 3
"""Times that a run goes back before it stops."""
FAILED_SAVES_LIMIT = 3
"""Checkpoints in a row that could not be saved, after which a run stops."""
SAVING_SHARE = 0.025
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
    """Updates in a row that were left out."""
    spikes: int = 0
    """So many of these were finite, and spikes."""
    recent: Recent = field(default_factory=Recent)
    """What losses and gradient norms were lately; empty where no update is left out as a spike."""
    rewinds: int = 0
    """Times that the run went back to a checkpoint."""
    micro_batch_size: int = 0
    """Rows at once since the memory ran out. 0: as the recipe says."""
    gradient_checkpointing: bool = False
    """Switched on since the memory ran out even for one row."""
    evaluation_rows: int = 0
    """Rows of an evaluation at once since the memory ran out in one. 0: `Job.evaluation_rows`."""

    @property
    def only_spikes(self) -> bool:
        """Whether every update that was left out in a row was finite."""
        return self.spikes == self.non_finite


@dataclass(frozen=True)
class Job:
    """Everything that the loop uses, made by the caller."""

    train: TrainConfig
    optim: OptimConfig
    seed: int
    exact: bool
    """One row at once, its gradients added in a fixed tree."""
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
    places: Callable[[int], list[str]]
    """Update (0-based) → where each row of its batch stands in the training data."""
    measure: Callable[[int, int], tuple[float, float | None]]
    """Updates made, rows at once → training and validation loss as the model is, nats per token."""
    evaluation_rows: int
    """Rows of an evaluation at once."""
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
    broken: Callable[[], str]
    """The name of a weight, or of a tensor of the optimizer, that is not finite, or nothing."""
    rewind: Callable[[], int | None]
    """Put back the tensors of the last good checkpoint; returns its step, None without one."""
    checkpoint_blocks: Callable[[], None]
    """Switch gradient checkpointing on."""
    log: RunLog
    screen: Screen
    interrupt: Interrupt
    resumed_step: int
    """Step of the checkpoint that the run goes on from, -1 for a new run."""


def run(job: Job, state: State) -> tuple[State, str]:
    """Train until the steps are done, the patience is used up, or a signal comes.

    Returns:
        The last state and the reason: "steps", "early_stopping", "interrupted", "non_finite",
        "spikes".
    """
    clock, saved = Clock(state.seconds), time.monotonic()
    # An evaluation that a stop had left out changes the state without an update.
    saved_at = (job.resumed_step, state.evaluated_step)
    cost, failed = 0.0, 0
    rewinds = state.rewinds  # of which a checkpoint tells
    while True:
        interrupted = job.runtime.any(job.interrupt.asked)
        due = state.step % job.train.eval_every == 0 or state.step >= job.steps
        if due and state.evaluated_step != state.step and not interrupted:
            state = evaluate(job, state, clock)
        if state.non_finite >= NON_FINITE_LIMIT:
            what = "spikes" if state.only_spikes else "not finite"
            why = f"{state.non_finite} updates in a row were {what}"
            state = rewind(job, state, clock, why)
        reason = (
            "interrupted"
            if interrupted
            else ("spikes" if state.only_spikes else "non_finite")
            if state.non_finite >= NON_FINITE_LIMIT
            else "early_stopping"
            if state.stopping.stop
            else "steps"
            if state.step >= job.steps
            else ""
        )
        due = checkpoint_due(job, state.step, time.monotonic() - saved, cost)
        # Not between updates that fail: what is kept to go back to must be from before them.
        due = bool(reason) or state.rewinds > rewinds or (due and not state.non_finite)
        at = (state.step, state.evaluated_step)
        began = time.monotonic()
        if due and saved_at != at and (name := broken(job)):
            before = state.rewinds
            state = rewind(job, state, clock, f"{name} is not finite")
            if state.rewinds == before:
                return state, "non_finite"
        rewinds = state.rewinds
        if due and saved_at != at:
            state = dataclasses.replace(state, seconds=clock.seconds())
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
        state, done = fitting_update(job, state, clock)
        healthy = done.applied or done.rescaled or done.tokens == 0
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            tokens_seen=state.tokens_seen + done.tokens,
            non_finite=0 if healthy else state.non_finite + 1,
            spikes=0 if healthy else state.spikes + done.spike,
            recent=remembered(job.optim, state.recent, done),
        )
        if job.average is not None and not done.torn:
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
        if not healthy:
            what = "is a spike" if done.spike else "is not finite"
            kept = "made in part" if done.torn else "left out"
            text = f"step {state.step}: loss or gradient {what}; the update was {kept}."
            job.screen.warning(text)
            places = job.places(state.step - 1)
            row = {**common(job, state, clock), "text": text, "rows": places}
            job.log.write("warning", **row, id="spike" if done.spike else "non_finite")
        if done.torn:
            # Weights of no update are neither measured nor saved.
            before = state.rewinds
            state = rewind(job, state, clock, "an update was made in part")
            if state.rewinds == before:
                return state, "non_finite"


def remembered(optim: OptimConfig, recent: Recent, done: Update) -> Recent:
    """What is usual after an update; nothing where a recipe leaves no spike out."""
    if not optim.spike_deviations:
        return Recent()
    return recent.seen(done.loss, done.grad_norm) if done.applied else recent


def broken(job: Job) -> str:
    """The name of a tensor that is not finite, the same in all processes."""
    name = job.broken()
    return (name or "a tensor") if job.runtime.any(bool(name)) else ""


def rewind(job: Job, state: State, clock: Clock, why: str) -> State:
    """Go back to the weights and the optimizer of the last good checkpoint, but not in the data.

    The updates go on being counted: those since the checkpoint stand in the log as they were and
    stay without effect, their batches are passed by, and so is their part of the schedule. What is
    usual is learnt anew, so that a run whose level has changed for good does not go back again.
    Where there is no good checkpoint, or the run went back too often, the state stays as it is.

    Source: Chowdhery et al. 2022, "PaLM", section 5.1 (back to a checkpoint before the spike, the
    batches around it skipped).
    """
    step = job.rewind() if state.rewinds < REWINDS_LIMIT else None
    if step is None:
        return state
    rewinds = state.rewinds + 1
    state = dataclasses.replace(state, non_finite=0, spikes=0, recent=Recent(), rewinds=rewinds)
    text = (
        f"step {state.step}: {why}. Weights and optimizer are again those of step {step}; the "
        f"batches of updates {step + 1} to {state.step} are passed by."
    )
    row = {**common(job, state, clock), "text": text, "rewound_to": step}
    job.log.write("warning", **row, id="rewound")
    job.screen.warning(text)
    return state


def fitting_update(job: Job, state: State, clock: Clock) -> tuple[State, Update]:
    """Make the next update; where the memory runs out, again from its start with half the rows.

    Only with one process: others would wait for this one in the middle of their sums.

    Raises:
        OutOfMemory: even one row with gradient checkpointing does not fit, or there are others.
    """
    while True:
        try:
            return state, update(
                state.step,
                job.rows,
                job.model,
                job.head,
                job.optimizers,
                job.scaler,
                job.runtime,
                batch_size=job.train.batch_size,
                micro_batch_size=rows_at_once(job, state),
                clip_norm=job.optim.clip_norm,
                seed=job.seed,
                exact=job.exact,
                in_backward=job.train.update_in_backward,
                limits=state.recent.limits(job.optim.spike_deviations),
            )
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            refuse_after_changes(job, state)
            refuse_with_others(job, state, rows_at_once(job, state))
        # Out of the handler: what the error came through held the memory.
        job.optimizers.zero_grad()
        job.runtime.free_memory()
        state = smaller(job, state, clock)


def refuse_after_changes(job: Job, state: State) -> None:
    """An update on the way back cannot be made again: some weights may be changed already.

    Raises:
        OutOfMemory: the updates are made on the way back.
    """
    if not job.train.update_in_backward:
        return
    raise OutOfMemory(
        f"step {state.step + 1}: the memory ran out in an update made on the way back, when "
        "some weights may have been changed already, so that it cannot be made again with fewer "
        "rows. Resume with --set gradient_checkpointing=true or --set batch_size=LESS."
    ) from None


def refuse_with_others(job: Job, state: State, rows: int) -> None:
    """With several processes a run that lacks memory ends, and says what it takes to go on.

    Args:
        rows: at once, when the memory ran out.

    Raises:
        OutOfMemory: there are other processes, and something could be made smaller.
    """
    least = rows == 1 and (job.train.gradient_checkpointing or state.gradient_checkpointing)
    if job.runtime.world == 1 or least:
        return
    batch = job.train.batch_size
    less = next((n for n in range(rows // 2, 0, -1) if batch % n == 0), 0)
    change = f"micro_batch_size={less}" if less else "gradient_checkpointing=true"
    raise OutOfMemory(
        f"step {state.step + 1}, process {job.runtime.rank} of {job.runtime.world}: the memory ran "
        f"out with {rows} rows at once. With several processes they are not halved by themselves: "
        f"the others wait for this one in the middle of a sum. Resume with --set {change}."
    ) from None


def rows_at_once(job: Job, state: State) -> int:
    """Rows of a micro-batch of one process."""
    if job.exact:
        return 1
    share = job.train.batch_size // job.runtime.world
    return min(state.micro_batch_size or job.train.micro_batch_size or share, share)


def smaller(job: Job, state: State, clock: Clock) -> State:
    """Half as many rows at once; at one row gradient checkpointing. It is told and logged.

    Raises:
        OutOfMemory: there is nothing left to make smaller.
    """
    rows = rows_at_once(job, state)
    if rows > 1:
        state = dataclasses.replace(state, micro_batch_size=rows // 2)
        what = (
            f"with {rows} rows at once; it goes on with {rows // 2}. The batch and its order stay; "
            "the loss is the same but for rounding. Dropout is drawn for each micro-batch, so what "
            "it drops is that of a run with micro_batch_size"
        )
        what = f"{what} {rows // 2}."
    elif not (job.train.gradient_checkpointing or state.gradient_checkpointing):
        job.checkpoint_blocks()
        state = dataclasses.replace(state, gradient_checkpointing=True)
        what = "with one row; it goes on with gradient checkpointing, which changes no value."
    else:
        raise OutOfMemory(
            f"step {state.step + 1}: the memory does not hold one row with gradient checkpointing. "
            "Lower --max-length or --context-length, take a smaller model, or fine-tune with "
            "--method lora or qlora."
        )
    text = f"step {state.step + 1}: the memory ran out {what}"
    sizes = {"micro_batch_size": rows_at_once(job, state)}
    job.log.write("warning", **common(job, state, clock), id="out_of_memory", text=text, **sizes)
    job.screen.warning(text)
    return state


def fitting_measure(
    job: Job, state: State, clock: Clock
) -> tuple[State, tuple[float, float | None]]:
    """Training and validation loss; where the memory runs out, again with half the rows.

    Raises:
        OutOfMemory: even one row does not fit.
    """
    while True:
        rows = state.evaluation_rows or job.evaluation_rows
        try:
            return state, job.measure(state.step, rows)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            if rows > 1:
                refuse_with_others(job, state, rows)
        job.runtime.free_memory()
        if rows == 1:
            raise OutOfMemory(
                f"step {state.step}: the memory does not hold an evaluation of one row. Lower "
                "--max-length or --context-length, or take a smaller model."
            )
        state = dataclasses.replace(state, evaluation_rows=rows // 2)
        text = (
            f"step {state.step}: the memory ran out in an evaluation of {rows} rows at once; it is "
            f"made again with {rows // 2}. Its loss is the same but for rounding."
        )
        job.log.write("warning", **common(job, state, clock), id="out_of_memory", text=text)
        job.screen.warning(text)


def evaluate(job: Job, state: State, clock: Clock) -> State:
    """Losses, a sample, the exam; keep the model where the validation loss is the lowest yet."""
    if job.average is not None:
        job.average.swap()
    state, (train_loss, val_loss) = fitting_measure(job, state, clock)
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
    except OSError as error:  # StorageError, and a disk that fails where nothing was written
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
