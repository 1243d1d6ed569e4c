"""The GGUF container: the head of a file, and its tensors one by one.

A file is the letters GGUF, a version, two counts, so many keys with values, so many names of
tensors with shape, type and place, and then the numbers. The head is read here by hand: the
field's `gguf` package reads it too, but makes several objects of every token, and takes four
seconds for GPT-2's vocabulary. Reading therefore needs no further package; writing does.

Source: the format's description in the ggml project (docs/gguf.md), versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
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

VERSIONS = (2, 3)
ALIGNMENT = 32  # of the tensors' places, where the file does not say another
MOST_DIMENSIONS = 4

# Codes of the values of keys, as struct reads them; strings and arrays are apart.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9

DEQUANTISED = 1 << 14  # blocks at a time: half a million numbers
BLOCK, BLOCK_BYTES = 32, 34  # Q8_0: a float16 scale and 32 whole numbers of 8 bits
KINDS = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}
OTHER_KINDS = {
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    20: "IQ4_NL",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
}
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


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
    """The `gguf` package, which writes the files.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise MissingPackageError(
            f"{file}: GGUF files are written with the gguf package, which is not installed. "
            "Install it: pip install 'yunque[gguf]'"
        ) from None
    return gguf


class Cursor:
    """Reads the head of a file from front to back; every step says when the file is damaged."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self.file, self.data, self.place = file, data, 0

    def damaged(self, what: str) -> InputError:
        return InputError(
            f"{self.file}: a damaged or unfinished GGUF file ({what} at byte {self.place}). Copy "
            "or download it again."
        )

    def take(self, size: int) -> bytes:
        """The next bytes."""
        raw = self.data[self.place : self.place + size]
        if len(raw) < size:
            raise self.damaged(f"it ends within {size} bytes that begin")
        self.place += size
        return raw

    def numbers(self, code: str, count: int = 1) -> tuple[Any, ...]:
        """The next numbers, of a kind of `struct`."""
        size = count * struct.calcsize(f"<{code}")
        return struct.unpack(f"<{count}{code}", self.take(size))

    def number(self, code: str) -> Any:
        return self.numbers(code)[0]

    def text(self) -> str:
        """The next string: its length and its UTF-8 bytes."""
        raw = self.take(self.number("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"{raw[:20]!r} is no UTF-8 text, before the one") from None

    def value(self, kind: int) -> Any:
        """The next value of a key."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise self.damaged(f"a value of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner == STRING:
            return [self.text() for _ in range(count)]
        if inner not in NUMBERS:
            raise self.damaged(f"an array of the unknown type {inner}")
        return list(self.numbers(NUMBERS[inner], count))


def open_gguf(file: Path) -> Content:
    """Read the head of a GGUF file; no tensor is read yet.

    Raises:
        InputError: no such file, not a GGUF, damaged, cut off, one part of several, or with
            tensors of types that are not read (all of them named).
        StorageError: it cannot be read.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file.")
    try:
        with file.open("rb") as handle:
            magic = handle.read(4)
            if magic != b"GGUF":
                raise InputError(
                    f"{file}: not a GGUF file: it begins with {magic!r}, expected b'GGUF'."
                )
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return read_head(Cursor(file, data))
    except OSError as error:
        raise storage_error(error, file, "read") from None


def read_head(cursor: Cursor) -> Content:
    """Everything before the numbers; the cursor stands at the beginning.

    Raises:
        InputError: as `open_gguf`.
    """
    file = cursor.file
    cursor.take(4)
    version = cursor.number("I")
    if version & 0xFFFF == 0:
        raise InputError(f"{file}: its numbers are stored in the other byte order (big-endian).")
    if version not in VERSIONS:
        raise InputError(f"{file}: GGUF version {version}; this reader knows 2 and 3.")
    tensor_count, key_count = cursor.numbers("Q", 2)
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.text()
        if key in metadata:
            raise cursor.damaged(f"{key} a second time, before the value")
        metadata[key] = cursor.value(cursor.number("I"))
    if metadata.get("split.count", 1) not in (0, 1):
        raise InputError(
            f"{file}: one of {metadata['split.count']} parts of a model. Put them together with "
            "llama.cpp's `llama-gguf-split --merge` and give the whole file."
        )
    stated: dict[str, tuple[Shape, int, int]] = {}
    for _ in range(tensor_count):
        name, dimensions = cursor.text(), cursor.number("I")
        if name in stated or not 0 < dimensions <= MOST_DIMENSIONS:
            raise cursor.damaged(f"{name} a second time or with {dimensions} dimensions, before")
        shape = cursor.numbers("Q", dimensions)[::-1]
        stated[name] = (shape, cursor.number("I"), cursor.number("Q"))
    refuse_kinds(file, {name: kind for name, (_, kind, _) in stated.items()})
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.damaged(f"general.alignment is {alignment!r}, no power of two, before")
    begin = -(-cursor.place // alignment) * alignment
    tensors = {}
    for name, (shape, code, place) in stated.items():
        size = stored_size(shape, KINDS[code])
        if size is None:
            raise cursor.damaged(f"{name} has rows of {shape[-1]}, no multiple of 32, before")
        tensors[name] = Entry(shape, KINDS[code], begin + place, size)
    refuse_places(cursor, tensors)
    return Content(file, metadata, tensors)


def stored_size(shape: Shape, kind: str) -> int | None:
    """Bytes of a tensor; None where its rows do not fall into blocks."""
    if kind == "Q8_0":
        return None if shape[-1] % BLOCK else math.prod(shape) // BLOCK * BLOCK_BYTES
    return math.prod(shape) * TORCH[kind].itemsize


def refuse_kinds(file: Path, kinds: Mapping[str, int]) -> None:
    """Refuse a file with number types that are not read, naming them all."""
    others: dict[str, list[str]] = defaultdict(list)
    for name, code in kinds.items():
        if code not in KINDS:
            others[OTHER_KINDS.get(code, f"of type {code}")].append(name)
    if others:
        listed = "; ".join(
            f"{len(names)} tensors are {kind} ({', '.join(names[:3])}{', …' if names[3:] else ''})"
            for kind, names in sorted(others.items())
        )
        raise InputError(
            f"{file}: {listed}. Supported are F32, F16, BF16 and Q8_0: take the model's file in "
            "one of these types."
        )


def refuse_places(cursor: Cursor, tensors: Mapping[str, Entry]) -> None:
    """Refuse a file that ends too early, or in which two tensors share bytes."""
    end, before = cursor.place, "the head"
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].start):
        if entry.start < end:
            raise cursor.damaged(f"{name} begins within {before}, as told before")
        end, before = entry.start + entry.size, name
    if end > len(cursor.data):
        raise cursor.damaged(
            f"{before} ends at byte {end} and the file at {len(cursor.data)}, by the head that ends"
        )


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
    numbers = torch.from_numpy(raw)
    if entry.kind == "Q8_0":
        blocks = numbers.view(-1, BLOCK_BYTES)
        values = torch.empty(len(blocks), BLOCK)
        for start in range(0, len(blocks), DEQUANTISED):  # the products at once are a whole copy
            some = blocks[start : start + DEQUANTISED]
            scales = some[:, :2].contiguous().view(torch.float16).float()  # (blocks, 1)
            out = values[start : start + DEQUANTISED]
            torch.mul(some[:, 2:].view(torch.int8), scales, out=out)
        return values.view(entry.shape)
    return numbers.view(TORCH[entry.kind]).view(entry.shape)
