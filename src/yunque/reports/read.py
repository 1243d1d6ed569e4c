"""Logs, our own and other tools' → one `Log` value. A new format is one more line in READERS."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from yunque import runlog
from yunque.errors import InputError
from yunque.files import storage_error

RECIPE_LIMIT_BYTES = 200_000
LIMIT = 1e100
"""No figure of a run is that large (float32 ends at 3.4e38): from here on it is infinite."""


@dataclass(frozen=True)
class Record:
    """One row of a log under our names (`train_loss`, `val_loss`, `grad_norm` …)."""

    row: int
    """Where it stands, from 1: the line of a run log, the entry of a Hugging Face history."""
    step: int
    epoch: float | None
    tokens_seen: int | None
    seconds: float | None
    values: Mapping[str, Any]

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
    total_steps: int | None = None
    """Updates done as the tool itself says; None: the highest step of the rows."""
    examples: int | None = None
    runtime_seconds: float | None = None
    mean_train_loss: float | None = None
    """Mean over all updates, as the tool itself says."""
    kept: str = ""
    """Where the best model was kept (`best/`), empty where the log shows no such place."""
    other_eval_sets: tuple[str, ...] = ()
    """Evaluation losses under names of their own, not read as the validation loss."""
    recipe: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Log:
    """Read a run folder, a log file, or another tool's folder.

    Returns:
        The log; `format` is "unknown" where the file is no training log that we know.

    Raises:
        InputError: nothing there, or a run log with a broken line.
        StorageError: the file cannot be read.
    """
    file = log_file(path)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file or folder; expected a run folder or a log."
        ) from None
    except OSError as error:
        raise storage_error(error, file, "read") from None
    sha256 = hashlib.sha256(content).hexdigest()
    for reader in READERS.values():
        log = reader(file, content, sha256)
        if log is not None:
            return log
    return Log("unknown", str(file), 0, sha256)


def log_file(path: Path) -> Path:
    """The log of a folder: our own, Hugging Face's, or that of its latest checkpoint."""
    if not path.is_dir():
        return path
    for name in (runlog.NAME, "trainer_state.json"):
        if (path / name).is_file():
            return path / name
    saved = path.glob("checkpoint-*/trainer_state.json")
    numbered = [p for p in saved if p.parent.name.removeprefix("checkpoint-").isdigit()]
    if not numbered:
        raise InputError(f"{path}: no {runlog.NAME} and no trainer_state.json in this folder.")
    return max(numbered, key=lambda p: int(p.parent.name.removeprefix("checkpoint-")))


