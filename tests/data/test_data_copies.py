"""Copied stretches against a search written out with Python's own `in`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from token_files import write_split

from yunque.data import copies as module
from yunque.data.copies import copies, pieces


def slow(train: list[int], texts: list[list[int]], shortest: int) -> tuple[int, int, int, int]:
    """(copied tokens, texts with a copy, longest copy, its text), stretch by stretch."""
    said = "," + ",".join(map(str, train)) + ","
    copied = 0
    best = (0, 0)
    withs = 0
    for i, ids in enumerate(texts):
        marks = set()
        for a in range(len(ids)):
            for b in range(a + shortest, len(ids) + 1):
                if "," + ",".join(map(str, ids[a:b])) + "," in said:
                    marks |= set(range(a, b))
                    if b - a > best[0]:
                        best = (b - a, i)
        copied += len(marks)
        withs += bool(marks)
    return copied, withs, *best


@pytest.mark.parametrize("seed", range(12))
def test_against_a_search_stretch_by_stretch(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 37)  # stretches lie across the ends of blocks
    random = np.random.default_rng(seed)
    train = random.integers(0, 3 + seed % 4, 300)
    texts = [random.integers(0, 3 + seed % 4, int(n)) for n in random.integers(1, 50, 6)]
    at, long = int(random.integers(0, 250)), int(random.integers(5, 50))
    texts.append(np.concatenate([texts[0], train[at : at + long], texts[1]]))
    shortest = int(random.integers(2, 8))
    got = copies(write_split(tmp_path, train, None, None), texts, shortest)
    wanted = slow(train.tolist(), [t.tolist() for t in texts], shortest)
    assert (got.copied, got.texts_with, got.longest, got.longest_text) == wanted
    assert (got.tokens, got.texts) == (sum(map(len, texts)), 7)


def test_a_text_of_one_token_is_no_trap(tmp_path: Path) -> None:
    train = write_split(tmp_path, [7] * 1000, None, None)
    got = copies(train, [np.full(60, 7), np.full(60, 8), np.array([], np.int64)], 5)
    assert (got.copied, got.texts_with, got.longest) == (60, 1, 60)
    assert copies(train, [], 5).tokens == 0
    assert copies(train, [np.array([7, 7])], 5).longest == 0


def test_pieces_lie_evenly(tmp_path: Path) -> None:
    held = write_split(tmp_path, range(100), None, None)
    found = [p.tolist() for p in pieces(held, [10, 200], 3)]
    assert found == [list(range(10)), list(range(45, 55)), list(range(90, 100))]
