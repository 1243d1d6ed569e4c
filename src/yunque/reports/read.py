"""Logs, our own and other tools' → one `Log` value. A new format is one more line in READERS."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from yunque import runlog
from yunque.errors import InputError
from yunque.files import storage_error
from yunque.reports.huggingface import read_results, read_trainer_state
from yunque.reports.ledger import read_ledger
from yunque.reports.log import Log, Record, by_step, in_order, record, whole
from yunque.reports.tables import columns_of, read_csv, read_json, read_json_lines, text_of
from yunque.reports.tensorboard import read_events
from yunque.reports.textlog import read_text

__all__ = ["Log", "Record", "read"]

RECIPE_LIMIT_BYTES = 200_000
COLUMNS = ("step", "train_loss", "val_loss", "epoch", "learning_rate", "grad_norm")
"""The columns of a table that a user may name."""


def read(path: Path, columns: Mapping[str, str] | None = None) -> Log:
    """Read a run folder, a log file, or another tool's folder.

    Args:
        path: a log, or a folder that holds one.
        columns: our name (one of COLUMNS) → the column of a table that holds it.

    Returns:
        The log; `format` is "unknown" where the file is no training log that we know.

    Raises:
        InputError: nothing there, a run log with a broken line, or a column that is not there.
        MissingPackageError: the package that reads this format is absent.
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
    for wrong in set(columns or ()) - set(COLUMNS):
        raise InputError(f"columns: {wrong!r} is none of {', '.join(COLUMNS)}.")
    for reader in () if columns else READERS.values():
        log = reader(file, content, sha256)
        if log is not None:
            return log if log.format == "yunque" else in_order(log)
    for table in (read_json_lines, read_json, read_csv) if columns else ():
        log = table(file, content, sha256, columns)
        if log is not None:
            return in_order(log)
    if columns:
        named = ", ".join(f"{ours}={theirs}" for ours, theirs in columns.items())
        raise InputError(f"{path}: no table with the columns {named}.")
    first = text_of(content[:4000]).strip().partition("\n")[0] if b"\0" not in content else ""
    return Log("unknown", str(file), 0, sha256, columns=columns_of(content), first_line=first[:80])


def log_file(path: Path) -> Path:
    """The log of a folder: our own, another tool's, or that of its latest checkpoint."""
    if not path.is_dir():
        return path
    for name in (runlog.NAME, "trainer_state.json", "trainer_log.jsonl", "metrics.csv"):
        if (path / name).is_file():
            return path / name
    saved = path.glob("checkpoint-*/trainer_state.json")
    numbered = [p for p in saved if p.parent.name.removeprefix("checkpoint-").isdigit()]
    if numbered:
        return max(numbered, key=lambda p: int(p.parent.name.removeprefix("checkpoint-")))
    events = sorted(path.glob("events.out.tfevents.*"), key=lambda p: (p.stat().st_size, p.name))
    results = path / "all_results.json"
    if events or results.is_file():
        return events[-1] if events else results
    raise InputError(f"{path}: no {runlog.NAME} and no trainer_state.json in this folder.")


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
    recipe, best = text_beside(file, "recipe.toml"), file.parent / "best"
    by_exam = watches_exam(recipe)
    chosen = chosen_step(groups["exam"] if by_exam else groups["eval"], by_exam)
    kept_step = chosen if best.is_dir() else None
    # By the exam another model may be chosen than the one with the lowest validation loss.
    lowest = not by_exam if kept_step is None else kept_step == chosen_step(groups["eval"], False)
    ledger, ledger_fault = read_ledger(file.parent / "ledger.json")
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
        kept="best/" if best.is_dir() and lowest else "",
        kept_step=kept_step,
        by_exam=by_exam,
        ledger=ledger,
        ledger_fault=ledger_fault,
        recipe=recipe,
        settings=settings,
        steps=by_step(groups["step"]),
        evals=by_step(groups["eval"]),
        samples=by_step(groups["sample"]),
        exams=by_step(groups["exam"]),
        checkpoints=by_step(groups["checkpoint"]),
        warnings=by_step(groups["warning"]),
    )


def text_beside(file: Path, name: str) -> str:
    """The beginning of a text file beside the log, empty where there is none."""
    path = file.parent / name
    if not path.is_file():
        return ""
    return path.read_bytes()[:RECIPE_LIMIT_BYTES].decode("utf-8", "replace")


def watches_exam(recipe: str) -> bool:
    """Whether the run chose its best model by the exam, not by the loss."""
    try:
        train = tomllib.loads(recipe).get("train")
    except ValueError:
        return False
    return isinstance(train, Mapping) and train.get("watch") == "exam"


def chosen_step(rows: list[Record], by_exam: bool) -> int | None:
    """The step whose model a run keeps, of the last row of each step."""
    return runlog.chosen_step(({**row.values, "step": row.step} for row in by_step(rows)), by_exam)


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
    "trainer_results": read_results,
    "tensorboard": read_events,
    "jsonl": read_json_lines,
    "json": read_json,
    "csv": read_csv,
    "text": read_text,
}
"""Format → its reader (file, its bytes, their SHA-256), which returns None for a foreign file."""
