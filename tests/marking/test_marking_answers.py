"""Marking against the verdicts of a person, and against numbers written in every known way."""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest
import verdicts

from yunque.errors import InputError
from yunque.marking import patterns
from yunque.marking.answers import Check, is_right, key_fault
from yunque.marking.number_words import spoken_numbers

TABLE: list[tuple[str, str, Check, tuple[str, ...], bool]] = [
    *[(reply, key, "number", (), good) for reply, key, good in verdicts.NUMBERS],
    *[(reply, key, "number", (), good) for reply, key, good in verdicts.LATER],
    *[(reply, key, "number", (), good) for reply, key, good in verdicts.NASTY],
    *[(reply, key, "exact", (), good) for reply, key, good in verdicts.EXACT],
    *[(reply, key, "choice", options, good) for reply, key, options, good in verdicts.CHOICES],
    *[(reply, key, "regex", (), good) for reply, key, good in verdicts.PATTERNS],
]


def test_no_wrong_verdict() -> None:
    assert len({(reply, key, check) for reply, key, check, _, _ in TABLE}) == len(TABLE) >= 600
    wrong = [
        f"{check} {reply[:120]!r} for {key!r}: expected {good}"
        for reply, key, check, options, good in TABLE
        if is_right(reply, key, check, options) is not good
    ]
    assert wrong == []


ENGLISH_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen sixteen seventeen eighteen nineteen"""
ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
SPANISH_SMALL = """cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce
quince dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro
veinticinco veintiséis veintisiete veintiocho veintinueve"""
SPANISH_TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa"
SPANISH_HUNDREDS = """ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos
ochocientos novecientos"""
WAYS = (
    "{n}",
    "{n:,}",
    "${n:,}.00",
    "{dots} €",
    "{spaces} km",
    "#### {n:,}",
    "The answer is {n:,}.",
    "La respuesta es {dots}.",
    "La respuesta es **{spaces}**.",
    r"So \boxed{{{latex}}}.",
    r"$\boxed{{\${latex}}}$",
    "Primero 3 + 4 = 7.\nRespuesta final: {n} cajas",
    "3 apples and 4 pears.\n\nTherefore, there are **{n:,} pieces**.",
    "{n} / 1 = {n}",
    "<think>{other}</think>{n}",
    "#### {n}\n\nQuestion: How many?\n#### {other}",
)


@pytest.mark.parametrize("way", WAYS)
def test_the_same_number_in_every_way_of_writing(way: str) -> None:
    rng = random.Random(way)
    for _ in range(20):
        n = rng.choice((rng.randint(0, 99), rng.randint(100, 99_999), rng.randint(10**6, 10**9)))
        other = n + rng.choice((-1, 1, 10, 1000, 9 * n + 1))
        commas = f"{n:,}"
        reply = way.format(
            n=n,
            other=other,
            dots=commas.replace(",", "."),
            spaces=commas.replace(",", "\u00a0"),
            latex=commas.replace(",", "{,}"),
        )
        for key in (str(n), commas):
            assert is_right(reply, key, "number"), (reply, key)
        assert not is_right(reply, str(other), "number"), (reply, other)
        assert not is_right(reply, str(-n - 1), "number"), reply


def english(n: int) -> str:
    """A whole number below a billion in words, made here from the rules of English."""
    small, tens = ENGLISH_SMALL.split(), ENGLISH_TENS.split()
    if n < 20:
        return small[n]
    if n < 100:
        return tens[n // 10 - 2] + (f"-{small[n % 10]}" if n % 10 else "")
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            link = " and " if size == 100 else " "
            return f"{english(n // size)} {name}" + (f"{link}{english(rest)}" if rest else "")
    raise AssertionError(n)


def spanish(n: int, before_noun: bool = False) -> str:
    """A whole number below a billion in words, made here from the rules of Spanish."""
    small, tens, hundreds = map(str.split, (SPANISH_SMALL, SPANISH_TENS, SPANISH_HUNDREDS))
    if n < 30:
        text = small[n]
    elif n < 100:
        text = tens[n // 10 - 3] + (f" y {small[n % 10]}" if n % 10 else "")
    elif n < 1000:
        head = "cien" if n == 100 else hundreds[n // 100 - 1]
        text = head + (f" {spanish(n % 100)}" if n % 100 else "")
    elif n < 10**6:
        head = "mil" if n < 2000 else f"{spanish(n // 1000, True)} mil"
        text = head + (f" {spanish(n % 1000)}" if n % 1000 else "")
    else:
        head = "un millón" if n < 2 * 10**6 else f"{spanish(n // 10**6, True)} millones"
        text = head + (f" {spanish(n % 10**6)}" if n % 10**6 else "")
    if before_noun and text.endswith("veintiuno"):
        return text.removesuffix("uno") + "ún"
    return text.removesuffix("o") if before_noun and text.endswith(" uno") else text


def test_every_number_in_words() -> None:
    rng = random.Random(5)
    numbers = [*range(1200), *(rng.randrange(1200, 10**9) for _ in range(400))]
    for n in numbers:
        for words in (english(n), spanish(n)):
            bare = words.translate(str.maketrans("áéíóú", "aeiou"))
            (found,) = spoken_numbers(bare)
            assert (found.value, found.end) == (Fraction(n), len(bare)), words
        if n % 37 == 0:
            assert is_right(f"The answer is {english(n)}.", str(n), "number")
            assert is_right(f"La respuesta es {spanish(n)}.", str(n), "number")
            assert not is_right(f"La respuesta es {spanish(n)}.", str(n + 1), "number")


def test_values_are_exact() -> None:
    for digits in (1, 5, 15, 17, 30, 100):
        key = "0." + "3" * digits
        assert is_right(f"#### {key}", key, "number")
        assert not is_right(f"#### {key}3", key, "number")
        assert not is_right(f"#### {key}", "1/3", "number")


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="must be one number, got 'many'"):
        is_right("5", "many", "number")
    with pytest.raises(InputError, match="must be one number, got '5 or 6'"):
        is_right("5", "5 or 6", "number")
    with pytest.raises(InputError, match="a letter, A to B, or a choice, got 'C'"):
        is_right("5", "C", "choice", ("x", "y"))
    with pytest.raises(InputError, match="no regular expression"):
        is_right("5", "(", "regex")


@pytest.mark.parametrize(
    "junk",
    [
        "1 " * 2000,
        "1," * 2000,
        "(" * 3000,
        "\\boxed{" * 500,
        "$" * 2001,
        "**" * 1500,
        "#### " * 900,
        "the answer is " * 300,
        "one hundred " * 400,
        "a" * 5000,
        "1/" * 1500,
        "= " * 2000,
        "<<" * 900,
    ],
)
def test_junk_is_marked_soon_and_never_right(junk: str) -> None:
    assert not is_right(junk, "123456", "number")
    assert not is_right(junk, "123456", "exact")
    assert not is_right(junk, "B", "choice", ("Oslo", "Rome"))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(x+x+)+y", r"(\d+,?)*;", "((ab)*)*c"])
def test_an_expression_that_takes_for_ever_is_refused(pattern: str) -> None:
    assert "Write it without a repetition inside a repetition" in key_fault(pattern, "regex")


def test_a_reply_that_an_expression_is_not_done_with_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = time.monotonic()
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    assert not patterns.fits("(a+)+$", "a" * 40 + "b")
    assert time.monotonic() - began < 5
    assert patterns.fits("(a+)+$", "baaa")  # the next one is searched for again
    assert is_right("2024 euros\u2028", r"\d+\.?\d* euros", "regex")
    assert not is_right("7" * 300, r"\d+\.?\d* euros", "regex")
