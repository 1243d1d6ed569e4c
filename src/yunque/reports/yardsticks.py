"""The model against its own training data: n-gram models counted on it, and text copied from it."""

from __future__ import annotations

import math
from typing import Any

from yunque.reports.curve import Curve
from yunque.reports.findings import Finding, evidence, joined, make
from yunque.reports.log import Log, whole
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


def below_counting(log: Log, val: Curve) -> int | None:
    """The order of the count that the model never beat: 1, how often each token occurs, or 2, which
    token follows which; None where it beat both, or there are none."""
    if not len(val.values):
        return None
    held = yardsticks(log)
    return next((n for n in (1, 2) if n in held and crossing(val, held[n]) is None), None)


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


COPIED = (
    "copied_tokens",
    "copied_of",
    "copied_samples",
    "samples",
    "copied_longest",
    "copied_longest_step",
    "copied_shortest",
    "copied_searched",
)
CHANCE = (
    "held_out_copied_tokens",
    "held_out_of",
    "held_out_copied_pieces",
    "held_out_pieces",
    "held_out_longest",
)
SURE = 0.01
"""Level of the test that the samples copy more than held-out text does."""


def copied_text(log: Log) -> Finding | None:
    """How much of the samples stands word for word in the training data, against chance.

    Chance is what held-out text does. A warning where more samples than pieces of it hold a copy.
    """
    stop = log.stop
    found = {} if stop is None else {n: whole(stop.values.get(n)) for n in (*COPIED, *CHANCE)}
    if stop is None or any(found[name] is None for name in COPIED) or not found["copied_of"]:
        return None
    ours = {name: found[name] or 0 for name in COPIED}
    ours["copied_of"] = max(1, ours["copied_of"])
    held = {name: found[name] or 0 for name in CHANCE}
    known = all(found[name] is not None for name in CHANCE) and held["held_out_of"] > 0
    numbers: dict[str, Any] = {**ours, "part": ours["copied_tokens"] / ours["copied_of"]}
    case, severity = ("some" if ours["copied_tokens"] else "none"), "info"
    also = ""
    if known:
        numbers |= {**held, "held_out_part": held["held_out_copied_tokens"] / held["held_out_of"]}
        also = "report.copied_text.chance"
        p = more_often(
            ours["copied_samples"],
            ours["samples"],
            held["held_out_copied_pieces"],
            held["held_out_pieces"],
        )
        if p < SURE and numbers["part"] > numbers["held_out_part"]:
            case, severity = "more", "warning"
            numbers["p_value"] = p
    proof = evidence(*[(stop, name) for name in (*COPIED[:6], *(CHANCE if known else ()))])
    return make("copied_text", severity, proof, case=case, also=also, **numbers)


def more_often(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """p of at least so many hits among `of`, were all alike (Fisher's exact test, one-sided)."""
    all_hits, everything = hits + other_hits, of + other_of
    ways = math.comb(everything, of)
    most = min(of, all_hits)
    return sum(
        math.comb(all_hits, k) * math.comb(everything - all_hits, of - k) / ways
        for k in range(hits, most + 1)
    )
