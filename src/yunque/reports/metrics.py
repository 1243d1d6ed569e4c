"""Measures of what was held out that are no loss: which way is better, and which one to tell of."""

from __future__ import annotations

import re

from yunque.reports.curve import Curve, curve
from yunque.reports.log import Log
from yunque.reports.names import words_of

HIGHER = re.compile(r"accurac(y|ies)|acc\d*|f1|rouge\w*|s?bleu\d*|exact|em|score|chrf\w*|meteor")
LOWER = ("wer", "cer", "error")


def higher_is_better(name: str) -> bool | None:
    """Which way a measure of this name gets better; None where the name does not tell."""
    words = words_of(name)
    if any(HIGHER.fullmatch(word) for word in words):
        return True
    return False if set(words) & set(LOWER) else None


def held_out_measure(log: Log) -> tuple[Curve, bool] | None:
    """(the measure that most evaluations name, the first by name; whether higher is better)."""
    names = sorted({name for row in log.evals for name in row.values})
    known = [(name, up) for name in names if (up := higher_is_better(name)) is not None]
    found = [(curve(log.evals, name), up) for name, up in known]
    return max(
        (one for one in found if len(one[0].values)),
        key=lambda one: len(one[0].values),
        default=None,
    )
