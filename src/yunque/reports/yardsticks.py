"""The model against its own training data: n-gram models counted on it, and text copied from it."""

from __future__ import annotations

from typing import Any

from yunque.reports.curve import Curve
from yunque.reports.findings import Finding, evidence, joined
from yunque.reports.log import Log
from yunque.words.report import tell

ORDERS = 5


def yardsticks(log: Log) -> dict[int, float]:
    """Order → validation loss of the n-gram model, where more context made it better.

    On little text the longer n-grams are worse than the shorter ones: passing them says nothing.
    """
    found: dict[int, float] = {}
    for order in range(1, ORDERS + 1):
        loss = log.start.number(f"ngram_{order}") if log.start else None
        if loss is not None and loss < min(found.values(), default=float("inf")):
            found[order] = loss
    return found


def crossing(val: Curve, yardstick: float) -> int | None:
    """Index of the evaluation from which on the loss stays below, down to its lowest; None: never.

    What overfitting takes back later does not change when it was learnt.
    """
    above = [i for i in range(val.lowest + 1) if not val.values[i] < yardstick]
    first = above[-1] + 1 if above else 0
    return first if first <= val.lowest else None


def ngram_yardstick(log: Log, val: Curve) -> Finding | None:
    """From which step on the model predicts better than a count of what follows what."""
    held, start = yardsticks(log), log.start
    if not held or start is None or not len(val.values):
        return None
    numbers: dict[str, Any] = {"tokens": start.values.get("ngram_tokens")}
    said = [tell("report.ngram_yardstick", **numbers)]
    proof = evidence((start, "ngram_tokens"))
    for order, loss in held.items():
        at = crossing(val, loss)
        row = val.rows[val.lowest if at is None else at]
        found: dict[str, Any] = {f"loss_{order}": loss}
        case = "not_yet" if at is None else "at_once" if at == 0 else "from"
        if at is None:
            found |= {"best": row.number("val_loss"), "best_step": row.step}
        else:
            found[f"step_{order}"] = row.step
        said.append(tell(f"report.ngram_yardstick.{case}_{order}", **found))
        numbers |= found
        proof += evidence((start, f"ngram_{order}"), (row, "val_loss"))
        if at is None:
            break  # The longer ones are lower still.
    advice = tell("report.ngram_yardstick.advice")
    return Finding("ngram_yardstick", "info", numbers, proof, joined(said), advice)
