"""Text copied from the training data: which of it stands there word for word, and how much at once.

A stretch of tokens is found by its hash, so the training tokens are read a block at a time and
never held. Stretches shorter than a given number of tokens are everybody's and count for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yunque.data.batches import TokenFile
from yunque.data.ngrams import Ids

BLOCK = 1 << 20
SEARCHED_TOKENS = 20_000_000
"""Most training tokens that are looked through: a few seconds."""
STRETCH_BYTES = 30
"""What is shorter than that may stand in any two texts of a language."""
FACTOR, SEED = 6364136223846793005, 17

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Copies:
    """What several texts have in common with the training tokens."""

    tokens: int
    copied: int
    """Tokens that lie in a stretch found there."""
    texts: int
    texts_with: int
    """Texts that hold such a stretch."""
    longest: int
    """Tokens of the longest stretch, 0 where none is long enough."""
    longest_text: int
    """The text that holds it, the first of equals."""


def copies(train: TokenFile, texts: Sequence[Ids], shortest: int) -> Copies:
    """What of the texts stands in the first SEARCHED_TOKENS training tokens.

    Args:
        texts: token ids, each (N,).
        shortest: tokens from which on a common stretch counts.
    """
    marks = [np.zeros(len(ids), bool) for ids in texts]
    for text, start in found(train, texts, shortest):
        marks[text][start : start + shortest] = True
    longest, where = 0, 0
    # The longest by doubling and halving: each length is one reading.
    open_texts = [i for i, mark in enumerate(marks) if mark.any()]
    low, high = shortest, max((len(ids) for ids in texts), default=0) + 1
    length = shortest
    while open_texts and low < high:
        hits = {text for text, _ in found(train, [texts[i] for i in open_texts], length)}
        if hits:
            open_texts = [open_texts[i] for i in sorted(hits)]
            longest, where = length, open_texts[0]
            low = length + 1
            length = min(2 * length, high - 1) if high > max(map(len, texts)) else (low + high) // 2
        else:
            high = length
            length = (low + high) // 2
    return Copies(
        sum(map(len, texts)),
        sum(int(mark.sum()) for mark in marks),
        len(texts),
        sum(bool(mark.any()) for mark in marks),
        longest,
        where,
    )


def found(train: TokenFile, texts: Sequence[Ids], length: int) -> list[tuple[int, int]]:
    """(text, place) of every stretch of that length that stands in the training tokens."""
    places = [(i, k) for i, ids in enumerate(texts) for k in range(len(ids) - length + 1)]
    if not places:
        return []
    asked = np.concatenate([hashes(ids, length) for ids in texts if len(ids) >= length])
    wanted, which = np.unique(asked, return_inverse=True)
    there = np.zeros(len(wanted), bool)
    end = min(train.length, SEARCHED_TOKENS)
    for begin in range(0, end - length + 1, BLOCK):
        block = hashes(train.read(begin, min(BLOCK + length - 1, end - begin)), length)
        at = np.minimum(np.searchsorted(wanted, block), len(wanted) - 1)
        there[at[wanted[at] == block]] = True
    return [place for place, here in zip(places, there[which], strict=True) if here]


def hashes(ids: Ids, length: int) -> Hashes:
    """A 64-bit hash of every stretch of `length` tokens, (N - length + 1,).

    A polynomial modulo 2^64 of mixed ids, made of its running sum.
    """
    mixed = (ids.astype(np.uint64) + np.uint64(SEED)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    factor = np.full(len(ids), FACTOR, np.uint64)
    factor[:1] = 1
    powers = np.cumprod(factor, dtype=np.uint64)
    inverse = np.full(len(ids), pow(FACTOR, -1, 1 << 64), np.uint64)
    inverse[:1] = 1
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed * powers, dtype=np.uint64)])
    windows: Hashes = sums[length:] - sums[: len(sums) - length]
    return windows * np.cumprod(inverse, dtype=np.uint64)[: len(windows)]


def pieces(tokens: TokenFile, lengths: Sequence[int], each: int = 4) -> list[Ids]:
    """Stretches of a file at even distances, `each` of every length that it can hold."""
    many = [n for n in lengths for _ in range(each) if n <= tokens.length]
    room = [tokens.length - n for n in many]
    return [
        tokens.read(free * k // max(1, len(many) - 1), n)
        for k, (n, free) in enumerate(zip(many, room, strict=True))
    ]
