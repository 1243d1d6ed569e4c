"""A loss curve in characters: training as a braille line, validation as the letter o on it.

The two differ in form as well as in colour. A braille character is a cell of 2 x 4 dots.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Points = Sequence[tuple[float, float]]
Cell = tuple[str, str]
"""A character and what it belongs to: "train", "val" or ""."""

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
FALL_FRACTION = 0.03


def limits(train: Points, val: Points) -> tuple[float, float]:
    """Lowest and highest value of the vertical axis.

    The first 3 % of the steps do not set the top: an untrained model's loss would press the rest
    of the curve flat. What lies above the top is drawn on the top row.
    """
    points = [*train, *val]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    begin = first + FALL_FRACTION * (last - first)
    low = min(y for _, y in points)
    high = max((y for x, y in points if x > begin), default=low)
    if high <= low:
        high = max(y for _, y in points)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw(train: Points, val: Points, columns: int, rows: int) -> list[list[Cell]]:
    """The curve as `rows` lists of `columns` cells, the top row first.

    Args:
        train, val: points (step, loss), at least one of both together, steps ascending.
    """
    low, high = limits(train, val)
    steps = [x for x, _ in [*train, *val]]
    first, span = min(steps), max(steps) - min(steps) or 1.0

    def place(step: float, cells: int) -> int:
        return min(cells - 1, int((step - first) / span * cells))

    def level(loss: float, cells: int) -> int:
        from_top = (high - min(max(loss, low), high)) / (high - low)
        return min(cells - 1, int(from_top * cells))

    bits = [[0] * columns for _ in range(rows)]
    previous: int | None = None
    for x, y in enumerate(_spread([(place(s, 2 * columns), v) for s, v in train], 2 * columns)):
        if y is None:
            continue
        dot = level(y, 4 * rows)
        start = dot if previous is None else previous + (dot > previous) - (dot < previous)
        for d in range(min(start, dot), max(start, dot) + 1):
            bits[d // 4][x // 2] |= DOTS[x % 2][d % 4]
        previous = dot
    cells: list[list[Cell]] = [
        [(chr(0x2800 + b), "train") if b else (" ", "") for b in line] for line in bits
    ]
    for step, loss in val:
        cells[level(loss, rows)][place(step, columns)] = ("o", "val")
    return cells


def _spread(points: Sequence[tuple[int, float]], columns: int) -> list[float | None]:
    """One value a column: the mean of its points; between columns that have some, a line."""
    sums: dict[int, list[float]] = {}
    for x, y in points:
        sums.setdefault(x, []).append(y)
    known = [(x, sum(v) / len(v)) for x, v in sorted(sums.items())]
    values: list[float | None] = [None] * columns
    for x, y in known:
        values[x] = y
    for (x0, y0), (x1, y1) in pairwise(known):
        for x in range(x0 + 1, x1):
            values[x] = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return values
