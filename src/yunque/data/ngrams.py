"""N-gram models of token ids: yardsticks for a model's loss, counted on its training tokens.

An n-gram model knows only the n - 1 tokens before the next one. Where a model's validation loss
passes below that of the n-gram model, it has learned to use more than they hold.

The probabilities are interpolated Kneser-Ney with one discount for each order:

    p(w | c) = max(0, N(c w) - d) / N(c) + d · T(c) / N(c) · p(w | shorter c),

N counts how often (for the highest order) or after how many different tokens (below it) something
stands; T(c) is the number of different tokens after c; below the unigrams stands 1 / vocabulary.
d = n1 / (n1 + 2 n2), n1 and n2 the numbers of n-grams seen once and twice.
Source: Kneser & Ney 1995; Chen & Goodman 1999, section 2.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yunque.data.batches import TokenFile
from yunque.errors import InputError

Ids = npt.NDArray[np.int64]
ORDERS = 5
TRAIN_TOKENS, VAL_TOKENS = 1_000_000, 65_536
"""Most tokens that are counted, and measured: less than 2 s and 250 MB however long the text."""
STRETCHES = 64


@dataclass(frozen=True)
class Level:
    """The n-grams of one order, and the contexts that they begin with, both sorted."""

    grams: Ids
    counts: Ids
    contexts: Ids
    totals: Ids
    """Sum of the counts after a context."""
    types: Ids
    """Different tokens after a context."""
    discount: float


@dataclass(frozen=True)
class Counts:
    """The n-grams of a text, to be made into models of every order.

    The key of an n-gram is (number of its first n - 1 tokens) · vocabulary + its last token; its
    number is the place of its key among the sorted keys of its order.
    """

    vocabulary: int
    grams: tuple[Ids, ...]
    """Of each order: the sorted keys of its n-grams."""
    counts: tuple[Ids, ...]
    followers: tuple[Ids, ...]
    """Of each order: after how many different tokens each of its n-grams stands."""


def count(ids: Ids, vocabulary: int, orders: int = ORDERS) -> Counts:
    """Count the n-grams of orders 1 to `orders`.

    Args:
        ids: the training tokens, (N,).
        vocabulary: number of different tokens there may be.

    Raises:
        InputError: fewer tokens than the longest n-gram, or an id outside the vocabulary.
    """
    if len(ids) < orders or ids.min() < 0 or ids.max() >= vocabulary:
        raise InputError(
            f"n-grams: got {len(ids)} tokens for orders up to {orders} and a vocabulary of "
            f"{vocabulary}. Expected at least {orders} tokens, each from 0 to {vocabulary - 1}."
        )
    keys: Ids = np.zeros(len(ids) + 1, np.int64)
    grams, counts, followers = list[Ids](), list[Ids](), list[Ids]()
    suffix: Ids | None = None
    for order in range(1, orders + 1):
        # Place i holds the number of the n-gram that begins there.
        pairs = keys[: len(ids) - order + 1] * vocabulary + ids[order - 1 :]
        found, first, named, times = distinct(pairs)
        if suffix is not None:
            # An n-gram of the order below follows as many tokens as distinct n-grams end in it.
            followers.append(np.bincount(suffix[first + 1], minlength=len(counts[-1])))
        grams.append(found)
        counts.append(times)
        keys = suffix = named
    followers.append(np.zeros(0, np.int64))
    return Counts(vocabulary, tuple(grams), tuple(counts), tuple(followers))


def distinct(values: Ids) -> tuple[Ids, Ids, Ids, Ids]:
    """(different values, ascending; where each first stands; number of each; how often).

    What `np.unique` tells, several times faster: value and place are sorted as one number, which
    needs no indirect sort. Keys of n-grams leave room for it: at most TRAIN_TOKENS places, as many
    contexts and the vocabulary, 20 bits, 20 bits and the rest.
    """
    bits = len(values).bit_length()
    assert int(values.max()) >> (63 - bits) == 0, "value and place do not fit into 63 bits"
    both = np.sort(values << bits | np.arange(len(values)))
    place, both = both & ((1 << bits) - 1), both >> bits
    new = np.concatenate([[True], both[1:] != both[:-1]])
    starts = np.flatnonzero(new)
    named = np.empty(len(values), np.int64)
    named[place] = np.cumsum(new) - 1
    return both[starts], place[starts], named, np.diff(starts, append=len(values))


def level(counts: Counts, order: int, highest: bool) -> Level:
    """The model's table of one order; below the highest the counts are those of continuation."""
    times = counts.counts[order - 1] if highest else counts.followers[order - 1]
    grams = counts.grams[order - 1]
    kept = times > 0
    leading = grams[kept] // counts.vocabulary  # ascending, as the keys are
    new = np.concatenate([[True], leading[1:] != leading[:-1]])[: len(leading)]
    contexts, place = leading[new], np.cumsum(new) - 1
    once, twice = int((times == 1).sum()), int((times == 2).sum())
    # With no n-gram seen once there is nothing to learn the unseen from: hold back very little.
    discount = once / (once + 2 * twice) if once else 1e-3
    totals = np.bincount(place, weights=times[kept]).astype(np.int64)
    return Level(grams[kept], times[kept], contexts, totals, np.bincount(place), discount)


