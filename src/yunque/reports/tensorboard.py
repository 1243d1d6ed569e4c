"""TensorBoard event files, through the `tensorboard` package (an extra)."""

from __future__ import annotations

from pathlib import Path

from yunque.errors import InputError, MissingPackageError
from yunque.reports.log import Log
from yunque.reports.rows import Rows, log_of
from yunque.reports.tables import counted_epochs, held


def read_events(file: Path, content: bytes, sha256: str) -> Log | None:
    """The scalars of one event file; a row is a scalar, counted in the order of the file."""
    # A TFRecord begins with the length of its first record, which names the version of the file.
    if b"brain.Event:" not in content[:64]:
        return None
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ImportError:
        raise MissingPackageError(
            f"{file}: TensorBoard event files are read with the tensorboard package, which is not "
            "installed. Install it: pip install 'yunque[tensorboard]'"
        ) from None
    rows: Rows = []
    count = 0
    try:
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                count += 1
                array = tensor_util.make_ndarray(value.tensor) if value.HasField("tensor") else None
                if array is None or array.ndim or array.dtype.kind not in "fiu":
                    continue
                cells = {value.tag: array.item(), "step": event.step, "wall_time": event.wall_time}
                rows.append((count, cells))
    except Exception as error:  # The package raises what its record reader finds.
        raise InputError(f"{file}: the event file cannot be read: {error}") from None
    beside = sorted(p.name for p in file.parent.glob("events.out.tfevents.*") if p != file)
    log = log_of("tensorboard", str(file), count, sha256, rows, other_files=tuple(beside))
    return counted_epochs(log) if held(log) else None
