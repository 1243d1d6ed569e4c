"""Batches are a pure function of (seed, step); every epoch visits every window once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_files import write_split

from yunque.batch import MASKED
from yunque.data.batches import (
    Batches,
    EvaluationWindows,
    TokenFile,
    mix,
    mix_array,
    open_split,
    permute,
)
from yunque.errors import InputError, StorageError


def tokens(folder: Path, length: int, dtype: str = "uint16") -> TokenFile:
    path = folder / f"{length}-{dtype}.bin"
    np.arange(length, dtype=dtype).tofile(path)
    return TokenFile(path, dtype, length)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_token_file(tmp_path: Path, dtype: str) -> None:
    file = tokens(tmp_path, 50, dtype)
    found = file.read(7, 5)
    assert (found.dtype, found.tolist()) == (np.int64, [7, 8, 9, 10, 11])
    assert file.read(50, 0).tolist() == []
    with pytest.raises(IndexError):
        file.read(48, 3)
    with pytest.raises(StorageError, match=r"expected 102 .*51 tokens"):
        TokenFile(file.path, "uint16", 51) if dtype == "uint16" else TokenFile(
            tokens(tmp_path, 50).path, "uint16", 51
        )
    file.path.write_bytes(b"\0\0")
    with pytest.raises(StorageError, match="cut short while it was read"):
        file.read(0, 5)
    with pytest.raises(StorageError, match="cannot read"):
        TokenFile(tmp_path / "none", "uint16", 1)


def test_a_split_brings_its_mask_and_its_documents(tmp_path: Path) -> None:
    plain = write_split(tmp_path, range(10), None, None, "val")
    assert (plain.mask, plain.documents) == (None, None)
    file = write_split(tmp_path, range(10), [1, 0] * 5, [4, 4, 10])
    assert file.mask is not None
    assert file.mask.read(3, 4).tolist() == [0, 1, 0, 1]
    assert file.documents is not None
    assert (file.documents.dtype, file.documents.tolist()) == (np.int64, [4, 4, 10])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mask", b"\1" * 9, r"train\.mask\.bin: 9 bytes, expected 10 \(10 tokens of uint8\)"),
        ("documents", b"\0" * 12, r"train\.documents\.bin: 12 bytes, expected a multiple of 8"),
    ],
)
def test_a_split_with_a_file_of_another_size_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    write_split(tmp_path, range(10), [1] * 10, [10])
    (tmp_path / f"train.{name}.bin").write_bytes(content)
    with pytest.raises(StorageError, match=message):
        open_split(tmp_path, "train", "uint16", 10)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([4, 9], r"the last document ends at token 9, expected 10, the end of train\.bin"),
        ([], r"the last document ends at token 0, expected 10"),
        ([4, 11], r"ends at token 11, expected 10"),
        ([7, 4, 10], r"document 2 ends before document 1"),
    ],
)
def test_documents_that_do_not_cut_the_tokens_are_refused(
    tmp_path: Path, ends: list[int], message: str
) -> None:
    file = write_split(tmp_path, range(10), None, ends)
    with pytest.raises(StorageError, match=message):
        _ = file.documents


def test_windows_mask_the_targets_that_carry_no_loss(tmp_path: Path) -> None:
    carries = np.random.default_rng(1).integers(0, 2, 103)
    plain = Batches(write_split(tmp_path, range(103), None, None, "plain"), 8, 5, 4, seed=3)
    masked = Batches(write_split(tmp_path, range(103), carries, None), 8, 5, 4, seed=3)
    wrapped = 0
    for step in range(12):
        one, other = plain.batch(step), masked.batch(step)
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(masked.batch(step, 2, 1).inputs, one.inputs[2:3])
        expected = torch.where(torch.from_numpy(carries)[one.targets] == 1, one.targets, MASKED)
        assert torch.equal(other.targets, expected)
        wrapped += int((one.targets.diff(dim=1) < 0).sum())
    assert wrapped > 0
    windows = EvaluationWindows(write_split(tmp_path, range(103), carries, None), 10)
    found = torch.cat([batch.targets.flatten() for batch in windows])
    assert found[found != MASKED].tolist() == [n for n in range(1, 103) if carries[n]]
    assert windows.tokens == len(found) == 102


def test_windows_without_any_loss_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yunque.data.batches.SCANNED", 7)
    last = write_split(tmp_path, range(30), [0] * 29 + [1], None, "last")
    assert Batches(last, 8, 1, 8, seed=0).windows == 3
    with pytest.raises(InputError, match="no token of the training data carries loss"):
        Batches(write_split(tmp_path, range(30), [0] * 30, None), 8, 1, 8, seed=0)


def test_mixer_is_splitmix64() -> None:
    # First outputs of the published generator from seed 1234567.
    assert [mix(1234567, n) for n in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    word = np.array([1234567 + 0x9E3779B97F4A7C15], dtype=np.uint64)
    assert int(mix_array(word)[0]) == 6457827717110365317


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection(size: int, key: int) -> None:
    found = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(found), np.arange(size))


def test_permutation_of_large_sizes() -> None:
    for size in (2**16, 2**16 + 1, 99_991):
        assert len(np.unique(permute(np.arange(size), size, 5))) == size
    places = np.arange(10**12, 10**12 + 1000)
    found = permute(places, 3 * 10**12, 9)
    assert len(np.unique(found)) == 1000
    assert found.max() < 3 * 10**12


def test_every_order_of_four_is_about_as_frequent() -> None:
    orders = Counter(tuple(permute(np.arange(4), 4, mix(3, n)).tolist()) for n in range(2400))
    assert len(orders) == 24
    # 100 expected each, standard deviation 9.8: five of them either way.
    assert min(orders.values()) >= 52
    assert max(orders.values()) <= 148


def test_large_permutation_has_no_pattern() -> None:
    found = permute(np.arange(10_000), 10_000, 1)
    assert (found == np.arange(10_000)).sum() < 8  # one fixed point expected
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.04
    other = permute(np.arange(10_000), 10_000, 2)
    assert (found == other).sum() < 8


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(9, 400),
    context=st.integers(1, 8),
    stride=st.integers(1, 30),
    batch=st.integers(1, 7),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 3),
)
def test_every_window_once_an_epoch(
    tmp_path_factory: pytest.TempPathFactory,
    length: int,
    context: int,
    stride: int,
    batch: int,
    seed: int,
    epoch: int,
) -> None:
    batches = Batches(tokens(tmp_path_factory.mktemp("b"), length), context, batch, stride, seed)
    windows = max(1, length // stride)
    assert batches.windows == windows
    assert batches.steps_per_epoch == windows / batch
    starts = batches.starts(epoch * windows, windows)
    phase = int(min(starts))  # no window but the last crosses the end
    assert sorted(starts.tolist()) == [phase + k * stride for k in range(windows)]
    assert 0 <= phase < (stride if windows > 1 else 1)


def test_rows_follow_the_samples_and_wrap_around(tmp_path: Path) -> None:
    batches = Batches(tokens(tmp_path, 103), 8, 5, 4, seed=3)
    assert batches.windows == 25
    crossing = 0
    for step in range(12):
        batch = batches.batch(step)
        inputs, targets = batch.inputs, batch.targets
        assert batch.layout == {}
        assert inputs.shape == targets.shape == (5, 8)
        assert inputs.dtype == targets.dtype == torch.int64
        for row in range(5):
            start = int(batches.starts(step * 5 + row, 1)[0])
            ring = [(start + place) % 103 for place in range(9)]
            assert inputs[row].tolist() == ring[:-1]
            assert targets[row].tolist() == ring[1:]
            crossing += ring[-1] < start
    assert crossing > 0


def test_slices_equal_the_whole_and_nothing_is_remembered(tmp_path: Path) -> None:
    file = tokens(tmp_path, 997)
    batches = Batches(file, 16, 12, 16, seed=11)
    whole = [batches.batch(step) for step in range(9)]
    fresh = Batches(file, 16, 12, 16, seed=11)
    for step in (8, 0, 5, 3):
        for first, count in ((0, 3), (3, 4), (7, 5), (11, 1), (4, 0)):
            found = fresh.batch(step, first, count)
            assert torch.equal(found.inputs, whole[step].inputs[first : first + count])
            assert torch.equal(found.targets, whole[step].targets[first : first + count])
    assert torch.equal(fresh.batch(2, 4).inputs, whole[2].inputs[4:])
    with pytest.raises(IndexError):
        fresh.batch(0, 10, 3)
    other = Batches(file, 16, 12, 16, seed=12)
    assert not torch.equal(other.batch(0).inputs, whole[0].inputs)


def test_epochs_differ_in_order_and_phase(tmp_path: Path) -> None:
    batches = Batches(tokens(tmp_path, 6400), 64, 4, 64, seed=1)
    epochs = [batches.starts(n * 100, 100) for n in range(20)]
    assert len({int(starts.min()) for starts in epochs}) > 10
    orders = {tuple((starts - starts.min()).tolist()) for starts in epochs}
    assert len(orders) == 20


def test_too_few_tokens_for_a_window(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"8 training tokens, but one window needs 9"):
        Batches(tokens(tmp_path, 8), 8, 1, 8, seed=0)
    batch = Batches(tokens(tmp_path, 9), 8, 3, 8, seed=0).batch(5)
    assert batch.inputs.tolist() == [list(range(8))] * 3
    assert batch.targets.tolist() == [list(range(1, 9))] * 3


@settings(max_examples=80, deadline=None)
@given(length=st.integers(0, 200), context=st.integers(1, 20), batch=st.integers(1, 5))
def test_evaluation_predicts_every_token_but_the_first_once(
    tmp_path_factory: pytest.TempPathFactory, length: int, context: int, batch: int
) -> None:
    windows = EvaluationWindows(
        tokens(tmp_path_factory.mktemp("e"), length), context, 0, batch_size=batch
    )
    predicted: list[int] = []
    for found in windows:
        assert 1 <= len(found.inputs) <= batch
        assert found.inputs.shape[1] <= context
        assert torch.equal(found.inputs + 1, found.targets)
        predicted += found.targets.flatten().tolist()
    assert predicted == list(range(1, length))
    assert windows.tokens == max(0, length - 1)


def test_limited_evaluation_spreads_whole_windows(tmp_path: Path) -> None:
    windows = EvaluationWindows(tokens(tmp_path, 1005), 10, limit_tokens=45)
    found = torch.cat([batch.inputs for batch in windows])
    assert found[:, 0].tolist() == [120, 370, 620, 870]
    assert windows.tokens == 40
    assert EvaluationWindows(tokens(tmp_path, 1005), 10, limit_tokens=3).tokens == 10
    assert EvaluationWindows(tokens(tmp_path, 1005), 10, limit_tokens=2000).tokens == 1004
    assert EvaluationWindows(tokens(tmp_path, 1005), 10, limit_tokens=1003).tokens == 1000
    assert EvaluationWindows(tokens(tmp_path, 8), 10, limit_tokens=3).tokens == 7
