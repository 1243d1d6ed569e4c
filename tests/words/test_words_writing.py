"""Numbers, durations and foreign text as a reader sees them."""

from __future__ import annotations

import math
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yunque.words import say
from yunque.words import writing as w

NB = "\u00a0"


@pytest.mark.parametrize(
    ("value", "places", "english", "spanish"),
    [
        (0, 0, "0", "0"),
        (8123.4, 0, "8,123", "8123"),
        (12345.678, 1, "12,345.7", f"12{NB}345,7"),
        (124439808, 0, "124,439,808", f"124{NB}439{NB}808"),
        (-1234.5, 1, "−1,234.5", "−1234,5"),
        (-12345, 0, "−12,345", f"−12{NB}345"),
        (2.1044, 3, "2.104", "2,104"),
        (None, 3, "-", "-"),
        (math.nan, 3, "nan", "nan"),
        (math.inf, 0, "inf", "inf"),
    ],
)
def test_numbers_are_written_in_both_languages(
    value: float | None, places: int, english: str, spanish: str
) -> None:
    assert w.number(value, "en", places) == english
    assert w.number(value, "es", places) == spanish


@given(st.floats(-1e12, 1e12), st.integers(0, 4))
def test_both_languages_say_the_same_number(value: float, places: int) -> None:
    english = w.number(value, "en", places).replace(",", "")
    spanish = w.number(value, "es", places).replace(NB, "").replace(",", ".")
    assert english == spanish == f"{value:.{places}f}".replace("-", w.MINUS)


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (0, "0 s", "0s"),
        (59.4, "59 s", "59s"),
        (59.6, "1 min 0 s", "1m 0s"),
        (192, "3 min 12 s", "3m 12s"),
        (3600 * 5 + 59 * 60 + 59, "5 h 59 min", "5h 59m"),
        (86400 * 2 + 3600 * 3, "2 d 3 h", "2d 3h"),
        (-5, "0 s", "0s"),
        (None, "-", "-"),
        (math.inf, "-", "-"),
    ],
)
def test_durations(seconds: float | None, long: str, short: str) -> None:
    assert w.duration(seconds) == long
    assert w.duration(seconds, short=True) == short


def test_percent_never_rounds_to_a_false_none_or_all() -> None:
    assert w.percent(0.123456, "en", 2) == "12.35%"
    assert w.percent(0.123456, "es", 2) == f"12,35{NB}%"
    assert w.percent(0.00001, "en", 1) == "<0.1%"
    assert w.percent(0.99999, "es", 1) == f">99,9{NB}%"
    assert (w.percent(0, "en"), w.percent(1, "en"), w.percent(None, "en")) == ("0%", "100%", "-")


def test_perplexity_is_the_exponential_and_does_not_overflow() -> None:
    assert w.perplexity(2.104, "en") == "8.2"
    assert w.perplexity(10.988, "en") == "59,160"  # exp(10.988) = 59,159.9
    assert w.perplexity(1e6, "en") == "inf"
    assert w.perplexity(None, "es") == "-"


def test_small_units() -> None:
    assert w.scientific(9.8e-4, "en") == "9.8e-04"
    assert w.scientific(9.8e-4, "es") == "9,8e-04"
    assert w.gigabytes(1.94e9, "es") == "1,9 GB"
    assert w.gigabytes(310_400_000, "es") == "310 MB"
    assert w.gigabytes(45_300_000, "en") == "45 MB"


def test_foreign_text_is_disarmed_and_readable() -> None:
    assert w.visible("a\x1b[31mb\x07\x7f") == "a␛[31mb␇␡"
    assert w.visible("x\u202ey\u2066z\u200f") == "x\ufffdy\ufffdz\ufffd"
    assert w.visible("one\r\ntwo\rthree\n") == "one↵two␍three↵"
    assert w.visible("one\r\ntwo", newlines=True) == "one\ntwo"
    assert w.visible("niño 👩\u200d🏫 \ud800 \x9b") == "niño 👩\u200d🏫 \ufffd \ufffd"
    assert w.marked(" a\tb\n") == "·a→b↵"
    assert w.painted_text(" a\tb\n") == " a→b↵\n"


@given(st.text())
def test_no_text_keeps_a_character_that_steers(text: str) -> None:
    shown = w.visible(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in shown)
    assert w.visible(shown) == shown


@pytest.mark.parametrize(
    ("value", "english", "spanish"),
    [
        (1399024282, "1,400,000,000", f"1{NB}400{NB}000{NB}000"),
        (27980485641, "28,000,000,000", f"28{NB}000{NB}000{NB}000"),
        (99950, "100,000", f"100{NB}000"),
        (812, "812", "812"),
        (0, "0", "0"),
    ],
)
def test_about_how_many(value: int, english: str, spanish: str) -> None:
    assert (w.about(value, "en"), w.about(value, "es")) == (english, spanish)


def test_a_rate_has_a_decimal_comma_in_spanish() -> None:
    told = {lang: say("plan.doubt_rate_high", lang, rate=0.5, bound=0.01) for lang in ("en", "es")}
    assert "0.5" in told["en"]
    assert "0,5" in told["es"]
    assert "(0,01)" in told["es"]
