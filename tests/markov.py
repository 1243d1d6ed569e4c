"""Markov sources of known order, and what each length of context can know of them."""

from __future__ import annotations

from bisect import bisect

import numpy as np


def source(order: int, size: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(p(next | the last `order` tokens), (size**order, size); n tokens drawn from it)."""
    random = np.random.default_rng(seed)
    table = random.dirichlet(np.full(size, 0.3), size**order)
    rows = table.cumsum(axis=1).tolist()
    ids, state = [], 0
    for draw in random.random(n).tolist():
        ids.append(min(size - 1, bisect(rows[state], draw)))
        state = (state * size + ids[-1]) % size**order
    return table, np.array(ids)


def conditional_entropies(table: np.ndarray, order: int, size: int) -> list[float]:
    """Entropy of a token given the 0, 1, … `order` tokens before it, nats.

    From the stationary distribution of the last `order` tokens, which power iteration finds.
    """
    share = np.full(size**order, 1 / size**order)
    for _ in range(3000):
        joint = share[:, None] * table  # (contexts, next)
        # The next context forgets the first token of this one and ends in the new token.
        after = joint.reshape(size, -1).sum(0) if order else joint.sum(1)
        share = 0.5 * share + 0.5 * after
    joint = (share[:, None] * table).reshape([size] * (order + 1))
    found = []
    for known in range(order + 1):
        part = joint.sum(axis=tuple(range(order - known)))
        before = part.sum(axis=-1, keepdims=True)
        given = part / np.maximum(before, 1e-300)
        found.append(float(-(part * np.log(np.maximum(given, 1e-300))).sum()))
    return found
