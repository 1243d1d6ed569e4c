"""Is what a run's log says true? Some updates are made again and held against it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from yunque import files, runtime
from yunque.assemble.environment import environment
from yunque.assemble.origins import trained
from yunque.assemble.resumption import surroundings
from yunque.assemble.runs import Learner, Run
from yunque.assemble.sources import located
from yunque.config import Recipe, merge, read_tree, validate
from yunque.data.prepare import is_prepared
from yunque.errors import InputError
from yunque.runlog import NAME, read
from yunque.screen import Screen, SilentScreen
from yunque.train import checkpoint
from yunque.train.loop import State, remembered
from yunque.train.optim import learning_rate_multiplier
from yunque.train.step import update

COMPARED = ("train_loss", "learning_rate", "grad_norm", "tokens_seen")
MEASURED = ("train_loss", "val_loss")
"""Of an evaluation; samples, exams and the general text are not made again."""


@dataclass(frozen=True)
class Difference:
    """One value of the log that came out otherwise."""

    step: int
    name: str
    """A key of the log's row, or the name of a tensor of the next checkpoint."""
    logged: float | None
    replayed: float | None


@dataclass(frozen=True)
class Replay:
    """What came of it."""

    run: Path
    begun_at: int
    """Step of the checkpoint; 0: the weights that the seed gives."""
    steps: int
    differences: tuple[Difference, ...]
    tensors: int
    """Tensors of a checkpoint at the end of the replay that were compared too; 0: none stood."""
    updates: int
    """Updates in the log, those that were not made again included."""
    measured: tuple[int, ...]
    """Steps whose evaluation was made again."""
    evaluations: int
    """Evaluations in the log."""
    changed: tuple[str, ...]
    """What is another than when the run was made (versions, threads, processor): with these, equal
    bytes are not promised."""

    @property
    def confirmed(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {**asdict(self), "run": str(self.run), "confirmed": self.confirmed}


def replay(run_folder: str | Path, steps: int = 20, screen: Screen | None = None) -> Replay:
    """Make `steps` updates again from a checkpoint and hold them against the log, bit for bit.

    Begins at the newest checkpoint that has so many logged updates behind it, or at the beginning;
    where nothing has so many, where most follow. The evaluations on the way are made again too;
    where there is none, that of the newest checkpoint which has one. Writes nothing into the run.

    Raises:
        InputError: no run there, no data, several processes, or nothing that could be replayed.
    """
    folder = Path(run_folder)
    path = folder / "recipe.toml"
    if not path.is_file():
        raise InputError(f"{folder}: no run there (recipe.toml is missing).")
    if steps < 1:
        raise InputError(f"steps is {steps}: 1 or more.")
    recipe = merge(Recipe(), read_tree(path), str(path))
    validate(recipe)
    tokens = located(recipe, folder)[1]
    if not is_prepared(tokens):
        raise InputError(f"{tokens}: the prepared data of the run are gone; nothing to replay.")
    where = runtime.start(recipe.machine)
    if where.world > 1:
        raise InputError("--verify replays with one process: start it without a launcher.")
    rows = list(read(folder / NAME))
    logged = {row.values["step"]: row.values for row in rows if row.event == "step"}
    looked = {row.values["step"]: row.values for row in rows if row.event == "eval"}
    last = max(logged, default=0)
    turns = turning_points(folder)

    def reach(begin: int) -> int:
        """The last update that follows from the checkpoint alone."""
        return min([last, *(step for step, first in turns if begin < first)])

    sound = [
        step
        for step in checkpoint.all_steps(folder)
        if checkpoint.is_valid(checkpoint.path_of(folder, step))
    ]
    starts = [0, *sound]
    enough = [step for step in starts if step + steps <= reach(step)]
    begin = max(enough) if enough else max(starts, key=lambda step: reach(step) - step)
    count = min(steps, reach(begin) - begin)
    if count < 1:
        raise InputError(f"{folder / NAME}: no update to replay.")
    show = screen or SilentScreen()
    run = Run(recipe, folder, where, show, "en", resuming=True)
    made = run.learner()
    state, micro = State(run.stopping), recipe.train.micro_batch_size or recipe.train.batch_size
    if begin:
        run.changed(checkpoint.path_of(folder, begin))
        state = run.restore(checkpoint.path_of(folder, begin), made)[0]
        micro = state.micro_batch_size or micro
        made.model.checkpointing |= state.gradient_checkpointing
    differences: list[Difference] = []
    measured: list[int] = []

    def look(step: int) -> None:
        """Hold the evaluation of a step against the log, where it has one."""
        if step not in looked:
            return
        measured.append(step)
        for name, new in zip(MEASURED, losses(run, made, state, step), strict=True):
            old = looked[step].get(name)
            if old != new:
                differences.append(Difference(step, name, old, new))

    look(begin)
    for step in range(begin, begin + count):
        row, state = repeated(run, made, step, micro, state)
        # An update without a loss leaves no row of its own; the next one shows whether it was so.
        for name in COMPARED if step + 1 in logged else ():
            old, new = logged[step + 1].get(name), row[name]
            if old != new:
                differences.append(Difference(step + 1, name, old, new))
        look(step + 1)
        show.step({**row, "step": step + 1, "steps": begin + count})
    end = checkpoint.path_of(folder, begin + count)
    compared = 0
    rewound = any(step == begin + count == first for step, first in turns)
    if checkpoint.is_valid(end) and not rewound:
        kept = checkpoint.load(end)[0]
        for name, parameter in trained(made.model).items():
            compared += 1
            apart = (parameter.detach().cpu() - kept[name]).abs().max().item()
            if not torch.equal(parameter.detach().cpu(), kept[name]):
                differences.append(Difference(begin + count, name, 0.0, apart))
    if not measured and (others := [step for step in sound if step in looked]):
        state = run.restore(checkpoint.path_of(folder, others[-1]), made)[0]
        look(others[-1])
    path = folder / "environment.json"
    first = files.read_json(path) if path.is_file() else {}
    changed = surroundings(first, environment(where, run.recipe)) if first else ()
    return Replay(
        folder,
        begin,
        count,
        tuple(differences),
        compared,
        len(logged),
        tuple(measured),
        len(looked),
        changed,
    )


def losses(run: Run, made: Learner, state: State, step: int) -> tuple[float | None, float | None]:
    """Training and validation loss of the model as it is, as an evaluation of the loop has them."""
    if made.average is not None:
        made.average.swap()
    found = run.measure(made.model, step, state.evaluation_rows or run.evaluation_rows)
    if made.average is not None:
        made.average.swap()
    train, val = (None if loss is None or loss - loss else loss for loss in found)
    return train, val


def turning_points(run: Path) -> list[tuple[int, int]]:
    """Where a run did what its checkpoints do not foretell, as (last update before it, first step
    whose checkpoint knows of it): it went back to a checkpoint, or went on with fewer rows at once.
    """
    found = []
    for row in read(run / NAME):
        if row.event == "warning" and row.values.get("id") == "rewound":
            found.append((row.values["step"], row.values["step"]))
        elif row.event == "warning" and row.values.get("id") == "out_of_memory":
            found.append((row.values["step"], row.values["step"] + 1))
    return found


def repeated(
    run: Run, made: Learner, step: int, micro: int, state: State
) -> tuple[dict[str, float | None], State]:
    """Make update `step` (0-based) as the loop does; returns its row and the state after it."""
    recipe = run.recipe
    rate = made.optimizers.set_rate(learning_rate_multiplier(step, run.steps, recipe.optim))
    done = update(
        step,
        run.batches.batch,
        made.spread,
        made.model.head,
        made.optimizers,
        made.scaler,
        run.runtime,
        batch_size=recipe.train.batch_size,
        micro_batch_size=micro,
        clip_norm=recipe.optim.clip_norm,
        seed=recipe.machine.seed,
        exact=recipe.machine.exactness == "exact",
        in_backward=recipe.train.update_in_backward,
        limits=state.recent.limits(recipe.optim.spike_deviations),
    )
    tokens_seen = state.tokens_seen + done.tokens
    recent = remembered(recipe.optim, state.recent, done)
    if made.average is not None:
        made.average.update(step + 1)
    row = {
        "train_loss": done.loss,
        "learning_rate": rate,
        "grad_norm": done.grad_norm,
        "tokens_seen": tokens_seen,
    }
    finite = {name: value if value - value == 0 else None for name, value in row.items()}
    return finite, replace(state, tokens_seen=tokens_seen, recent=recent)
