"""Packed documents: every target once, segments true, hardly any padding, nothing remembered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_files import write_split

from yunque.batch import MASKED, Batch
from yunque.data.batches import TokenFile, mix, permute, permute_each
from yunque.data.packing import (
    PackedBatches,
    PackedCounts,
    PackedEvaluation,
    Packing,
    best_fit,
    ones_before,
)
from yunque.errors import InputError

OverLong = Literal["split", "truncate"]


def split_of(
    folder: Path, lengths: Sequence[int], mask: Sequence[int] | None = None, name: str = "train"
) -> TokenFile:
    """Documents of these lengths; each token's id is its place in the file."""
    return write_split(folder, range(sum(lengths)), mask, np.cumsum(lengths), name)


def kept_targets(lengths: Sequence[int], context: int, over_long: OverLong) -> list[int]:
    """By hand: the tokens that are a target, document by document."""
    found, start = [], 0
    for length in lengths:
        end = start + length
        if over_long == "truncate":
            end = min(end, start + context + 1)
        found += range(start + 1, end)
        start += length
    return found


def targets_of(batch: Batch) -> list[int]:
    return batch.targets[batch.targets != MASKED].tolist()


def check_rows(batch: Batch, ends: Sequence[int]) -> None:
    """Each segment is a stretch of one document, its positions count from 0; padding is silent."""
    layout = batch.layout or {
        "positions": torch.arange(batch.inputs.shape[1]).expand_as(batch.inputs),
        "segments": torch.zeros_like(batch.inputs),
    }
    for row in range(len(batch.inputs)):
        segments = layout["segments"][row]
        assert (segments.diff() >= 0).all()
        for number in segments.unique().tolist():
            here = segments == number
            known = here & (batch.targets[row] != MASKED)
            if not known.any():
                continue  # padding, or a piece whose targets are all masked
            inputs, count = batch.inputs[row][here], int(here.sum())
            positions = layout["positions"][row][here]
            # Padding is behind the only segment of a row where a batch needs no layout.
            size = count if batch.layout else int(known.nonzero().max()) + 1
            assert positions[:size].tolist() == list(range(size))
            assert (inputs[:size].diff() == 1).all()
            assert torch.equal(batch.targets[row][known], batch.inputs[row][known] + 1)
            begin, last = int(inputs[0]), int(inputs[size - 1])
            document = np.searchsorted(ends, begin, side="right")
            assert document == np.searchsorted(ends, last + 1, side="right")


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    context=st.integers(1, 16),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 3),
    over_long=st.sampled_from(["split", "truncate"]),
    masked=st.booleans(),
)
def test_every_target_once_an_epoch_and_every_token_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    context: int,
    batch_size: int,
    seed: int,
    epoch: int,
    over_long: OverLong,
    masked: bool,
) -> None:
    total = sum(lengths)
    mask = np.random.default_rng(seed).integers(0, 2, total) if masked else np.ones(total, int)
    expected = kept_targets(lengths, context, over_long)
    trained = [token for token in expected if mask[token]]
    file = split_of(tmp_path_factory.mktemp("p"), lengths, mask.tolist() if masked else None)
    if not trained:
        with pytest.raises(InputError, match=r"nothing to (learn|predict)"):
            PackedBatches(file, context, batch_size, seed, over_long)
        return
    batches = PackedBatches(file, context, batch_size, seed, over_long)
    rows, ends = batches.windows, np.cumsum(lengths)
    # The samples of one epoch, gathered from the updates that hold them.
    seen, inside = [], 0
    for sample in range(epoch * rows, (epoch + 1) * rows):
        row = batches.batch(sample // batch_size, sample % batch_size, 1)
        assert row.inputs.shape == row.targets.shape == (1, context)
        check_rows(row, ends)
        seen += targets_of(row)
        inside += row.targets.numel()
    assert sorted(seen) == trained
    counts = batches.counts
    truncated = sum(max(0, n - context - 1) for n in lengths) if over_long == "truncate" else 0
    assert counts == PackedCounts(
        documents=sum(n > 0 for n in lengths),
        over_long=sum(n > context + 1 for n in lengths),
        pieces=counts.pieces,
        rows=rows,
        trained=len(trained),
        masked=len(expected) - len(trained),
        first=sum(n > 0 for n in lengths),
        truncated=truncated,
        padding=inside - len(expected),
    )
    assert counts.tokens == total
    assert counts.in_rows + counts.padding == rows * context
    assert batches.steps_per_epoch == rows / batch_size


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    context=st.integers(1, 16),
    batch=st.integers(1, 5),
)
def test_evaluation_predicts_every_token_but_first_ones_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], context: int, batch: int
) -> None:
    packing = Packing(split_of(tmp_path_factory.mktemp("e"), lengths), context)
    seen = []
    for found in PackedEvaluation(packing, batch_size=batch):
        assert 1 <= len(found.inputs) <= batch
        check_rows(found, np.cumsum(lengths))
        seen += targets_of(found)
    assert sorted(seen) == kept_targets(lengths, context, "split")
    assert packing.targets == len(seen)


