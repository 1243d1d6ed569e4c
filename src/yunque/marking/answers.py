"""A reply and a key → right or wrong, by one of four checks.

| check  | the key is                      | a reply is right where                                |
|--------|---------------------------------|-------------------------------------------------------|
| number | one number, with or without unit | its final answer is exactly that number              |
| exact  | a text                          | it, its final answer or its last line is that text    |
| choice | the letter or text of an option | it chooses that option and no other                   |
| regex  | a regular expression of Python  | the expression is found in it, within a second        |

What two people could read in two ways, decided: "50 %" is right for the keys 50, 50 % and 0.5,
but 0.5 is wrong for the key 50. Units may be left out; two that contradict each other (5 km, 5 m)
are wrong, and nothing is converted. No tolerance: 3.33 is not 10/3. `1.234` and `1,234` are 1234
unless the reply writes other decimals with the same mark; `1.234` is also right for 1.234.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

from yunque.errors import InputError
from yunque.marking.numbers import Value, decimal_mark, plain
from yunque.marking.patterns import fits, pattern_fault
from yunque.marking.statements import (
    final_number,
    marked_statement,
    own_words,
    phrases,
    results,
    without_emphasis,
)
from yunque.marking.units import contradict

Check = Literal["number", "exact", "choice", "regex"]
CHECKS: tuple[Check, ...] = get_args(Check)

EDGES = " \t\r\n.,;:!?¡¿…\"'`“”«»*_()[]{}$"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_right(reply: str, key: str, check: Check, choices: Sequence[str] = ()) -> bool:
    """Whether the final answer of `reply` is the right one.

    Args:
        choices: the texts of the options, for the check "choice".

    Raises:
        InputError: the key cannot be checked that way (see `key_fault`).
    """
    fault = key_fault(key, check, choices)
    if fault:
        raise InputError(f"exam: {fault}")
    own = own_words(reply)
    if check == "number":
        return is_number(own, key)
    if check == "exact":
        return is_exact(own, key)
    if check == "choice":
        return chosen(own, choices) == option_of(key, choices)
    return fits(key, unicodedata.normalize("NFC", own))


def key_fault(key: str, check: Check, choices: Sequence[str] = ()) -> str:
    """Why replies cannot be held against this key, "" where they can."""
    if check == "number" and key_number(key) is None:
        return f"the right answer must be one number, got {key!r}."
    if check == "exact" and not normal(key):
        return f"the right answer must be a text, got {key!r}."
    if check == "choice":
        if not 2 <= len(choices) <= len(LETTERS):
            return f"expected 2 to {len(LETTERS)} choices, got {len(choices)}."
        if len({normal(choice) for choice in choices}) < len(choices):
            return "two choices are the same text."
        if option_of(key, choices) is None:
            letters = f"{LETTERS[0]} to {LETTERS[len(choices) - 1]}"
            return f"the right answer must be a letter, {letters}, or a choice, got {key!r}."
    return pattern_fault(key) if check == "regex" else ""


# number


@lru_cache(maxsize=4096)
def key_number(key: str) -> Value | None:
    """The number that a key is, None where it is not one number and at most a unit."""
    text = plain(key).strip()
    values = results(text, "")
    if len(values) != 1 or not values[0].readings or values[0].denied:
        return None
    outside = text[: values[0].start] + " " + text[values[0].end :]
    return values[0] if len(outside.split()) <= 4 and not re.search(r"\d", outside) else None


def is_plain_number(key: str) -> bool:
    """Whether a key is plainly a number: in digits, with no word but a unit after it.

    Also a number in words that means nothing else ("forty-two", not "once" or "one").
    """
    value = key_number(key)
    if value is None or value.weak:
        return False
    text = plain(key).strip()
    in_words = not re.search(r"\d", text)
    if in_words:
        return value.end == len(text) and value.start == 0 and text.casefold() != "once"
    before, after = text[: value.start], text[value.end :]
    return not re.search(r"\w", before) and len(after.split()) <= 1


def is_number(reply: str, key: str) -> bool:
    """Whether the final answer of a reply is the number of the key."""
    wanted = key_number(key)
    found = final_number(reply, decimal_mark(plain(reply)))
    if wanted is None or found is None:
        return False
    return agrees(wanted, found) or (found.restates is not None and agrees(wanted, found.restates))


def agrees(wanted: Value, found: Value) -> bool:
    """Whether a number of a reply is that of the key, its unit too."""
    if contradict(wanted.unit, found.unit):
        return False
    key_figure = wanted.readings[0]
    if key_figure in found.readings:
        return True
    if key_figure.denominator > 1 and found.decimal == key_figure:
        return True
    if wanted.percent and not found.percent:
        return key_figure / 100 in found.readings
    proportion = found.percent and not wanted.percent and 0 < key_figure < 1
    return proportion and any(figure / 100 == key_figure for figure in found.readings)


# exact


def normal(text: str) -> str:
    """A text without what does not tell answers apart: case, spaces, marks around it; NFC."""
    text = unicodedata.normalize("NFC", re.sub(r"\\text\{([^{}]*)\}", r"\1", text))
    return " ".join(text.casefold().split()).strip(EDGES)


def is_exact(reply: str, key: str) -> bool:
    """Whether a reply, its final answer or its last line is the text of the key."""
    wanted = normal(key)
    if normal(reply) == wanted:
        return True
    statement = stated(reply)
    if statement is not None:
        return normal(statement) == wanted
    lines = [line for line in reply.splitlines() if line.strip()]
    return bool(lines) and normal(lines[-1]) == wanted


def stated(reply: str) -> str | None:
    """What a reply says is its answer, None where it does not say."""
    marked = marked_statement(reply)
    if marked is not None:
        return marked
    found = phrases(without_emphasis(reply))
    return found[0][0] if found else None


# choice


def option_of(key: str, choices: Sequence[str]) -> int | None:
    """Which option a key names: by its text, else by its letter."""
    texts = [normal(choice) for choice in choices]
    if normal(key) in texts:
        return texts.index(normal(key))
    letter = re.fullmatch(r"[\s(]*([A-Za-z])[\s).:]*", key)
    index = LETTERS.index(letter[1].upper()) if letter else len(choices)
    return index if index < len(choices) else None


def chosen(reply: str, choices: Sequence[str]) -> int | None:
    """The one option that a reply chooses, None where it chooses none or several."""
    reply = unicodedata.normalize("NFC", reply)
    statement = stated(reply)
    lines = [line for line in reply.splitlines() if line.strip()]
    tries = [statement] if statement is not None else [*lines[:1], *lines[-1:]]
    picks = [options_in(text, choices) for text in tries if text is not None]
    made = {pick for found in picks for pick in found}
    if statement is None and not made:
        made = options_in(" ".join(lines), choices)
    return made.pop() if len(made) == 1 else None


def options_in(text: str, choices: Sequence[str]) -> set[int]:
    """All options that a line names, by letter or by text."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"\1", text)
    bare = normal(text)
    texts = [normal(choice) for choice in choices]
    if bare in texts:
        return {texts.index(bare)}
    last = LETTERS[len(choices) - 1]
    both = f"A-{last}a-{last.lower()}"
    letters = {match.upper() for match in re.findall(rf"^\W*([{both}])\W*$", text)}
    letters |= {m.upper() for m in re.findall(rf"(?<!\w)\(?([{both}])\)(?!\w)", text)}
    letters |= {
        m.upper()
        for m in re.findall(
            rf"(?:option|choice|letter|opción|letra|alternativa|inciso)\s+\W?([{both}])\b",
            text,
            re.I,
        )
    }
    letters |= set(re.findall(rf"(?<![\w'’])([B-{last}])(?![\w'’])", text))
    letters |= set(
        re.findall(r"(?<![\w'’])(A)(?=\W*$|[.:,)*]|\s+(?:is|es|because|porque|or|o)\b)", text)
    )
    denied = {
        m.upper()
        for m in re.findall(rf"\b(?:not|no|ni|nor)\s+(?:es\s+|la\s+)?\W?([{both}])\b", text)
    }
    by_text = {
        index
        for index, option in enumerate(texts)
        if option
        and re.search(rf"(?<!\w)(?<!not )(?<!no ){re.escape(option)}(?!\w)", bare)
        and not (len(option) == 1 and option.isalpha())
    }
    inside = {a for a in by_text for b in by_text if a != b and texts[a] in texts[b]}
    return {LETTERS.index(letter) for letter in letters - denied} | (by_text - inside)