def losses(counts: Counts, ids: Ids, order: int) -> npt.NDArray[np.float64]:
    """-ln p of each token but the first, in nats, (N - 1,).

    The first tokens of the text have fewer than `order` - 1 before them and are told by those.

    Raises:
        InputError: the order was not counted, or an id is outside the vocabulary.
    """
    if not 1 <= order <= len(counts.grams) or ids.min() < 0 or ids.max() >= counts.vocabulary:
        raise InputError(
            f"n-grams: got order {order} and ids up to {ids.max()}; expected an order from 1 to "
            f"{len(counts.grams)} and ids below {counts.vocabulary}."
        )
    p = np.full(len(ids), 1.0 / counts.vocabulary)
    keys: Ids = np.zeros(len(ids), np.int64)
    for n in range(1, order + 1):
        # keys[i]: the number of the n - 1 tokens before token i, -1 where they were never seen.
        table, known = level(counts, n, n == order), keys >= 0
        context, seen = find(table.contexts, keys)
        seen &= known
        pairs = np.where(known, keys * counts.vocabulary + ids, -1)
        gram, there = find(table.grams, pairs)
        total = np.where(seen, table.totals[context], 1)
        times = np.where(there, table.counts[gram], 0)
        kinds = np.where(seen, table.types[context], 0)
        held = np.maximum(0.0, times - table.discount) + table.discount * kinds * p
        p = np.where(seen, held / total, p)
        # The number of the n tokens before token i + 1 is that of the n-gram ending at i.
        whole, there = find(counts.grams[n - 1], pairs)
        keys = np.concatenate([[-1], np.where(there, whole, -1)[:-1]])
    loss: npt.NDArray[np.float64] = -np.log(p[1:])
    return loss


def find(table: Ids, keys: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """(place of each key in a sorted table, whether it is there)."""
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return place, table[place] == keys


def of_splits(splits: Mapping[str, TokenFile], vocabulary: int) -> dict[str, Any] | None:
    """The yardsticks of prepared data, for its facts; None where there is too little of it.

    Of a long text even stretches stand for the whole. Only tokens that carry loss are measured, as
    in an evaluation.

    Returns:
        losses (nats per token, of orders 1 to 5), train_tokens and val_tokens that they rest on.
    """
    train, val = splits["train"], splits.get("val")
    if val is None or train.length < ORDERS or val.length < 2:
        return None
    told, held_out = stretches(train, TRAIN_TOKENS), stretches(val, VAL_TOKENS)
    carry = np.ones(len(held_out) - 1, bool)
    if val.mask is not None:
        carry = stretches(val.mask, VAL_TOKENS)[1:] > 0
    if not carry.any():
        return None
    counts = count(told, vocabulary)
    found = [float(losses(counts, held_out, n)[carry].mean()) for n in range(1, ORDERS + 1)]
    return {"losses": found, "train_tokens": len(told), "val_tokens": int(carry.sum())}


def stretches(tokens: TokenFile, limit: int) -> Ids:
    """At most `limit` tokens, (N,): all of them, or the beginnings of equal parts of the file."""
    if tokens.length <= limit:
        return tokens.read(0, tokens.length)
    each = limit // STRETCHES
    starts = [k * tokens.length // STRETCHES for k in range(STRETCHES)]
    return np.concatenate([tokens.read(start, each) for start in starts])