def test_a_limited_evaluation_spreads_over_the_rows(tmp_path: Path) -> None:
    packing = Packing(split_of(tmp_path, [11] * 100), 10)
    assert packing.rows == 100
    for limit, rows in ((45, 4), (3, 1), (999, 99), (1000, 100), (5000, 100), (0, 100)):
        found = list(PackedEvaluation(packing, limit))
        assert sum(len(batch.inputs) for batch in found) == rows, limit
    (four,) = PackedEvaluation(packing, 45)
    assert (four.inputs[:, 0] // 11).tolist() == [12, 37, 62, 87]


def test_slices_equal_the_whole_and_nothing_is_remembered(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 30, 200).tolist()
    file = split_of(tmp_path, lengths, rng.integers(0, 2, sum(lengths)).tolist())
    batches = PackedBatches(file, 16, 12, seed=11)
    assert 9 * 12 < batches.windows < 40 * 12
    whole = [batches.batch(step) for step in range(40)]  # into the second epoch
    fresh = PackedBatches(file, 16, 12, seed=11)
    for step in (39, 0, 25, 3):
        for first, count in ((0, 3), (3, 4), (7, 5), (11, 1), (4, 0)):
            found = fresh.batch(step, first, count)
            part = slice(first, first + count)
            assert torch.equal(found.inputs, whole[step].inputs[part])
            assert torch.equal(found.targets, whole[step].targets[part])
            for name, value in found.layout.items():
                assert torch.equal(value, whole[step].layout[name][part])
    with pytest.raises(IndexError):
        fresh.batch(0, 10, 3)
    other = PackedBatches(file, 16, 12, seed=12)
    assert not torch.equal(other.batch(0).inputs, whole[0].inputs)


def test_documents_meet_other_neighbours_in_every_epoch(tmp_path: Path) -> None:
    lengths = np.random.default_rng(2).integers(2, 14, 1500).tolist()
    ends = np.cumsum(lengths)
    batches = PackedBatches(split_of(tmp_path, lengths), 16, 1, seed=4)

    def neighbours(epoch: int) -> tuple[set[tuple[int, int]], list[int]]:
        pairs, order = set(), []
        for sample in range(epoch * batches.windows, (epoch + 1) * batches.windows):
            found = targets_of(batches.batch(sample))
            inside = sorted({int(np.searchsorted(ends, token, "right")) for token in found})
            pairs |= {(a, b) for a in inside for b in inside if a < b}
            order += inside
        return pairs, order

    (one, first), (two, second) = neighbours(0), neighbours(1)
    assert sorted(first) == sorted(second) == list(range(1500))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 12  # one is expected
    assert len(one & two) < 0.1 * len(one)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 24), max_size=120),
    capacity=st.integers(24, 60),
)
def test_best_fit_places_each_piece_as_one_by_one(lengths: list[int], capacity: int) -> None:
    lengths = sorted(lengths, reverse=True)
    rows = best_fit(np.bincount(lengths, minlength=capacity + 1).tolist(), capacity)
    assert len(rows) == len(lengths)
    filled = np.bincount(rows, weights=lengths).astype(int).tolist()
    assert max(filled, default=0) <= capacity
    # The textbook's way: the fullest row with room takes the piece, else a new row.
    room: list[int] = []
    for length in lengths:
        fitting = [space for space in room if space >= length]
        if fitting:
            room[room.index(min(fitting))] -= length
        else:
            room.append(capacity - length)
    assert sorted(filled) == sorted(capacity - space for space in room)


