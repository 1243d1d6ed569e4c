"""Marking against the verdicts of a person, and what must never be marked right."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import verdicts

from yunque.errors import InputError
from yunque.marking.answers import Check, is_right

TABLE: list[tuple[str, str, Check, tuple[str, ...], bool]] = [
    *[(reply, key, "number", (), good) for reply, key, good in verdicts.NUMBERS],
    *[(reply, key, "exact", (), good) for reply, key, good in verdicts.EXACT],
    *[(reply, key, "choice", options, good) for reply, key, options, good in verdicts.CHOICES],
    *[(reply, key, "regex", (), good) for reply, key, good in verdicts.PATTERNS],
]


def test_no_wrong_verdict() -> None:
    assert len({(reply, key, check) for reply, key, check, _, _ in TABLE}) == len(TABLE) >= 300
    wrong = [
        f"{check} {reply[:120]!r} for {key!r}: expected {good}"
        for reply, key, check, options, good in TABLE
        if is_right(reply, key, check, options) is not good
    ]
    assert wrong == []
