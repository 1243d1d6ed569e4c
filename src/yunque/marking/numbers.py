"""Numbers as models write them → exact rational values.

Both languages' separators, currency, per cent, units, fractions, mixed numbers, powers of ten,
words and LaTeX. Values are `fractions.Fraction`, never floats. What is written like a number and
is none (a date, a time, `5x`, `2√3`) is a value without a reading: it equals nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from yunque.marking.number_words import DENOMINATORS, FRACTION_AFTER, SCALES, spoken_numbers
from yunque.marking.units import CURRENCY, MONEY, UNITS

SPACES = " \u00a0\u202f\u2009\u2007"
MAX_DIGITS = 400
"""Longer numbers and greater exponents are no answers; reading them would only take time."""

DIGITS = rf"(?:\d{{1,3}}(?:[{SPACES}]\d{{3}})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,'’_]\d+)*|\.\d+)"
NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]%.-])[-+](?:[ ](?=\d))?)?(?P<money>¤[ ]?)?(?P<after>(?<=¤)-|(?<=¤ )-)?"
    rf"(?<![\w^/])(?<![^\W\d]-)(?P<digits>{DIGITS})"
    rf"(?P<colon>:\d+(?::\d+)?)?"
    rf"(?:[eE](?P<e>[+-]?\d+)(?!\w))?"
    rf"(?:\^\(?(?P<power>-?\d+)\)?)?"
    rf"(?:[ ]?[×·*x][ ]?10\^\(?(?P<ten>-?\d+)\)?)?"
    rf"(?:(?P<mixed>[ ]+(?:(?:and|y|e)[ ]+)?)(?P<num>\d+)[ ]?/[ ]?(?P<den>\d+)"
    rf"|[ ]?/[ ]?(?P<over>{DIGITS}))?"
    rf"(?P<more>(?:/|(?<=\d)[.,'’_])\d+)?"
)
SCALE_AFTER = re.compile(
    r"(?:(?P<glued>[kK](?!\w)|[ ]?[kK](?= (?:dollars|euros|pounds)))|(?P<big>M|mn|MM|B|bn)(?!\w)|"
    r"[ -]?(?P<word>mil millones|thousand|mil|millions?|millon(?:es)?|billions?|billon(?:es)?"
    r"|trillion)(?!\w)(?:[ ]de(?!\w))?)"
)
PERCENT_AFTER = re.compile(r"[ ]?(?:%|per[ ]?cent(?!\w)|por ciento(?!\w)|pct(?!\w))")
ALGEBRA_AFTER = re.compile(
    r"[ ]?(?:[√π]|\\(?:sqrt|pi))|[xyznab](?![\w'])|\([xyzn]\b|\s*[+÷×*/^-]\s*\(?[a-z](?![\w'])"
)
OR_MORE = re.compile(r"(?: [a-z]+)? (?:or|o) (?:more|less|fewer|mas|menos)\b")
ALGEBRA_BEFORE = re.compile(
    r"(?:\b[a-z]|\))\s*[+÷×*/^]\s*\(?$|[<>≤≥±√]\s*\(?$|\b[xyzn]\s-\s$"
    r"|\\sqrt(?:\[\d\])?\s*\{?$|(?<![a-z])(?:log|ln|sin|cos|tan|sqrt|sen)\s*[({]?$"
)
UNIT_AFTER = re.compile(r"[ -]{0,2}(¤|[^\W\d_]+(?:[ ]?/[ ]?[a-zA-Z]+|\^[23])?)")
NEGATIVE_WORD = re.compile(r"(?:negative|minus|menos)[ ]$")
NOT_BEFORE = re.compile(
    r"\b(?:not|no|isn't|ni|never|nunca|(?:more|less|greater|fewer|smaller|larger) than|"
    r"mas de|menos de|(?:mayor|menor) (?:que|de))[ ]¤?$"
)
ONE_AFTER = re.compile(
    r"(?:^|[:=*(]\s*|\b(?:not|only|just|exactly|is|are|was|were|has|have|had|gets?|needs?|equals|"
    r"es|son|era|queda|quedan|solo|solamente|exactamente|tiene|tienen|necesita|necesitan|recibe|falta|sobra)\s+)$"
)
"""What stands before "one" where it is a number, not a pronoun."""
CLOCK_AFTER = re.compile(r" menos (?:cuarto|cinco|diez|veinte|veinticinco)\b(?! \w*\d)")
CLOCK_BEFORE = re.compile(r"\blas? $")
CLOCK_TO = re.compile(r"\b(?:(?:a quarter|quarter) (?:to|past)|half past) $")
"""Son las tres menos cuarto; a quarter to three."""
IN_MONEY = re.compile(r"[ ]{0,2}(?:euros?|dolares|pesos|pesetas)\b")
HALF_AN = re.compile(r"half an? |media (?:hora|docena)\b")
ONE_BEFORE = re.compile(r"[ ](?:of|by one|de|a uno)\b|\s*[^\W\d]+\s+[^\W\d]")
"""What follows "one" or "un" where it is none."""


@dataclass(frozen=True)
class Value:
    """One number in a text."""

    readings: tuple[Fraction, ...]
    """What it is; two where it is also rounded (10/3 ≈ 3.33); empty: written like a number, but
    none."""
    start: int
    end: int
    """Where it stands, unit included."""
    percent: bool = False
    unit: str = ""
    """As in `UNITS`; "" where there is none that is known."""
    weak: bool = False
    """May be no number at all (one, un)."""
    denied: bool = False
    """"not 5"."""
    decimal: Fraction | None = None
    """1.234 read as English has it, where `readings` has 1234."""
    restates: Value | None = None
    """The same in another unit just before: the 3.5 km of "3.5 km, that is, 3500 m"."""
    calculated: bool = False
    """The result of a calculation that stands before it: 3 + 2 = 5."""

    def agrees(self, other: Value) -> bool:
        """Whether both say the same."""
        return bool(self.readings) and (self.readings, self.percent) == (
            other.readings,
            other.percent,
        )


def numbers_in(text: str, convention: str = "") -> list[Value]:
    """All numbers of a plain text (see `plain`), in order; of two that overlap, the first.

    Args:
        convention: the decimal mark of the text, "" where it is not known.
    """
    folded = without_accents(text)
    found = [digits_value(text, folded, match, convention) for match in NUMBER.finditer(text)]
    taken = [(value.start, value.end) for value in found]
    for spoken in spoken_numbers(folded):
        if any(start < spoken.end and spoken.start < end for start, end in taken):
            continue
        before = folded[max(0, spoken.start - 40) : spoken.start]
        weak = spoken.weak and not FRACTION_AFTER.match(folded, spoken.end)
        alone = ONE_AFTER.search(before) and not ONE_BEFORE.match(folded, spoken.end)
        if weak and not alone and not HALF_AN.match(folded, spoken.start):
            continue
        if (
            spoken.value == 11
            and folded[spoken.start : spoken.end] == "once"
            and is_english(folded)
        ):
            continue
        value = Value((spoken.value,), spoken.start, spoken.end, weak=weak)
        found.append(with_surroundings(text, folded, value, money=False, spoken=True))
    found.sort(key=lambda value: value.start)
    kept: list[Value] = []
    for value in found:
        if not kept or value.start >= kept[-1].end:
            kept.append(value)
    return kept


def digits_value(text: str, folded: str, match: re.Match[str], convention: str) -> Value:
    """The value of a number written in digits."""
    readings = readings_of(match, text, convention)
    negative = (match["sign"] or "").startswith("-") or bool(match["after"])
    if negative:
        readings = tuple(-reading for reading in readings)
    english = readings[1] if len(readings) > 1 else None
    value = Value(readings[:1], match.start(), match.end(), decimal=english)
    return with_surroundings(text, folded, value, money=bool(match["money"]))


def readings_of(match: re.Match[str], text: str, convention: str) -> tuple[Fraction, ...]:
    """What the digits of a number may stand for."""
    digits = match["digits"]
    exponents = [int(match[name][:5]) for name in ("e", "power", "ten") if match[name]]
    if (
        match["colon"]
        or match["more"]
        or len(match.group()) > MAX_DIGITS
        or any(abs(exponent) > MAX_DIGITS for exponent in exponents)
    ):
        return ()
    pair = text[match.start() - 1 : match.start()] == "(" and text[match.end() :][:1] == ")"
    if pair and re.fullmatch(r"\d+,\d+", digits) and not re.fullmatch(r"\d{1,3},\d{3}", digits):
        return ()  # a point (3,4) or a number in brackets
    if re.fullmatch(r"\d+['’]\d\d?", digits) and IN_MONEY.match(
        without_accents(text), match.end("digits")
    ):
        digits = re.sub(r"['’]", ",", digits)  # 12'50 euros, as by hand in Spain
    found = list(decimal_readings(digits, convention))
    if match["over"]:
        below = decimal_readings(match["over"], convention)[:1]
        if not below or not below[0] or len(found) > 1:
            found = found[:1] if below and below[0] else []
        found = [reading / below[0] for reading in found]
    if match["den"]:
        denominator = int(match["den"])
        if not denominator or len(found) != 1 or found[0].denominator != 1:
            return ()
        part = Fraction(int(match["num"]), denominator)
        if part >= 1:
            return ()
        found = [found[0] + part]
    if match["e"]:
        found = [reading * Fraction(10) ** int(match["e"]) for reading in found]
    if match["power"]:
        power = int(match["power"])
        if any(not reading and power < 0 for reading in found) or abs(power) * len(digits) > 1000:
            return ()
        found = [reading**power for reading in found]
    if match["ten"]:
        found = [reading * Fraction(10) ** int(match["ten"]) for reading in found]
    return tuple(found)


def decimal_readings(digits: str, convention: str = "") -> tuple[Fraction, ...]:
    """Digits with separators → values.

    Two kinds of separators: the last one is the decimal mark. One kind: a thousands separator
    where it cuts off groups of three digits, else the decimal mark. `1.234` and `1,234` are 1234;
    1.234 is the second reading of the first of them. Where the text has a decimal mark of its own
    (`convention`), that mark decides.
    """
    digits = re.sub(rf"[{SPACES}’_]", "'", digits)
    groups, marks = re.split(r"[.,']", digits), re.findall(r"[.,']", digits)
    if not groups[0]:
        return (Fraction(f"0.{groups[1]}"),) if len(groups) == 2 else ()
    if not marks:
        return (Fraction(int(digits)),)
    if set(marks) == {","} and are_lakhs(groups):
        return (Fraction(int("".join(groups))),)
    if len(set(marks)) == 1 and are_thousands(groups):
        whole = Fraction(int("".join(groups)))
        if len(marks) > 1 or marks[0] == "'":
            return (whole,)
        with_decimals = Fraction(".".join(groups))
        if convention:
            return (with_decimals,) if marks[0] == convention else (whole,)
        return (whole, with_decimals) if marks[0] == "." else (whole,)
    if marks[-1] == "'" or marks.count(marks[-1]) > 1:
        return ()
    *front, decimals = groups
    if len(set(marks[:-1])) > 1 or (len(front) > 1 and not are_thousands(front)):
        return ()
    return (Fraction(f"{''.join(front)}.{decimals}"),)


def are_thousands(groups: Sequence[str]) -> bool:
    """Whether the groups of digits are those of a number written with thousands separators."""
    first, *rest = groups
    return len(first) <= 3 and not first.startswith("0") and all(len(g) == 3 for g in rest)


def are_lakhs(groups: Sequence[str]) -> bool:
    """Whether the groups are those of India: three digits at the end, pairs before them."""
    first, *pairs, last = groups
    return bool(pairs) and len(first) <= 2 and len(last) == 3 and all(len(p) == 2 for p in pairs)


def decimal_mark(text: str) -> str:
    """The decimal mark that a plain text uses without any doubt, "" where it shows none."""
    seen = set()
    for match in NUMBER.finditer(text):
        digits = re.sub(rf"[{SPACES}’_]", "'", match["digits"])
        groups, marks = re.split(r"[.,']", digits), re.findall(r"[.,']", digits)
        if match["colon"] or match["more"] or not marks or not groups[0]:
            continue
        if marks[-1] != "'" and marks.count(marks[-1]) == 1 and decimal_readings(digits):
            if not (len(marks) == 1 and are_thousands(groups)):
                seen.add(marks[-1])
        elif len(marks) > 1 and len(set(marks)) == 1 and are_thousands(groups):
            seen |= {"."} if marks[0] == "," else {","} if marks[0] == "." else set()
    return seen.pop() if len(seen) == 1 else ""


def with_surroundings(
    text: str, folded: str, value: Value, money: bool, spoken: bool = False
) -> Value:
    """A value with what stands around it: scale, per cent, unit, sign in words, denial."""
    end, readings, unit, percent = value.end, value.readings, "", False
    before = folded[max(0, value.start - 40) : value.start]
    scale = SCALE_AFTER.match(text if money else folded, end) or SCALE_AFTER.match(folded, end)
    if scale and scale["big"] and not money:
        scale = None  # 5 m are metres, $5M are millions
    if scale and not spoken:
        readings = tuple(reading * factor_of(scale) for reading in readings)
        end = scale.end()
    if match := FRACTION_AFTER.match(folded, end):
        part = next(group for group in match.groups() if group)
        three = part in ("three", "tres")
        added = Fraction(3, 4) if three else Fraction(1, DENOMINATORS[part])
        whole = len(readings) == 1 and readings[0].denominator == 1
        readings = (readings[0] + added,) if whole else ()
        end = match.end()
    if match := PERCENT_AFTER.match(folded, end):
        percent, end = True, match.end()
    elif (
        OR_MORE.match(folded, end)
        or (CLOCK_BEFORE.search(before) and CLOCK_AFTER.match(folded, end))
        or CLOCK_TO.search(before)
        or ALGEBRA_AFTER.match(folded, end)
        or ALGEBRA_BEFORE.search(before)
    ):
        readings = ()
    elif match := UNIT_AFTER.match(text, end):
        name = match[1]
        unit = UNITS.get(name) or UNITS.get(without_accents(name)) or ""
        if unit:
            end = match.end()
    if money and unit not in MONEY:
        unit = CURRENCY
    start = value.start
    if match := NEGATIVE_WORD.search(before):
        alone = match.group().startswith("neg") or not re.search(r"[\w)]", before[: match.start()])
        after_verb = re.search(r"\b(?:is|es|:|=)[ ]*$", before[: match.start()])
        if alone or after_verb:
            readings = tuple(-reading for reading in readings)
            start -= len(match.group())
            before = before[: match.start()]
    denied = bool(NOT_BEFORE.search(before))
    return replace(
        value,
        readings=readings,
        start=start,
        end=end,
        percent=percent,
        unit=unit,
        denied=denied,
    )


def factor_of(match: re.Match[str]) -> int:
    """What a scale after a number multiplies it by."""
    if match["glued"]:
        return 1000
    if match["big"]:
        return 10**9 if match["big"].lower() in ("b", "bn") else 10**6
    return 10**9 if match["word"] == "mil millones" else SCALES[match["word"]]


def is_english(folded: str) -> bool:
    """Whether a text has more small words of English than of Spanish."""
    words = re.findall(r"[a-z]+", folded)
    english = sum(word in ENGLISH_WORDS for word in words)
    return english > sum(word in SPANISH_WORDS for word in words)


ENGLISH_WORDS = {
    "the",
    "is",
    "of",
    "and",
    "he",
    "she",
    "it",
    "to",
    "in",
    "that",
    "was",
    "upon",
    "there",
}
SPANISH_WORDS = {"el", "la", "los", "las", "de", "es", "que", "en", "y", "son", "por", "hay"}


def without_accents(text: str) -> str:
    """Lower case without accents, character for character."""
    return "".join(
        unicodedata.normalize("NFD", c)[0] if not c.isascii() and len(c.lower()) == 1 else c
        for c in text
    ).lower()


# LaTeX, Markdown and typography → plain text

LATEX = (
    (r"<<[^<>]*>>", ""),  # the calculator's notes of GSM8K
    (r"\$\$", " "),
    (r"(?<!\\)\$(?=\S)([^$\n]{1,200}?)(?<=[^\s\\])\$(?!\d)", r" \1 "),  # $mathematics$
    (r"\\(?:left|right|big|Big|displaystyle|limits)(?![a-zA-Z])", ""),
    (r"\\[()\[\]]", " "),
    (r"\\!", ""),
    (r"\{([.,])\}", r"\1"),
    (r"(?<=\d)(?:\\[,;: ]|~)(?=\d)", "\u2009"),
    (r"\\[,;: ]|~|\\quad|\\qquad|\\\\", " "),
    (r"\\[dtc]?frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
    (r"\\(?:times|cdot)(?![a-zA-Z])", "×"),
    (r"\\div(?![a-zA-Z])", "÷"),
    (r"\\(?:approx|simeq|sim)(?![a-zA-Z])", "≈"),
    (r"\\(?:Rightarrow|implies|rightarrow|to|therefore)(?![a-zA-Z])", "⇒"),
    (r"\\pi(?![a-zA-Z])", "π"),
    (r"\\(?:pm|mp)(?![a-zA-Z])", "±"),
    (r"\^\{?\\circ\}?|\\degree", "°"),
    (r"\\(?:euro|texteuro)(?:\{\})?", "€"),
    (r"\\(?:pounds|textsterling)(?:\{\})?", "£"),
    (r"\^\{\s*(-?\d+)\s*\}", r"^\1"),
    (r"\\([%$&#_€£])", r"\1"),
)
NAMED = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|operatorname|underline)\s*\{"
)
FRACTION = re.compile(r"(-?\s*)\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
SYMBOLS = str.maketrans(
    {
        "−": "-",
        "‐": "-",
        "‑": "-",
        "⁄": "/",
        "∕": "/",
        "⋅": "·",
        "✕": "×",
        "∙": "·",
        **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060", ""),
        "％": "%",
        "＄": "$",
        "，": ",",
        "＝": "=",
        "’": "'",
    }
)
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
MONEY_SIGN = re.compile(
    r"(?:(?<![A-Za-z])(?:US|MX|AR|U\.S\.|CA|C|R|A|NZ|HK|S|COP|CLP|USD|EUR|GBP|MXN)[ ]?)?[$€£¥₹]"
    r"|(?<![A-Za-z])(?:USD|EUR|GBP|MXN)[ ]?(?=[-\d])"
)


def plain(text: str) -> str:
    """A text without LaTeX, Markdown and typography; a sign of money before a number is `¤`."""
    text = unicodedata.normalize("NFC", text).translate(SYMBOLS)
    text = re.sub(r"[¼-¾⅐-⅞]", vulgar, text)
    text = re.sub(r"[⁰¹²³⁴-⁹⁻]+", lambda m: "^" + m.group().translate(SUPERSCRIPTS), text)
    if not text.isascii():
        text = "".join(
            str(unicodedata.digit(c)) if not c.isascii() and c.isdecimal() else c for c in text
        )
    if "\\" in text or "{" in text or "<<" in text or "~" in text or text.count("$") > 1:
        for pattern, by in LATEX:
            text = re.sub(pattern, by, text)
        text = without_named(text)
        for _ in range(3):
            text = FRACTION.sub(as_division, text)
    text = re.sub(r"\*\*|__|`", "", text)
    text = re.sub(r"(?<!\S)–(?=[\d$€£])", "-", text)
    text = re.sub(r"(?<![\w*)\]])\*(?=[^\s*])([^*\n]*[^\s*])\*(?![\w*(])", r"\1", text)
    return MONEY_SIGN.sub(lambda match: money_mark(text, match), text)


def vulgar(match: re.Match[str]) -> str:
    """½ → " 1/2 ", which makes a mixed number after a whole one."""
    value = Fraction(unicodedata.numeric(match.group())).limit_denominator(100)
    return f" {value.numerator}/{value.denominator}"


def without_named(text: str) -> str:
    r"""`\text{…}` and its like → what stands in the braces."""
    while match := NAMED.search(text):
        depth, place = 1, match.end()
        while place < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            place += 1
        inner = text[match.end() : place - 1 if not depth else place]
        text = f"{text[: match.start()]}{inner}{text[place:]}"
    return text


def as_division(match: re.Match[str]) -> str:
    """One LaTeX fraction as a/b, with the space that makes a mixed number after a digit."""
    sign, above, below = match.group(1).strip(), match.group(2).strip(), match.group(3).strip()
    if not re.fullmatch(r"-?[\d.,]+", above) or not re.fullmatch(r"[\d.,]+", below):
        return f" {sign}({above})÷({below})"
    return f" {sign}{above}/{below}"


def money_mark(text: str, match: re.Match[str]) -> str:
    """`¤` where a number follows, the name of the currency where it stands after one."""
    sign = match.group()[-1]
    if re.match(r"[ ]?-?[.\d]", text[match.end() :]):
        return "¤"
    if re.search(r"\d[ \u00a0\u202f]?[kKM]?$", text[: match.start()]):
        return " " + {"$": "dollars", "€": "euros", "£": "pounds"}.get(sign, "")
    return " "
