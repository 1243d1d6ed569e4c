"""DOCUMENTS → (B, T) BATCHES in which none sees another: a pure function of (seed, step).

Shapes: B rows of a batch, T context length.

A document of n tokens gives n - 1 pairs (token, next token): its first token is never a target.
More pairs than T are split into pieces of T and a shorter last one, so that every token but the
first is a target exactly once; or truncated to T pairs. Pieces stand whole in rows of T positions,
each a segment of its own: attention does not cross segments and positions restart at 0. What is
left of a row is padding, a segment without targets; its token id is 0 and means nothing.

Which *lengths* share a row is worked out once: the best-fit-decreasing heuristic of bin packing
(Johnson 1973, "Near-optimal bin packing algorithms"), which leaves hardly any padding. Which
*pieces* they are is drawn anew for every epoch: the pieces of one length change places by a keyed
permutation, and so do the rows. So an epoch always has the same number of rows and holds every
piece once, and a piece meets other neighbours in each as far as others have its length. The place
of any piece in any epoch is computed on its own; 24 bytes a piece are kept.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from yunque.batch import MASKED, Batch
from yunque.config import OverLong
from yunque.data.batches import (
    GOLDEN,
    SCANNED,
    Ints,
    TokenFile,
    Words,
    mix,
    mix_array,
    no_loss,
    permute,
    permute_each,
)
from yunque.errors import InputError

LENGTH_STREAM = 2**33  # beyond the streams of `batches`


@dataclass(frozen=True)
class PackedCounts:
    """Where the tokens of a split and the positions of its rows go in every epoch.

    tokens of the split = trained + masked + first + truncated
    rows x context length = trained + masked + padding
    """

    documents: int
    """Documents that are not empty."""
    over_long: int
    """Of these, those with more than context_length + 1 tokens: split, or truncated."""
    pieces: int
    """Segments in the rows, padding apart."""
    rows: int
    trained: int
    """Targets that carry loss."""
    masked: int
    """Targets that carry none."""
    first: int
    """First tokens of documents: read, but never a target."""
    truncated: int
    """Tokens left out at the ends of over-long documents."""
    padding: int
    """Positions of the rows that hold no token."""

    @property
    def in_rows(self) -> int:
        """Positions of the rows that hold a token."""
        return self.trained + self.masked

    @property
    def tokens(self) -> int:
        """All the tokens of the split."""
        return self.in_rows + self.first + self.truncated


class Packing:
    """How the documents of a split lie in rows.

    Attributes:
        rows: rows of an epoch.
        targets: targets of an epoch, masked ones included.
    """

    def __init__(
        self, tokens: TokenFile, context_length: int, over_long: OverLong = "split"
    ) -> None:
        self.tokens = tokens
        self.context_length = T = context_length
        self.over_long = over_long
        starts, _, kept = self._documents()
        whole, rest = kept // T, kept % T
        before = np.cumsum(whole) - whole
        full = np.repeat(starts - T * before, whole) + T * np.arange(whole.sum())
        short = np.flatnonzero(rest)
        short = short[np.argsort(-rest[short], kind="stable")]
        # The pieces in descending order of their length are the slots.
        self._starts = np.concatenate([full, starts[short] + T * whole[short]])
        self._count = np.bincount(rest[short], minlength=T + 1)  # by length
        self._count[T] = len(full)
        self._behind = np.cumsum(self._count[::-1])  # slots of length T, of T and T - 1, …
        row_of = best_fit(self._count.tolist(), T)
        self._slots = np.argsort(row_of, kind="stable")  # row after row
        self._row_first = np.concatenate([[0], np.cumsum(np.bincount(row_of))])
        self.rows = len(self._row_first) - 1
        self.targets = int(kept.sum())

    def _documents(self) -> tuple[Ints, Ints, Ints]:
        """First token, pairs, and pairs kept of every document that is not empty."""
        ends = self.tokens.documents
        if ends is None:
            ends = np.array([self.tokens.length], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
        starts, ends = starts[ends > starts], ends[ends > starts]
        pairs = ends - starts - 1
        split = self.over_long == "split"
        return starts, pairs, pairs if split else np.minimum(pairs, self.context_length)

    def counts(self) -> PackedCounts:
        """The counts of an epoch; reads the loss mask once."""
        starts, pairs, kept = self._documents()
        trained = self.targets
        if self.tokens.mask is not None:
            points = np.stack([starts + 1, starts + 1 + kept], axis=1).ravel()  # ascending
            before = ones_before(self.tokens.mask, points)
            trained = int((before[1::2] - before[::2]).sum())
        return PackedCounts(
            documents=len(starts),
            over_long=int((pairs > self.context_length).sum()),
            pieces=len(self._starts),
            rows=self.rows,
            trained=trained,
            masked=self.targets - trained,
            first=len(starts),
            truncated=int((pairs - kept).sum()),
            padding=self.rows * self.context_length - self.targets,
        )

    def batch(self, rows: Ints, keys: Words | None = None) -> Batch:
        """The rows of these numbers, `(len(rows), T)`.

        Args:
            keys: one for each row, equal within an epoch: which pieces of equal length change
                places. None: those of the file in their order.
        """
        import torch

        T, B = self.context_length, len(rows)
        inputs = np.zeros((B, T), dtype=np.int64)
        targets = np.full((B, T), MASKED, dtype=np.int64)
        positions = np.zeros((B, T), dtype=np.int64)
        segments = np.zeros((B, T), dtype=np.int64)
        count = np.arange(T)
        used, segment = [0] * B, [0] * B
        for row, start, length in self.pieces(rows, keys):
            span = slice(used[row], used[row] + length)
            found = self.tokens.read(start, length + 1)
            inputs[row, span] = found[:-1]
            targets[row, span] = found[1:]
            if self.tokens.mask is not None:
                carried = self.tokens.mask.read(start + 1, length)
                targets[row, span][carried == 0] = MASKED
            positions[row, span] = count[:length]
            segments[row, span] = segment[row]
            segments[row, span.stop :] = segment[row] + 1  # padding, where no other piece follows
            used[row], segment[row] = span.stop, segment[row] + 1
        tensors = map(torch.from_numpy, (inputs, targets, positions, segments))
        if max(segment, default=0) > 1:
            return Batch(*tensors)
        # One piece a row: nothing stands before it, and of what stands behind it nothing is seen.
        return Batch(next(tensors), next(tensors))

    def pieces(self, rows: Ints, keys: Words | None) -> Iterator[tuple[int, int, int]]:
        """(place of its row in `rows`, first token, length) of every piece, row after row."""
        first = self._row_first[rows]
        sizes = self._row_first[rows + 1] - first
        row = np.repeat(np.arange(len(rows)), sizes)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        slots = self._slots[first[row] + nth]
        lengths = self.context_length - np.searchsorted(self._behind, slots, side="right")
        if keys is not None:
            of_length = self._count[lengths]
            first = self._behind[self.context_length - lengths] - of_length
            streams = (LENGTH_STREAM + 1 + lengths).astype(np.uint64)
            drawn = mix_array(keys[row] + streams * np.uint64(GOLDEN))
            slots = first + permute_each(slots - first, of_length, drawn)
        return zip(row.tolist(), self._starts[slots].tolist(), lengths.tolist(), strict=True)


class PackedBatches:
    """The training batches of packed documents.

    Args:
        seed: fixes the order.
        over_long: what becomes of documents with more than context_length + 1 tokens.

    Attributes:
        windows: rows of an epoch.
        counts: where tokens and positions go in every epoch.

    Raises:
        InputError: there is no target that carries loss.
    """

    def __init__(
        self,
        tokens: TokenFile,
        context_length: int,
        batch_size: int,
        seed: int,
        over_long: OverLong = "split",
    ) -> None:
        self.tokens = tokens
        self.context_length = context_length
        self.batch_size = batch_size
        self.seed = seed
        self.packing = Packing(tokens, context_length, over_long)
        self.windows = self.packing.rows
        self.counts = self.packing.counts()
        if not self.packing.targets:
            raise InputError(
                f"{tokens.path}: no document has two tokens, so there is nothing to predict. "
                "Give documents of more than one token."
            )
        if not self.counts.trained:
            raise no_loss(tokens)

    @property
    def steps_per_epoch(self) -> float:
        return self.windows / self.batch_size

    def batch(self, step: int, first: int = 0, count: int | None = None) -> Batch:
        """Rows first … first + count - 1 of update `step` (0-based), all of them by default."""
        rows = self.batch_size - first if count is None else count
        if not 0 <= first <= first + rows <= self.batch_size:
            raise IndexError(f"rows {first} to {first + rows} of {self.batch_size}")
        return self.packing.batch(*self._rows(step * self.batch_size + first, rows))

    def stretches(self, step: int) -> list[list[tuple[int, int]]]:
        """(first token, tokens) of every piece in each row of update `step` (0-based)."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.batch_size)]
        rows = self._rows(step * self.batch_size, self.batch_size)
        for row, start, length in self.packing.pieces(*rows):
            found[row].append((start, length + 1))
        return found

    def _rows(self, sample: int, count: int) -> tuple[Ints, Words]:
        """Number and key of the rows `sample` … of the endless sequence of epochs, (count,)."""
        samples = np.arange(sample, sample + count, dtype=np.int64)
        epochs, places = samples // self.windows, samples % self.windows
        numbers, keys = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.uint64)
        for epoch in np.unique(epochs).tolist():
            now, key = epochs == epoch, mix(self.seed, epoch)
            numbers[now], keys[now] = permute(places[now], self.windows, key), key
        return numbers, keys


