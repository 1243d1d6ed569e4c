"""TOKEN FILE → (B, T) BATCHES: a pure function of (seed, step), with nothing to save or restore.

Shapes: B sequences of a batch, T context length.

The token file is read as a ring. An epoch has `windows = max(1, N // stride)` windows; window k
begins at token `(phase + k * stride) mod N`, and a window that reaches the end goes on at the
beginning. `phase` is random in [0, stride) for each epoch where there are two windows or more, so
that successive epochs cut the text at other places. In every epoch each window comes exactly
once, in the order of a seeded permutation. N mod stride tokens around the seam of the ring belong
to no window as its first `stride` tokens; where they lie moves with the phase.

The permutation is a Feistel network of eight rounds over the smallest even number of bits that
holds `windows`; numbers outside are permuted again until they fall inside ("cycle walking"). It
needs no table: the window of any position in any epoch is computed on its own, in constant
memory. Source: Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains". Its round function
is SplitMix64's mixer (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from yunque.batch import MASKED, Batch
from yunque.errors import InputError, StorageError
from yunque.files import storage_error

if TYPE_CHECKING:
    from torch import Tensor

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
AnyWords = Words | np.uint64

ROUNDS = 8  # with six, the orders of four windows are measurably unequal in frequency
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, SplitMix64's increment
MASK = 2**64 - 1
PHASE_STREAM = 2**32  # beyond every epoch's round keys
STORED = {"uint8": "u1", "uint16": "<u2", "uint32": "<u4"}
END_BYTES = 8  # of the offset at which a document ends
SCANNED = 1 << 20  # tokens of a loss mask that are read at once


class TokenFile:
    """Tokens on disk, read a stretch at a time; never held as a whole.

    Stretches are read with `pread`, not through a memory map: the pages of a map that was read at
    random count as memory of the process, and a file cut short under a map kills it.

    Args:
        dtype: "uint8", "uint16" or "uint32", little-endian in the file.
        length: number of tokens.
        mask: file of a byte a token: 0 where it carries no loss as a target. None: all do.
        documents: file of the offset behind each document's last token, in tokens, uint64
            little-endian. None: the tokens are one stream.

    Raises:
        StorageError: a file is missing or does not have the size that belongs to the tokens.
    """

    def __init__(
        self,
        path: Path,
        dtype: str,
        length: int,
        mask: Path | None = None,
        documents: Path | None = None,
    ) -> None:
        self.path = path
        self.dtype = dtype
        self.length = length
        self.mask = TokenFile(mask, "uint8", length) if mask else None
        self._documents = documents
        self._stored = np.dtype(STORED[dtype])
        if documents and (size := size_of(documents)) % END_BYTES:
            raise StorageError(
                f"{documents}: {size} bytes, expected a multiple of {END_BYTES} (one offset a "
                "document). The file was changed or cut short; prepare the data again."
            )
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, self._descriptor)
            size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise storage_error(error, path, "read") from None
        expected = length * self._stored.itemsize
        if size != expected:
            raise StorageError(
                f"{path}: {size} bytes, expected {expected} ({length} tokens of {dtype}). "
                "The file was changed or cut short; prepare the data again."
            )

    @cached_property
    def documents(self) -> Ints | None:
        """Offset behind each document's last token, ascending; None: the tokens are one stream.

        Raises:
            StorageError: the offsets do not cut the tokens into documents.
        """
        if self._documents is None:
            return None
        try:
            stored = np.fromfile(self._documents, dtype="<u8")
        except OSError as error:
            raise storage_error(error, self._documents, "read") from None
        last = int(stored[-1]) if len(stored) else 0
        if last != self.length:
            raise StorageError(
                f"{self._documents}: the last document ends at token {last}, expected "
                f"{self.length}, the end of {self.path.name}. Prepare the data again."
            )
        falls = np.flatnonzero(stored[1:] < stored[:-1])
        if len(falls):
            raise StorageError(
                f"{self._documents}: document {falls[0] + 2} ends before document {falls[0] + 1}: "
                "expected ascending offsets. Prepare the data again."
            )
        return stored.astype(np.int64)

    def place(self, start: int, count: int) -> str:
        """Where a stretch stands, for a reader: its tokens, and its documents where they are known.

        Both are counted from 1; a stretch that reaches the end goes on at the beginning.
        """
        text = f"tokens {start + 1} to {(start + count - 1) % self.length + 1}"
        if self.documents is None:
            return text
        ends = [start % self.length, (start + count - 1) % self.length]
        first, last = np.searchsorted(self.documents, ends, side="right") + 1
        return f"{text}, document{'' if first == last else 's'} {first}" + (
            "" if first == last else f" to {last}"
        )

    def read(self, start: int, count: int) -> Ints:
        """Tokens start … start + count - 1 as int64, (count,).

        Raises:
            StorageError: the disk failed or the file became shorter.
        """
        if not 0 <= start <= start + count <= self.length:
            raise IndexError(f"tokens {start} to {start + count} of {self.length}")
        width = self._stored.itemsize
        try:
            raw = read_at(self._descriptor, start * width, count * width)
        except OSError as error:
            raise storage_error(error, self.path, "read") from None
        if len(raw) != count * width:
            raise StorageError(f"{self.path}: cut short while it was read; prepare it again.")
        return np.frombuffer(raw, self._stored).astype(np.int64)


def open_split(folder: Path, name: str, dtype: str, length: int) -> TokenFile:
    """The tokens of a split with what stands beside them: `<name>.bin`, and where they exist
    `<name>.mask.bin` and `<name>.documents.bin`.

    Raises:
        StorageError: the token file is missing, or a file has another size than was written.
    """
    beside = (folder / f"{name}.{part}.bin" for part in ("mask", "documents"))
    mask, documents = (path if path.exists() else None for path in beside)
    return TokenFile(folder / f"{name}.bin", dtype, length, mask, documents)


def size_of(path: Path) -> int:
    """Bytes of a file.

    Raises:
        StorageError: it is missing or cannot be looked at.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise storage_error(error, path, "read") from None


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """Bytes of an open file; the place where others read is not moved where there is `pread`."""
    chunks = []
    while size:
        if hasattr(os, "pread"):
            chunk = os.pread(descriptor, size, offset)
        else:  # Windows
            os.lseek(descriptor, offset, os.SEEK_SET)
            chunk = os.read(descriptor, size)
        if not chunk:
            break
        chunks.append(chunk)
        offset += len(chunk)
        size -= len(chunk)
    return b"".join(chunks)