def test_hardly_any_padding_with_lengths_as_conversations_have_them(tmp_path: Path) -> None:
    lengths = np.random.default_rng(3).lognormal(4.0, 0.6, 4000).astype(int) + 2
    file = write_split(tmp_path, [0] * lengths.sum(), None, np.cumsum(lengths))
    counts = PackedBatches(file, 256, 8, seed=1).counts
    assert counts.padding / (counts.rows * 256) < 0.005


def test_a_permutation_for_each_place_is_the_permutation_of_its_size_and_key() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.choice([1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 65_537, 10**12], 600)
    places = (rng.random(600) * sizes).astype(np.int64)
    keys = np.array([mix(7, int(n)) for n in rng.integers(0, 3, 600)], dtype=np.uint64)
    found = permute_each(places, sizes, keys)
    for place, size, key, got in zip(places, sizes, keys, found, strict=True):
        assert got == permute(np.array([place]), int(size), int(key))[0]
    assert permute_each(places[:0], sizes[:0], keys[:0]).tolist() == []


def test_ones_are_counted_across_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yunque.data.packing.SCANNED", 7)
    mask = np.random.default_rng(6).integers(0, 2, 50)
    file = write_split(tmp_path, range(50), mask, None)
    points = np.array([0, 0, 3, 7, 7, 8, 21, 49, 50])
    assert file.mask is not None
    assert ones_before(file.mask, points).tolist() == [int(mask[:p].sum()) for p in points]


def test_by_hand(tmp_path: Path) -> None:
    """Three documents, context 4: [0 1 2] [3 … 9] [10 11]; tokens 1, 5 and 9 carry no loss."""
    mask = [int(token not in (1, 5, 9)) for token in range(12)]
    file = split_of(tmp_path, [3, 7, 2], mask)
    packing = Packing(file, 4)
    batch = packing.batch(np.arange(packing.rows))
    # Pieces by length: 4 (3 4 5 6), 2 (0 1), 2 (7 8), 1 (10); fullest row first.
    assert batch.inputs.tolist() == [[3, 4, 5, 6], [0, 1, 7, 8], [10, 0, 0, 0]]
    assert batch.targets.tolist() == [
        [4, MASKED, 6, 7],
        [MASKED, 2, 8, MASKED],
        [11, MASKED, MASKED, MASKED],
    ]
    assert batch.layout["positions"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 1], [0, 0, 0, 0]]
    assert batch.layout["segments"].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert packing.counts() == PackedCounts(
        documents=3,
        over_long=1,
        pieces=4,
        rows=3,
        trained=6,
        masked=3,
        first=3,
        truncated=0,
        padding=3,
    )
    alone = packing.batch(np.array([0, 2]))
    assert alone.layout == {}  # one piece a row: plain causal attention is enough
    cut = Packing(file, 4, "truncate")
    assert cut.batch(np.arange(cut.rows)).inputs.tolist() == [[3, 4, 5, 6], [0, 1, 10, 0]]
    counts = cut.counts()
    assert (counts.truncated, counts.over_long, counts.tokens) == (2, 1, 12)


def test_one_stream_is_one_document(tmp_path: Path) -> None:
    packing = Packing(write_split(tmp_path, range(23), None, None), 10)
    counts = packing.counts()
    assert (counts.documents, counts.rows, counts.trained, counts.padding) == (1, 3, 22, 8)


def test_nothing_to_learn_is_an_error(tmp_path: Path) -> None:
    file = split_of(tmp_path, [4, 4], [1, 0, 0, 0, 1, 0, 0, 0])  # first tokens are no targets
    with pytest.raises(InputError, match="no token of the training data carries loss"):
        PackedBatches(file, 8, 1, seed=0)
    with pytest.raises(InputError, match="no document has two tokens"):
        PackedBatches(split_of(tmp_path, [1, 1, 0], name="short"), 8, 1, seed=0)
