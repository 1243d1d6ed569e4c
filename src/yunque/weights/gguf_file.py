"""The GGUF container: metadata and tensors, as the field's `gguf` package (an extra) reads them.

Source: the format's description in the ggml project (docs/gguf.md), versions 2 and 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yunque.errors import InputError, MissingPackageError
from yunque.files import storage_error
from yunque.weights.families import Shape

READABLE = ("F32", "F16", "BF16", "Q8_0")


@dataclass(frozen=True)
class Entry:
    """Where a tensor stands in the file and how it is stored."""

    shape: Shape
    """In the order of PyTorch; the file holds it reversed."""
    kind: str
    """The format's name of the number type, for example Q8_0."""
    start: int
    size: int
    """In bytes."""


@dataclass(frozen=True)
class Content:
    """What the head of a GGUF file says."""

    file: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Entry]


def gguf_package(file: Path) -> Any:
    """The `gguf` package.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise MissingPackageError(
            f"{file}: GGUF files are read and written with the gguf package, which is not "
            "installed. Install it: pip install 'yunque[gguf]'"
        ) from None
    return gguf


def open_gguf(file: Path) -> Content:
    """Read the head of a GGUF file; no tensor is read yet.

    Raises:
        InputError: no such file, not a GGUF, damaged, cut off, one part of several, or with
            tensors of types that are not read (all of them named).
        StorageError: it cannot be read.
        MissingPackageError: the gguf package is not installed.
    """
    gguf = gguf_package(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file.")
    try:
        with file.open("rb") as handle:
            magic = handle.read(4)
        if magic != b"GGUF":
            raise InputError(
                f"{file}: not a GGUF file: it begins with {magic!r}, expected b'GGUF'."
            )
        reader = gguf.GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {
            tensor.name: Entry(
                shape=tuple(int(size) for size in reversed(tensor.shape)),
                kind=tensor.tensor_type.name,
                start=tensor.data_offset,
                size=tensor.n_bytes,
            )
            for tensor in reader.tensors
        }
    except OSError as error:
        raise storage_error(error, file, "read") from None
    # What the package raises for a file that is cut off or whose numbers make no sense.
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file}: a damaged or unfinished GGUF file ({type(error).__name__}: {error}). Copy or "
            "download it again."
        ) from None
    if reader.byte_order != "I":
        raise InputError(f"{file}: its numbers are stored in the other byte order (big-endian).")
    if metadata.get("split.count", 1) not in (0, 1):
        raise InputError(
            f"{file}: one of {metadata['split.count']} parts of a model. Put them together with "
            "llama.cpp's `llama-gguf-split --merge` and give the whole file."
        )
    refuse_types(file, tensors)
    refuse_overlap(file, tensors)
    return Content(file, metadata, tensors)


def refuse_types(file: Path, tensors: Mapping[str, Entry]) -> None:
    """Refuse a file with number types that are not read, naming them all."""
    others: dict[str, list[str]] = defaultdict(list)
    for name, entry in tensors.items():
        if entry.kind not in READABLE:
            others[entry.kind].append(name)
    if others:
        listed = "; ".join(
            f"{len(names)} tensors are {kind} ({', '.join(names[:3])}{', …' if names[3:] else ''})"
            for kind, names in sorted(others.items())
        )
        raise InputError(
            f"{file}: {listed}. Supported are {', '.join(READABLE)}: take the model's file in one "
            "of these types."
        )


def refuse_overlap(file: Path, tensors: Mapping[str, Entry]) -> None:
    """Refuse a file in which two tensors share bytes: one of them is not what its name says."""
    end, before = 0, ""
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].start):
        if entry.start < end:
            raise InputError(
                f"{file}: damaged: {name} begins at byte {entry.start}, within {before}, which "
                f"ends at {end}. Copy or download it again."
            )
        end, before = entry.start + entry.size, name


def read_tensor(content: Content, name: str) -> Tensor:
    """One tensor, in float32 where it is quantised, else in its own type.

    Read, not mapped: mapped pages of the tensors before would count as memory of this process.

    Raises:
        InputError: the file became shorter since it was opened.
        StorageError: reading failed.
    """
    entry = content.tensors[name]
    try:
        raw = np.fromfile(content.file, np.uint8, entry.size, offset=entry.start)
    except OSError as error:
        raise storage_error(error, content.file, "read") from None
    if raw.size != entry.size:
        raise InputError(f"{content.file}: it ends within {name}. Copy or download it again.")
    if entry.kind == "Q8_0":
        quants = gguf_package(content.file).quants
        rows = raw.reshape(*entry.shape[:-1], -1)  # blocks run along the rows
        values = quants.dequantize(rows, quants.GGMLQuantizationType.Q8_0)
        return torch.from_numpy(values).view(entry.shape)
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[entry.kind]
    return torch.from_numpy(raw).view(kind).view(entry.shape)
