"""A log as a value: rows under our names, whatever tool wrote them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from yunque.reports.ledger import Ledger

LIMIT = 1e100
"""No figure of a run is that large (float32 ends at 3.4e38): from here on it is infinite."""

NAMELESS = ("log.jsonl", "trainer_state.json", "trainer_log.jsonl", "metrics.csv")
"""File names that every run of a tool has."""


@dataclass(frozen=True)
class Record:
    """One row of a log under our names (`train_loss`, `val_loss`, `grad_norm` …)."""

    row: int
    """Where it stands, from 1: the line of a file, the entry of a history, the event of a file."""
    step: int
    epoch: float | None
    tokens_seen: int | None
    seconds: float | None
    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    """Our name → the name in the log, where the two differ."""

    def number(self, key: str) -> float | None:
        """The value as a number, None where it is missing, no number, NaN or infinite."""
        value = self.values.get(key)
        if type(value) is int and abs(value) < LIMIT:
            return float(value)
        return value if type(value) is float and abs(value) < LIMIT else None

    @property
    def non_finite(self) -> tuple[str, ...]:
        """The keys whose value is NaN or infinite."""
        items = self.values.items()
        return tuple(k for k, v in items if isinstance(v, float) and not abs(v) < LIMIT)


@dataclass(frozen=True)
class Jump:
    """Two rows that follow each other in the file while the step goes back."""

    before: Record
    after: Record


@dataclass(frozen=True)
class Order:
    """How the rows stood in the file, before they were put in the order of their steps."""

    resumed: tuple[Jump, ...] = ()
    """The run went back to an earlier step and on from there: the rows it repeated are left out."""
    restarted: tuple[Jump, ...] = ()
    """The run began anew: only one of the runs is read."""
    unsorted: int = 0
    """Rows whose step is below that of the row before, where they are too many for resumes."""
    repeated: int = 0
    """Rows left out because another row has their step."""


@dataclass(frozen=True)
class Log:
    """A training run as its log tells it. Rows stand in the order of their steps."""

    format: str
    path: str
    rows: int
    sha256: str
    steps: tuple[Record, ...] = ()
    evals: tuple[Record, ...] = ()
    samples: tuple[Record, ...] = ()
    exams: tuple[Record, ...] = ()
    checkpoints: tuple[Record, ...] = ()
    warnings: tuple[Record, ...] = ()
    start: Record | None = None
    stop: Record | None = None
    summary: Record | None = None
    """The row that sums the run up (Hugging Face's train_runtime, train_loss …)."""
    total_steps: int | None = None
    """Updates done as the tool itself says; None: the highest step of the rows."""
    asked_steps: int | None = None
    """Updates that the run was meant to do."""
    asked_epochs: float | None = None
    epochs: float | None = None
    """Passes over the data as the tool itself says; None: the highest epoch of the rows."""
    examples: int | None = None
    runtime_seconds: float | None = None
    mean_train_loss: float | None = None
    """Mean over all updates, as the tool itself says."""
    kept: str = ""
    """Where the model with the lowest validation loss was kept (`best/`), empty where the log shows
    no such place."""
    kept_step: int | None = None
    """Step of the model in `best/`, which may have been chosen by the exam; None: not known."""
    by_exam: bool = False
    """Whether the model in `best/` was chosen by the exam, not by the loss."""
    ledger: Ledger | None = None
    """Where every token went, as RUN/ledger.json tells it."""
    ledger_fault: str = ""
    """Where ledger.json is damaged or of another kind, empty where it is absent or whole."""
    eval_set: str = ""
    """The name of the held-out set that `evals` is about, empty where it has none of its own."""
    other_evals: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    """Further held-out sets: their losses as `val_loss`."""
    order: Order = field(default_factory=Order)
    other_runs: tuple[str, ...] = ()
    """Further runs in the same file, which this report does not read."""
    counted: str = ""
    """What `step` counts where the log has no updates: epochs, examples, rows; empty: updates."""
    reckoned: bool = False
    """Whether the steps were worked out from the epochs and the summary's steps per second."""
    perplexities: bool = False
    """Whether the file holds perplexities: the losses are their natural logarithms."""
    columns: tuple[str, ...] = ()
    """What the columns of a file that is no training log are called."""
    first_line: str = ""
    """How such a file begins."""
    unread: int = 0
    """Lines of a table that are no rows of it: cut, or with cells that have no name."""
    other_files: tuple[str, ...] = ()
    """Further event files beside this one, which this report does not read."""
    objective: str = "prediction"
    """prediction; preference (DPO and its kin); reinforcement (PPO, GRPO …)."""
    recipe: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a reader would call the run: its folder, where the file's name says nothing."""
        path = Path(self.path)
        return (
            path.parent.name if path.name in NAMELESS else path.stem.removesuffix(".trainer_state")
        )

    @property
    def has_losses(self) -> bool:
        """Whether a row holds a loss, finite or not, or a summary its mean."""
        held = any("train_loss" in r.values for r in self.steps)
        return held or any("val_loss" in r.values for r in self.evals) or self.summary is not None


COMMON = ("step", "epoch", "tokens_seen", "seconds", "non_finite")


def record(row: int, values: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Record:
    """A row under its common keys; a step that is no number, or below 0, counts as 0."""
    bare = Record(row, 0, None, None, None, values)
    step, tokens = bare.number("step"), bare.number("tokens_seen")
    return Record(
        row,
        max(0, int(step or 0)),
        bare.number("epoch"),
        None if tokens is None else int(tokens),
        bare.number("seconds"),
        {key: value for key, value in values.items() if key not in COMMON},
        names or {},
    )


def by_step(rows: Iterable[Record]) -> tuple[Record, ...]:
    """The rows in the order of their steps; equal steps keep the order of the log."""
    return tuple(sorted(rows, key=lambda row: row.step))


def whole(value: object) -> int | None:
    """A count as it should be, None for anything else."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def figure(value: object) -> object:
    """A cell of a foreign log: a number where it reads as one, None where it is empty."""
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    text = value.strip().strip("'\"")
    if text.lower() in ("", "none", "null", "n/a", "-"):
        return None
    try:
        number = float(text.replace(",", "") if text.count(",") > 1 else text)
    except ValueError:
        return value
    if math.isfinite(number) and number.is_integer() and text.lstrip("+-").isdigit():
        return int(text)
    return number


def ordered(rows: list[Record]) -> tuple[tuple[Record, ...], Order]:
    """Rows of the file, in its order → one run in the order of its steps, and what was amiss.

    Going back to the first step or before it is a new run (the last one counts, or the longest
    where the last has fewer than 8 rows). Going back to a later one is a resume: what it repeats
    counts instead of what stood there. Many backward steps are no resumes but disorder.
    """
    back = [(a, b) for a, b in pairwise(rows) if b.step < a.step]
    if len(back) > max(3, len(rows) // 20):
        last = {row.step: row for row in rows}
        kept = by_step(last.values())
        return kept, Order(unsorted=len(back), repeated=len(rows) - len(kept))
    starts, jumps = [0], []
    for i in range(1, len(rows)):
        if rows[i].step < rows[i - 1].step and rows[i].step <= rows[starts[-1]].step:
            starts.append(i)
            jumps.append(Jump(rows[i - 1], rows[i]))
    runs = [rows[a:b] for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)]
    chosen = runs[-1] if len(runs[-1]) >= 8 else max(runs, key=len)
    resumed, kept_rows, repeated = [], list[Record](), 0
    for row in chosen:
        if kept_rows and row.step <= kept_rows[-1].step:
            if row.step < kept_rows[-1].step:
                resumed.append(Jump(kept_rows[-1], row))
            while kept_rows and kept_rows[-1].step >= row.step:
                kept_rows.pop()
                repeated += 1
        kept_rows.append(row)
    return tuple(kept_rows), Order(tuple(resumed), tuple(jumps), 0, repeated)


def in_order(log: Log) -> Log:
    """The log with its rows in the order of their steps; `order` says how they stood.

    Judged by the rows of each kind alone: a training loss and a validation loss may rightly stand
    at the same step, and a tool may write them with a lag. Which of several runs is read is decided
    once, for all kinds.
    """
    groups, held = kinds(log.steps), kinds(log.evals)
    first = groups or held
    main = max(
        first,
        key=lambda k: (bool({"train_loss", "val_loss"} & k), len(first[k])),
        default=frozenset[str](),
    )
    kept, order = ordered(first.get(main, []))

    def rest(found: dict[frozenset[str], list[Record]]) -> tuple[Record, ...]:
        parts = [
            kept if found is first and keys == main else ordered(same_run(rows, kept, order))[0]
            for keys, rows in found.items()
        ]
        return by_step(row for part in parts for row in part)

    others = {
        name: ordered(same_run(rows, kept, order))[0] for name, rows in log.other_evals.items()
    }
    found = replace(log, steps=rest(groups), evals=rest(held), other_evals=others, order=order)
    return found if is_clock(kept) else without_times(found)


def is_clock(rows: Iterable[Record]) -> bool:
    """Whether the seconds of the rows go on from row to row; else they are those of single rows."""
    times = [row.seconds for row in rows if row.seconds is not None]
    return sum(b < a for a, b in pairwise(times)) <= max(3, len(times) // 20)


def without_times(log: Log) -> Log:
    """The log without the seconds of its rows."""

    def bare(rows: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(replace(row, seconds=None) for row in rows)

    others = {name: bare(rows) for name, rows in log.other_evals.items()}
    return replace(log, steps=bare(log.steps), evals=bare(log.evals), other_evals=others)


def kinds(rows: Iterable[Record]) -> dict[frozenset[str], list[Record]]:
    """The rows by the names that they hold."""
    found: dict[frozenset[str], list[Record]] = {}
    for row in rows:
        found.setdefault(frozenset(row.values), []).append(row)
    return found


def same_run(rows: Iterable[Record], kept: Iterable[Record], order: Order) -> list[Record]:
    """The rows of another kind that belong to the run that was kept, by their place in the file.

    Between the last row of one run and the first of the next, those up to the step at which the
    next one begins are its own: an evaluation before the first update.
    """
    place = min((row.row for row in kept), default=0)
    begun = [jump for jump in order.restarted if jump.after.row <= place]
    ended = [jump for jump in order.restarted if jump.after.row > place]

    def after(row: Record, jump: Jump) -> bool:
        between = row.row > jump.before.row and row.step <= jump.after.step
        return between or row.row >= jump.after.row

    return [
        row
        for row in rows
        if all(after(row, jump) for jump in begun[-1:])
        and not any(after(row, jump) for jump in ended[:1])
    ]
