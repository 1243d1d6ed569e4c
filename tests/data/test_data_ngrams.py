"""N-gram yardsticks against a model written out with dictionaries, and against known entropies."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from markov import source
from token_files import write_split

from yunque.data.ngrams import count, distinct, losses, of_splits, stretches
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


@pytest.mark.parametrize("order", range(5))
def test_entropy_of_a_markov_source(order: int) -> None:
    """Within 1 % of the text's own surprise, and clearly above it with too little context."""
    table, ids = source(order, 4, 120_000, order)
    counts = count(ids[:100_000], 4)
    held = ids[100_000:]
    found = [float(losses(counts, held, n).mean()) for n in range(1, 6)]
    surprise = []
    for i in range(order, len(held)):
        state = 0
        for token in held[i - order : i]:
            state = state * 4 + int(token)
        surprise.append(-math.log(table[state, held[i]]))
    entropy = float(np.mean(surprise))
    assert found[order] == pytest.approx(entropy, rel=0.01)
    for longer in range(order + 1, 5):
        assert found[longer] == pytest.approx(entropy, rel=0.02)
    for shorter in range(order):
        assert found[shorter] > 1.01 * entropy


def test_prepared_data_carry_their_yardsticks(tmp_path: Path) -> None:
    """What stands in the facts is what counting the two token files says, masked ones left out."""
    random = np.random.default_rng(1)
    train = write_split(tmp_path, random.integers(0, 5, 500), None, None)
    ids, mask = random.integers(0, 5, 100), random.integers(0, 2, 100)
    val = write_split(tmp_path, ids, mask, None, "val")
    found = of_splits({"train": train, "val": val}, 5)
    assert found is not None
    counts = count(train.read(0, 500), 5)
    wanted = [losses(counts, ids, n)[mask[1:] > 0].mean() for n in range(1, 6)]
    assert found["losses"] == pytest.approx(wanted, rel=1e-12)
    assert (found["train_tokens"], found["val_tokens"]) == (500, int(mask[1:].sum()))
    assert of_splits({"train": train}, 5) is None
    nothing = write_split(tmp_path, ids, [0] * 100, None, "test")
    assert of_splits({"train": train, "val": nothing}, 5) is None


def test_a_long_text_is_read_in_even_stretches(tmp_path: Path) -> None:
    tokens = write_split(tmp_path, range(64_000), None, None)
    found = stretches(tokens, 6_400)
    whole = np.arange(64_000).reshape(64, 1000)
    assert found.reshape(64, 100).tolist() == whole[:, :100].tolist()
    assert stretches(tokens, 64_000).tolist() == list(range(64_000))


def test_what_cannot_be_counted_is_refused() -> None:
    for ids, vocabulary in (([1, 2, 3], 9), ([0, 1, 2, 3, 9], 9), ([0, 1, 2, 3, -1], 9)):
        with pytest.raises(InputError, match="n-grams: got"):
            count(np.array(ids), vocabulary)
    counts = count(np.arange(9), 9)
    with pytest.raises(InputError, match="order 6"):
        losses(counts, np.arange(9), 6)


def test_distinct_values_are_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    for size, most in ((1, 1), (7, 3), (5000, 40), (5000, 1 << 40)):
        values = rng.integers(0, most, size)
        expected = np.unique(values, return_index=True, return_inverse=True, return_counts=True)
        for found, wanted in zip(distinct(values), expected, strict=True):
            assert found.tolist() == wanted.tolist()
