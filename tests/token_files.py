"""Token files written by hand: ids, loss mask, ends of documents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yunque.data.batches import TokenFile, open_split


def write_split(
    folder: Path,
    ids: Iterable[int],
    mask: Iterable[int] | npt.NDArray[np.int64] | None,
    ends: Iterable[int] | npt.NDArray[np.int64] | None,
    name: str = "train",
) -> TokenFile:
    """A split as `yunque prepare` leaves it, opened."""
    tokens = np.array(list(ids), dtype="<u2")
    tokens.tofile(folder / f"{name}.bin")
    if mask is not None:
        np.array(list(mask), dtype=np.uint8).tofile(folder / f"{name}.mask.bin")
    if ends is not None:
        np.array(list(ends), dtype="<u8").tofile(folder / f"{name}.documents.bin")
    return open_split(folder, name, "uint16", len(tokens))
