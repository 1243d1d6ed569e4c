"""N-gram yardsticks against a model written out with dictionaries, and against known entropies."""

from __future__ import annotations

import math
from bisect import bisect
from collections import defaultdict

import numpy as np
import pytest

from yunque.data.ngrams import count, crossing, losses, yardsticks
from yunque.errors import InputError


def slow_probability(train: list[int], context: tuple[int, ...], word: int, size: int) -> float:
    """Interpolated Kneser-Ney as the paper writes it, with dictionaries."""

    def table(n: int, highest: bool) -> dict[tuple[int, ...], int]:
        if highest:
            counts: dict[tuple[int, ...], int] = defaultdict(int)
            for i in range(len(train) - n + 1):
                counts[tuple(train[i : i + n])] += 1
            return counts
        longer = {tuple(train[i : i + n + 1]) for i in range(len(train) - n)}
        counts = defaultdict(int)
        for gram in longer:
            counts[gram[1:]] += 1
        return counts

    p = 1 / size
    for n in range(1, len(context) + 2):
        counts = table(n, n == len(context) + 1)
        before = context[len(context) - n + 1 :] if n > 1 else ()
        after = {g: c for g, c in counts.items() if g[:-1] == before}
        if not after:
            continue
        once = sum(c == 1 for c in counts.values())
        twice = sum(c == 2 for c in counts.values())
        d = once / (once + 2 * twice) if once else 1e-3
        total = sum(after.values())
        p = max(0.0, after.get((*before, word), 0) - d) / total + d * len(after) / total * p
    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_equal_the_definition_and_add_up_to_one(order: int) -> None:
    random = np.random.default_rng(order)
    train = random.integers(0, 4, 60)
    held = random.integers(0, 5, 25)
    counts = count(train, 6, 4)
    got = losses(counts, held, order)
    for i in range(order, len(held)):
        context = tuple(held[i - order + 1 : i].tolist())
        p = slow_probability(train.tolist(), context, int(held[i]), 6)
        assert got[i - 1] == pytest.approx(-math.log(p), rel=1e-12)
    for start in (held[:4], np.array([5, 5, 5, 5])):
        ends = [np.append(start, word) for word in range(6)]
        assert sum(math.exp(-losses(counts, ids, order)[-1]) for ids in ends) == pytest.approx(1)


def markov(order: int, size: int, n: int, seed: int) -> tuple[np.ndarray, float]:
    """A text of a random Markov source of that order, and its entropy in nats per token."""
    random = np.random.default_rng(seed)
    table = random.dirichlet(np.full(size, 0.3), size**order)
    edges, entropies = table.cumsum(axis=1), -(table * np.log(table + 1e-300)).sum(axis=1)
    rows, known = edges.tolist(), entropies.tolist()
    ids, state, spent = [], 0, 0.0
    for draw in random.random(n).tolist():
        spent += known[state]
        ids.append(min(size - 1, bisect(rows[state], draw)))
        state = (state * size + ids[-1]) % size**order
    return np.array(ids), spent / n


@pytest.mark.parametrize("source", [0, 1, 2, 3, 4])
def test_entropy_of_a_markov_source(source: int) -> None:
    """Within 1 % from the order that knows enough on, and clearly above it below that order."""
    ids, entropy = markov(source, 4, 120_000, source)
    held = ids[100_000:]
    found = yardsticks(ids[:100_000], held, 4)
    for order in range(source + 1, 6):
        assert found[order - 1] == pytest.approx(entropy, rel=0.02)
    assert found[source] == pytest.approx(entropy, rel=0.01)
    for order in range(1, source + 1):
        assert found[order - 1] > 1.01 * entropy


def test_crossing_is_for_good() -> None:
    steps, val = [0, 10, 20, 30, 40], [4.0, 2.9, 3.1, 2.8, 2.5]
    assert crossing(steps, val, 3.0) == 30
    assert crossing(steps, val, 5.0) == 0
    assert crossing(steps, val, 2.5) is None
    assert crossing(steps, [*val[:4], math.nan], 3.0) is None


def test_what_cannot_be_counted_is_refused() -> None:
    for ids, vocabulary in (([1, 2, 3], 9), ([0, 1, 2, 3, 9], 9), ([0, 1, 2, 3, -1], 9)):
        with pytest.raises(InputError, match="n-grams: got"):
            count(np.array(ids), vocabulary)
    counts = count(np.arange(9), 9)
    with pytest.raises(InputError, match="order 6"):
        losses(counts, np.arange(9), 6)
