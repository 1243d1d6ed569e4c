"""Words for numbers in English and Spanish → whole numbers and fractions, from zero to billions.

Spanish `billón` is 10^12 and English `billion` 10^9. Accents do not matter here: the text is
given without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

TO_NINETEEN = """zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen sixteen seventeen eighteen nineteen"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
TO_TWENTY_NINE = """cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece
catorce quince dieciseis diecisiete dieciocho diecinueve veinte veintiuno veintidos veintitres
veinticuatro veinticinco veintiseis veintisiete veintiocho veintinueve"""
DECENAS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa"
CENTENAS = "doscient trescient cuatrocient quinient seiscient setecient ochocient novecient"

ENGLISH: Mapping[str, int] = {
    **{word: value for value, word in enumerate(TO_NINETEEN.split())},
    **{word: 10 * tens for tens, word in enumerate(TENS.split(), 2)},
}
SPANISH: Mapping[str, int] = {
    **{word: value for value, word in enumerate(TO_TWENTY_NINE.split())},
    **{word: 10 * tens for tens, word in enumerate(DECENAS.split(), 3)},
    "un": 1,
    "una": 1,
    "veintiun": 21,
    "veintiuna": 21,
}
SPANISH_HUNDREDS: Mapping[str, int] = {
    "cien": 100,
    "ciento": 100,
    **{stem + "os": 100 * times for times, stem in enumerate(CENTENAS.split(), 2)},
    **{stem + "as": 100 * times for times, stem in enumerate(CENTENAS.split(), 2)},
}
SCALES: Mapping[str, int] = {
    "thousand": 10**3,
    "mil": 10**3,
    "million": 10**6,
    "millions": 10**6,
    "millon": 10**6,
    "millones": 10**6,
    "billion": 10**9,
    "billions": 10**9,
    "billon": 10**12,
    "billones": 10**12,
    "trillion": 10**12,
}
SPANISH_SCALES = {"mil", "millon", "millones", "billon", "billones"}
DENOMINATORS: Mapping[str, int] = {
    "half": 2,
    "halves": 2,
    "medio": 2,
    "medios": 2,
    "media": 2,
    "third": 3,
    "thirds": 3,
    "tercio": 3,
    "tercios": 3,
    "quarter": 4,
    "quarters": 4,
    "fourths": 4,
    "cuarto": 4,
    "cuartos": 4,
    "fifths": 5,
    "quintos": 5,
    "quinto": 5,
    "sixths": 6,
    "sextos": 6,
    "eighths": 8,
    "octavos": 8,
    "tenths": 10,
    "decimos": 10,
}
"""No singular that is also an ordinal (the fifth day), except after "one" or "a"."""

DECIMAL = {"point": ENGLISH, "coma": SPANISH}
DOZEN = re.compile(r"(half an? |media |an? |una )?(?:dozen|docena)\b( and an? half\b| y media\b)?")
"""Half a dozen, a dozen, a dozen and a half; three dozen stay three of a unit."""

HALF = {"half", "medio", "media"}
ARTICLES = {"a", "one", "un", "una", "uno"}
NAMES = {*ENGLISH, *SPANISH, *SPANISH_HUNDREDS, *SCALES, "hundred"}
WORD = re.compile(r"[a-z]+")
GAP = re.compile(r"[ \t\u00a0]+|-")
FRACTION_AFTER = re.compile(
    r"(?: [a-z]{2,12})? (?:and (?:a|one) (half|quarter|third)|and (three) quarters|"
    r"y (media|medio|cuarto|tercio)|y (tres) cuartos)\b"
)
"""What may follow a number and its unit: "2 hours and a half", "3 kilos y medio"."""


@dataclass(frozen=True)
class Spoken:
    """A number in words; `weak`: "one" or "un", which may be no number at all."""

    value: Fraction
    start: int
    end: int
    weak: bool = False


HALF_MORE = re.compile(r"an? [a-z]{3,10} and (?:a|one) (half|quarter|third)\b")
"""An hour and a half."""


def spoken_numbers(text: str) -> list[Spoken]:
    """All numbers in words, in order.

    Args:
        text: lower case, without accents.
    """
    found: list[Spoken] = []
    place = 0
    while match := WORD.search(text, place):
        place = match.end()
        if match.start() and (text[match.start() - 1].isalnum() or text[match.start() - 1] == "\\"):
            continue
        if more := HALF_MORE.match(text, match.start()):
            value = 1 + Fraction(1, DENOMINATORS[more[1]])
            found.append(Spoken(value, more.start(), more.end()))
            place = more.end()
            continue
        if (dozen := DOZEN.match(text, match.start())) and dozen[1]:
            eggs = 6 if dozen[1] in ("half a ", "half an ", "media ") else 12
            found.append(Spoken(Fraction(eggs + 6 * bool(dozen[2])), dozen.start(), dozen.end()))
            place = dozen.end()
            continue
        if not is_start(text, match):
            continue
        number = spoken_at(text, match.start())
        if number is not None:
            found.append(number)
            place = number.end
    return found