@dataclass(frozen=True)
class WindowCounts:
    """Where the tokens of a split go in one epoch: tokens = trained + masked + unused."""

    trained: int
    """Tokens that are a target and carry loss."""
    masked: int
    """Tokens that are a target and carry none."""
    unused: int
    """Tokens that no window holds as a target; others in every epoch."""


class Batches:
    """The training batches of a token file.

    Args:
        stride: tokens between the starts of two windows of an epoch.
        seed: fixes order and phase.

    Raises:
        InputError: the file holds fewer than context_length + 1 tokens, or none carries loss.
    """

    def __init__(
        self, tokens: TokenFile, context_length: int, batch_size: int, stride: int, seed: int
    ) -> None:
        if tokens.length < context_length + 1:
            raise InputError(
                f"{tokens.path}: {tokens.length} training tokens, but one window needs "
                f"{context_length + 1} (context_length {context_length} + 1). Add text or lower "
                "--context-length."
            )
        if tokens.mask is not None and not any_loss(tokens.mask):
            raise no_loss(tokens)
        self.tokens = tokens
        self.context_length = context_length
        self.batch_size = batch_size
        self.stride = stride
        self.seed = seed
        self.windows = max(1, tokens.length // stride)

    @property
    def steps_per_epoch(self) -> float:
        return self.windows / self.batch_size

    def batch(self, step: int, first: int = 0, count: int | None = None) -> Batch:
        """Rows first … first + count - 1 of update `step` (0-based), all of them by default.

        Targets are the inputs one token later, MASKED where the token carries no loss.
        """
        rows = self.batch_size - first if count is None else count
        if not 0 <= first <= first + rows <= self.batch_size:
            raise IndexError(f"rows {first} to {first + rows} of {self.batch_size}")
        return windows_at(
            self.tokens, self.starts(step * self.batch_size + first, rows), self.context_length
        )

    def stretches(self, step: int) -> list[list[tuple[int, int]]]:
        """(first token, tokens) of what each row of update `step` (0-based) reads: one stretch."""
        starts = self.starts(step * self.batch_size, self.batch_size)
        return [[(start, self.context_length + 1)] for start in starts.tolist()]

    def counts(self, epoch: int = 0) -> WindowCounts:
        """Where the tokens of the split go in an epoch; reads the loss mask once.

        Tokens that overlapping windows (stride below the context) train twice are counted once.
        """
        length = self.tokens.length
        step = min(self.stride, self.context_length)
        # Where windows overlap, the last one reaches beyond its stride.
        used = min(length, self.windows * step + self.context_length - step)
        trained = used
        if self.tokens.mask is not None:
            begins = [self._phase(epoch)]  # windows that join are one stretch of the ring
            if self.stride > self.context_length:
                begins = (begins[0] + self.stride * np.arange(self.windows)).tolist()
            size = used // len(begins)
            trained = sum(
                carrying(self.tokens.mask, (begin + 1) % length, size) for begin in begins
            )
        return WindowCounts(trained, used - trained, length - used)

    def starts(self, sample: int, count: int) -> Ints:
        """First token of the samples `sample` … of the endless sequence of epochs, (count,)."""
        samples = np.arange(sample, sample + count, dtype=np.int64)
        epochs, places = samples // self.windows, samples % self.windows
        starts = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            windows = permute(places[now], self.windows, mix(self.seed, epoch))
            starts[now] = (self._phase(epoch) + windows * self.stride) % self.tokens.length
        return starts

    def _phase(self, epoch: int) -> int:
        """Where the first window of an epoch begins."""
        if self.windows == 1:
            return 0
        return mix(mix(self.seed, epoch), PHASE_STREAM) % self.stride


def windows_at(tokens: TokenFile, starts: Ints, context_length: int) -> Batch:
    """The windows that begin at `starts`, `(len(starts), T)`; the file is read as a ring."""
    import torch

    def read(file: TokenFile) -> Tensor:
        found = np.empty((len(starts), context_length + 1), dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            ahead = min(context_length + 1, file.length - start)
            found[row, :ahead] = file.read(start, ahead)
            if ahead <= context_length:
                found[row, ahead:] = file.read(0, context_length + 1 - ahead)
        return torch.from_numpy(found)  # (B, T + 1)

    both = read(tokens)
    inputs, targets = both[:, :-1].contiguous(), both[:, 1:].contiguous()
    if tokens.mask is not None:
        # Not in place: of a single row inputs and targets are views of the same memory.
        targets = torch.where(read(tokens.mask)[:, 1:] == 0, MASKED, targets)
    return Batch(inputs, targets)


def carrying(mask: TokenFile, start: int, count: int) -> int:
    """How many of `count` tokens from `start` on, read as a ring, carry loss."""
    total = 0
    while count:
        size = min(count, SCANNED, mask.length - start)
        total += int(mask.read(start, size).sum())
        start, count = (start + size) % mask.length, count - size
    return total


def any_loss(mask: TokenFile) -> bool:
    """Whether any token carries loss."""
    return any(
        mask.read(start, min(SCANNED, mask.length - start)).any()
        for start in range(0, mask.length, SCANNED)
    )


def no_loss(tokens: TokenFile) -> InputError:
    """The error of a split in which there is nothing to learn."""
    return InputError(
        f"{tokens.path}: no token of the training data carries loss, so there is nothing to "
        "learn. Look at the roles and the answers of the records, then prepare them again."
    )


def mix(seed: int, number: int) -> int:
    """A 64-bit number from two, by SplitMix64: output `number` of the generator begun at `seed`."""
    word = (seed + (number + 1) * GOLDEN) & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def mix_array(words: Words) -> Words:
    """SplitMix64's mixer on an array (multiplication wraps at 2^64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def permute(places: Ints, size: int, key: int) -> Ints:
    """Where a seeded permutation of 0 … size - 1 sends `places`; see the top of this file."""
    half = max(2, (int(size - 1).bit_length() + 1) // 2)  # bits of one side
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [np.uint64(mix(key, number)) for number in range(ROUNDS)]
    result = places.astype(np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        result[outside] = feistel(result[outside], shift, mask, keys)
        outside[outside] = result[outside] >= size
    return result.astype(np.int64)


def permute_each(places: Ints, sizes: Ints, keys: Words) -> Ints:
    """`permute` with a size (below 2^53) and a key of its own for every place."""
    bits = np.frexp((sizes - 1).astype(np.float64))[1]
    shift = np.maximum(2, (bits + 1) // 2).astype(np.uint64)
    mask = (np.uint64(1) << shift) - np.uint64(1)
    outputs = np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    round_keys = mix_array(keys + outputs[:, None])  # (ROUNDS, places)
    result = places.astype(np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        result[outside] = feistel(
            result[outside], shift[outside], mask[outside], round_keys[:, outside]
        )
        outside = result >= sizes.astype(np.uint64)
    return result.astype(np.int64)


def feistel(words: Words, shift: AnyWords, mask: AnyWords, round_keys: Iterable[AnyWords]) -> Words:
    """The rounds of the permutation over words of twice `shift` bits."""
    left, right = words >> shift, words & mask
    for round_key in round_keys:
        left, right = right, left ^ (mix_array(right + round_key) & mask)
    return (left << shift) | right


class EvaluationWindows:
    """Non-overlapping windows in which every token but the first is predicted exactly once.

    The last, shorter window is a batch of its own. With a limit, whole windows evenly spread over
    the file are used instead, as many as fit (at least one).

    Args:
        limit_tokens: most tokens to predict. 0: all.
        batch_size: windows of one batch.

    Attributes:
        tokens: number of targets, masked ones included.
    """

    def __init__(
        self, tokens: TokenFile, context_length: int, limit_tokens: int = 0, batch_size: int = 16
    ) -> None:
        self._file = tokens
        self.context_length = context_length
        self.batch_size = batch_size
        targets = max(0, tokens.length - 1)
        full = targets // context_length
        self._rest = targets % context_length
        self._starts = np.arange(full, dtype=np.int64) * context_length
        if 0 < limit_tokens < targets and full:
            chosen = max(1, min(full, limit_tokens // context_length))
            # The middle of each of `chosen` equal stretches of the file.
            middles = (2 * np.arange(chosen, dtype=np.int64) + 1) * full // (2 * chosen)
            self._starts = middles * context_length
            self._rest = 0
        self._rest_start = full * context_length
        self.tokens = len(self._starts) * context_length + self._rest

    def __iter__(self) -> Iterator[Batch]:
        """Batches `(1 … batch_size, T)`; T is shorter in the last one."""
        for begin in range(0, len(self._starts), self.batch_size):
            starts = self._starts[begin : begin + self.batch_size]
            yield windows_at(self._file, starts, self.context_length)
        if self._rest:
            yield windows_at(self._file, np.array([self._rest_start]), self._rest)