def read_run_log(file: Path, content: bytes, sha256: str) -> Log | None:
    """Our own log.jsonl, and what stands beside it in the run folder; None if it is not one."""
    try:
        event = json.loads(content.partition(b"\n")[0])["event"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    if event not in runlog.EVENTS:
        return None
    groups: dict[str, list[Record]] = {event: [] for event in runlog.EVENTS}
    # A run that goes on may have written more meanwhile: keep to the lines that were hashed.
    for row in islice(runlog.read(file), content.count(b"\n")):
        values = row.values
        marks = values.get("non_finite")
        if isinstance(marks, Mapping):
            values = {**values, **{str(k): float(str(v)) for k, v in marks.items() if is_float(v)}}
        if row.event in groups:
            groups[row.event].append(record(row.line, values))
    first, last = groups["start"][:1], groups["stop"][-1:]
    recipe, best = file.parent / "recipe.toml", file.parent / "best"
    settings = dict(first[0].values) if first else {}
    examples = whole(settings.get("examples"))
    return Log(
        "yunque",
        str(file),
        content.count(b"\n"),
        sha256,
        start=first[0] if first else None,
        stop=last[0] if last else None,
        examples=examples,
        kept="best/" if best.is_dir() else "",
        recipe=(
            recipe.read_bytes()[:RECIPE_LIMIT_BYTES].decode("utf-8", "replace")
            if recipe.is_file()
            else ""
        ),
        settings=settings,
        steps=by_step(groups["step"]),
        evals=by_step(groups["eval"]),
        samples=by_step(groups["sample"]),
        exams=by_step(groups["exam"]),
        checkpoints=by_step(groups["checkpoint"]),
        warnings=by_step(groups["warning"]),
    )


HUGGING_FACE_NAMES = {"loss": "train_loss", "eval_loss": "val_loss"}


def read_trainer_state(file: Path, content: bytes, sha256: str) -> Log | None:
    """`trainer_state.json` of Hugging Face's Trainer (its JSON may hold NaN and Infinity)."""
    if b'"log_history"' not in content:
        return None
    try:
        state = json.loads(content)
        history = state["log_history"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(history, list):
        return None
    steps: list[Record] = []
    evals: list[Record] = []
    others: set[str] = set()
    summary = record(0, {})
    for number, entry in enumerate(history, 1):
        if not isinstance(entry, dict):
            continue
        row = record(number, {str(HUGGING_FACE_NAMES.get(k, k)): v for k, v in entry.items()})
        if "train_runtime" in entry:  # The summary: its train_loss is the mean over the run.
            summary = row
        elif any(k.startswith("eval_") for k in entry):
            evals.append(row)
            others |= {k for k in entry if k.endswith("_loss") and k != "eval_loss"}
        elif "loss" in entry:
            steps.append(row)
    updates = whole(state.get("global_step"))
    batch = state.get("train_batch_size")
    best = state.get("best_model_checkpoint")
    asked = {k: state[k] for k in ("max_steps", "num_train_epochs", "logging_steps") if k in state}
    return Log(
        "trainer_state",
        str(file),
        len(history),
        sha256,
        steps=by_step(steps),
        evals=by_step(evals),
        total_steps=updates,
        examples=examples_of(steps, summary, updates) if batch == 1 else None,
        runtime_seconds=summary.number("train_runtime"),
        mean_train_loss=summary.number("train_loss"),
        kept=Path(best).name + "/" if isinstance(best, str) and best else "",
        other_eval_sets=tuple(sorted(others)),
        settings=asked,
    )


def examples_of(steps: list[Record], summary: Record, updates: int | None) -> int | None:
    """Training examples, where the log proves them.

    The epoch of a row is (examples shown) / examples, so that with one example a micro-batch its
    reduced denominator divides their number. The rate of the summary must agree with it.
    """
    denominators = []
    for row in steps[:100]:
        if row.epoch is None:
            return None
        share = Fraction(row.epoch).limit_denominator(1_000_000)
        if abs(float(share) - row.epoch) > 1e-12 * max(1.0, row.epoch):
            return None
        denominators.append(share.denominator)
    rate, seconds = summary.number("train_samples_per_second"), summary.number("train_runtime")
    if not denominators or not rate or not seconds or updates is None:
        return None
    examples = math.lcm(*denominators)
    first = steps[0]
    shown = round((first.epoch or 0) * examples) / max(1, first.step) * updates
    slack = 0.0006 * seconds  # The rate is rounded to three places.
    return examples if abs(shown - rate * seconds) <= slack else None


def record(row: int, values: Mapping[str, Any]) -> Record:
    """A row under its common keys; a step that is no number, or below 0, counts as 0."""
    bare = Record(row, 0, None, None, None, values)
    step, tokens = bare.number("step"), bare.number("tokens_seen")
    common = ("step", "epoch", "tokens_seen", "seconds", "non_finite")
    return Record(
        row,
        max(0, int(step or 0)),
        bare.number("epoch"),
        None if tokens is None else int(tokens),
        bare.number("seconds"),
        {key: value for key, value in values.items() if key not in common},
    )


def by_step(rows: list[Record]) -> tuple[Record, ...]:
    """The rows in the order of their steps; equal steps keep the order of the log."""
    return tuple(sorted(rows, key=lambda row: row.step))


def whole(value: object) -> int | None:
    """A count as it should be, None for anything else."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def is_float(text: object) -> bool:
    """Whether `text` reads as a number, NaN and infinity included."""
    try:
        float(str(text))
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path, bytes, str], Log | None]] = {
    "yunque": read_run_log,
    "trainer_state": read_trainer_state,
}
"""Format → its reader (file, its bytes, their SHA-256), which returns None for a foreign file."""