class PackedEvaluation:
    """The rows of a packing, in which every token but the first of a document is a target once.

    With a limit, rows evenly spread over the packing are used instead, as many as surely fit (at
    least one).

    Args:
        limit_tokens: most tokens to predict. 0: all.
        batch_size: rows of one batch.
    """

    def __init__(self, packing: Packing, limit_tokens: int = 0, batch_size: int = 16) -> None:
        self.packing = packing
        self.batch_size = batch_size
        self._rows = np.arange(packing.rows)
        if 0 < limit_tokens < packing.targets:
            chosen = max(1, min(packing.rows, limit_tokens // packing.context_length))
            # The middle of each of `chosen` equal stretches of the rows.
            self._rows = (2 * np.arange(chosen) + 1) * packing.rows // (2 * chosen)

    def __iter__(self) -> Iterator[Batch]:
        """Batches `(1 … batch_size, T)`."""
        for begin in range(0, len(self._rows), self.batch_size):
            yield self.packing.batch(self._rows[begin : begin + self.batch_size])


def best_fit(count: Sequence[int], capacity: int) -> Ints:
    """The row of every piece by best fit, longest first: into the fullest row that has room.

    Rows with equal room are filled together, so that the work grows with the number of lengths
    rather than of pieces.

    Args:
        count: pieces of each length 0 … capacity; there are none of length 0.

    Returns:
        Rows numbered from 0, for the pieces in descending order of length.
    """
    rows = 0
    rooms: list[int] = []  # ascending: room that some row has left
    open_rows: dict[int, list[Ints]] = {}  # room → rows
    found: list[Ints] = []

    def leave(which: Ints, room: int) -> None:
        if len(which) and room:
            if room not in open_rows:
                insort(rooms, room)
            open_rows.setdefault(room, []).append(which)

    def fill(which: Ints, room: int, length: int, left: int) -> int:
        """Put up to `left` pieces into rows of equal room; returns how many."""
        each = room // length  # into one row, before another one
        fitting = which[: -(-left // each)]
        placed = min(left, each * len(fitting))
        found.append(np.repeat(fitting, each)[:placed])
        last = placed - each * (len(fitting) - 1)  # pieces in the last row
        leave(which[len(fitting) :], room)
        leave(fitting[:-1], room - each * length)
        leave(fitting[-1:], room - last * length)
        return placed

    for length in range(capacity, 0, -1):
        left = count[length]
        while left and (place := bisect_left(rooms, length)) < len(rooms):
            room = rooms[place]
            which = open_rows[room].pop()
            if not open_rows[room]:
                del open_rows[room], rooms[place]
            left -= fill(which, room, length, left)
        if left:
            fresh = -(-left // (capacity // length))
            fill(np.arange(rows, rows + fresh), capacity, length, left)
            rows += fresh
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def ones_before(mask: TokenFile, points: Ints) -> Ints:
    """How many tokens before each of the ascending `points` carry loss."""
    result = np.zeros(len(points), dtype=np.int64)
    total = done = 0
    for start in range(0, mask.length, SCANNED):
        sums = np.cumsum(mask.read(start, min(SCANNED, mask.length - start)) != 0)
        until = int(np.searchsorted(points, start + len(sums), side="right"))
        places = points[done:until] - start  # 0 … len(sums)
        result[done:until] = total + np.where(places > 0, sums[places - 1], 0)
        total, done = total + int(sums[-1]), until
    return result