def is_start(text: str, match: re.Match[str]) -> bool:
    """Whether a number in words can begin here."""
    word = match.group()
    if word == "a":
        following = WORD.match(text, match.end() + 1)
        return following is not None and following.group() in (
            "hundred",
            "thousand",
            "million",
            "billion",
            "half",
            "third",
            "quarter",
        )
    return word in HALF or (word in NAMES and word not in ("hundred", "thousand"))


def spoken_at(text: str, start: int) -> Spoken | None:
    """The longest number in words that begins at `start`."""
    words: list[tuple[str, int, str]] = []  # word, where it ends, what stands before it
    place, before = start, ""
    while match := WORD.match(text, place):
        words.append((match.group(), match.end(), before))
        gap = GAP.match(text, match.end())
        if gap is None or len(words) > 40:
            break
        place, before = gap.end(), gap.group()
    if words[0][0] in HALF:
        return Spoken(Fraction(1, 2), start, words[0][1], weak=True)
    value, used = whole(words)
    if not used:
        if words[0][0] == "a" and len(words) > 1 and words[1][0] in DENOMINATORS:
            return Spoken(Fraction(1, DENOMINATORS[words[1][0]]), start, words[1][1], weak=True)
        return None
    end = words[used - 1][1]
    if used + 1 < len(words) and words[used][0] in DECIMAL:
        decimals, taken = spoken_decimals(words[used][0], words[used + 1 :])
        if taken:
            return Spoken(Fraction(f"{value}.{decimals}"), start, words[used + taken][1])
    if used < len(words) and value and (words[used][0] in DENOMINATORS):
        ending = words[used][0]
        plural = ending.endswith("s")
        if (value > 1) == plural:
            return Spoken(Fraction(value, DENOMINATORS[ending]), start, words[used][1])
    weak = used == 1 and words[0][0] in ARTICLES
    return Spoken(Fraction(value), start, end, weak)


def spoken_decimals(mark: str, words: list[tuple[str, int, str]]) -> tuple[str, int]:
    """(the decimals that follow "point" or "coma", how many words they take).

    Digit by digit in both languages; in Spanish also as a number: coma veinticinco.
    """
    digits, taken, table = "", 0, DECIMAL[mark]
    while taken < len(words) and table.get(words[taken][0], 10) < 10:
        digits += str(table[words[taken][0]])
        taken += 1
    if mark == "coma" and taken < len(words) and not digits.strip("0"):
        value, used = whole(words[taken:])
        if 10 <= value < 1000:
            return f"{digits}{value}", taken + used
    return digits, taken


def whole(words: list[tuple[str, int, str]]) -> tuple[int, int]:
    """(the whole number at the beginning of `words`, how many of them it takes)."""
    spanish = words[0][0] in SPANISH or words[0][0] in SPANISH_HUNDREDS or words[0][0] == "mil"
    total = group = used = 0
    room, scale_room = 1000, 10**15  # what comes next must be smaller
    began = False
    index = 0
    while index < len(words):
        word, _, before = words[index]
        joined = False
        if began and word == ("y" if spanish else "and") and index + 1 < len(words):
            joined = True
            index += 1
            word = words[index][0]
            previous = words[index - 2][0]
            if spanish and not (room == 10 and 1 <= SPANISH.get(word, 0) <= 9):
                break
            if not spanish and previous not in ("hundred", "thousand", "million", "billion"):
                break
        table = SPANISH if spanish else ENGLISH
        if word in table:
            value = table[word]
            fits = not began if value == 0 else value < 10 <= room or value < 100 <= room
            if spanish and room == 10 and not joined:
                fits = False  # treinta cinco are two numbers
            if began and before == "-" and room != 10:
                fits = False  # five-six
            if not fits:
                break
            group += value
            tens = value >= 20 and value % 10 == 0 and not (spanish and value == 20)
            room = 10 if tens else 1
        elif spanish and word in SPANISH_HUNDREDS and room >= 1000 and not joined:
            group += SPANISH_HUNDREDS[word]
            room = 1 if word == "cien" else 100
        elif word == "a" and not began and not spanish:
            group, room = 1, 1
        elif word == "hundred" and not spanish and 0 < group < 100 and not joined:
            group, room = group * 100, 100
        elif word in SCALES and not joined and (word in SPANISH_SCALES) == spanish:
            scale = SCALES[word]
            if spanish and scale > 1000 and total % 10**6 and total < 10**6:
                group, total = total + group, 0  # dos mil quinientos millones
                scale_room = 10**15
            if scale >= scale_room or (not group and word != "mil"):
                break
            total += (group or 1) * scale
            group, room, scale_room = 0, 1000, scale
        else:
            break
        began = True
        index += 1
        used = index
    if not spanish and words[0][0] == "a" and used == 1:
        return 0, 0
    return total + group, used
