"""The run log, `log.jsonl`: one JSON object a line, appended and read. Standard library only.

| event | keys besides step, epoch, tokens_seen, seconds |
|---|---|
| start | format, run, parameters, settings that a reader of the log needs; ngram_1 … ngram_5: \
losses of n-gram models on the validation tokens, counted on ngram_tokens training tokens |
| step | train_loss learning_rate grad_norm tokens_per_second memory_bytes |
| eval | train_loss val_loss (null where there is no validation set); general_loss of a tuned base |
| sample | prompt text |
| exam | right total kinds; lost gained p_value verdict: against the exam of step 0 |
| checkpoint | path |
| warning | id text |
| stop | reason; loss_spike_step, loss_spike_read … and the same of gradient_spike: what the \
update of that spike had read and the losses on it at the end; where samples were written, how \
much of them stands in the training data: \
copied_tokens of copied_of, copied_samples of samples, copied_longest …; the same of held-out text |

`step` is the number of optimizer updates done; `train_loss` of a step row is the loss of the
batch of that update, taken before the update. Losses are nats per token. `seconds` is monotonic
since the run began and goes on counting where a resumed run left off.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from yunque.errors import InputError, StorageError
from yunque.files import (
    append_line,
    open_to_append,
    storage_error,
    sync_folder,
    truncate_file,
)

EVENTS = ("start", "step", "eval", "sample", "exam", "checkpoint", "warning", "stop")
FORMAT = "yunque-log-1"
NAME = "log.jsonl"


class RunLog:
    """Append-only writer; numbers that are not finite are written as null with a `non_finite` key.

    Use as a context manager. `size` is the number of bytes so far: a checkpoint stores it, and
    a resumed run cuts the log back to it.
    """

    def __init__(self, path: Path, size: int | None = None):
        """Open `path` for appending; `size` cuts an existing log back first.

        Raises:
            InputError: the log is shorter than `size`, or missing where `size` is not 0.
            StorageError: it cannot be opened or cut back.
        """
        if size is not None:
            got = path.stat().st_size if path.exists() else 0
            # Cutting "back" to more than there is would fill the gap with NUL bytes.
            if got < size:
                what = f"has {got} bytes" if path.exists() else "is missing"
                raise InputError(
                    f"{path}: the run log {what}, the checkpoint expects at least {size} bytes. "
                    "Put the whole log back, or start a new run with another --out."
                )
            if path.exists():
                truncate_file(path, size)
        self.path = path
        self._handle = open_to_append(path)

    @property
    def size(self) -> int:
        return self._handle.tell()

    def write(self, event: str, **values: Any) -> None:
        """Append one row.

        Raises:
            ValueError: the event is not one of EVENTS (our own fault, not the user's).
            StorageError: the disk is full or broken.
        """
        if event not in EVENTS:
            raise ValueError(f"unknown event {event!r}, expected one of {EVENTS}")
        bad = [k for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)]
        row: dict[str, Any] = {"event": event, **values}
        if bad:
            row["non_finite"] = {key: str(values[key]) for key in bad}
            row.update(dict.fromkeys(bad))
        append_line(self._handle, json.dumps(row, ensure_ascii=False, allow_nan=False))

    def refuse_lost(self) -> None:
        """See that the rows are written where a resume will look for them.

        An open file outlives its name: without this, a run whose folder was removed would write
        its checkpoints into a new folder of that name, without recipe and log.

        Raises:
            StorageError: the log, or the folder that it stands in, is no longer there.
        """
        ours = os.fstat(self._handle.fileno())
        # The log of a process that keeps none is the null device.
        if not stat.S_ISREG(ours.st_mode):
            return
        try:
            lost = not os.path.samestat(ours, os.stat(self.path))
        except FileNotFoundError:
            lost = True
        except OSError as error:
            raise storage_error(error, self.path, "look at") from None
        if lost:
            raise StorageError(
                f"{self.path}: removed, moved or replaced while the run goes on, so that nothing "
                "that is saved here could be resumed. Put the folder back, or start a new run."
            )

    def sync(self) -> None:
        """Force the rows so far to the disk: call before a checkpoint stores `size`.

        Raises:
            StorageError: the disk refused, or the log is no longer there.
        """
        if not stat.S_ISREG(os.fstat(self._handle.fileno()).st_mode):
            return
        self.refuse_lost()
        try:
            self._handle.sync()
            sync_folder(self.path.parent)
        except OSError as error:
            raise storage_error(error, self.path, "write to the disk") from None

    def cut(self, size: int) -> None:
        """Take back the rows behind `size`.

        Raises:
            StorageError: the disk refused.
        """
        try:
            self._handle.truncate(size)
            self._handle.seek(size)
        except OSError as error:
            raise storage_error(error, self.path, "cut back") from None

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Row:
    """One row of a run log and the line it stands on (from 1)."""

    line: int
    event: str
    values: dict[str, Any]


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of a run log; a torn last line (no newline at its end) is left out.

    Raises:
        InputError: a whole line is not a row, with file and line.
    """
    try:
        handle = path.open("rb")
    except OSError:
        raise InputError(f"{path}: no run log there.") from None
    with handle:
        for number, raw in enumerate(handle, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                values = json.loads(raw.decode("utf-8"))
                event = values.pop("event")
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                raise InputError(
                    f"{path}:{number}: not a row of a run log: {raw[:80]!r}. "
                    "Expected one JSON object with an 'event'."
                ) from None
            yield Row(number, event, values)


def chosen_step(rows: Iterable[Mapping[str, Any]], by_exam: bool) -> int | None:
    """The step whose model a run keeps: the first with the lowest loss, or with most answers right.

    The loss is the validation loss, where a row has none the training loss.

    Args:
        rows: the values of the eval rows; by the exam, of the exam rows.
    """
    watched = []
    for values in rows:
        if by_exam:
            right, total = finite(values.get("right")), finite(values.get("total"))
            value = 1.0 - right / total if right is not None and total else None
        else:
            val = values.get("val_loss")
            value = finite(values.get("train_loss") if val is None else val)
        if value is not None:
            watched.append((value, int(values["step"])))
    return min(watched)[1] if watched else None


def finite(value: object) -> float | None:
    """A number that is one and finite."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None  # type: ignore[arg-type]
