"""What Yunque says to its user: every sentence in English and Spanish, side by side.

One module a room; each holds `WORDS: dict[key, (english, spanish)]` with keys `room.sentence`.
Both sentences use the same placeholders; a test holds them to it. They are those of `str.format`,
with some manners of our own: `{count:,}`, `{share:.1f}` and `{rate:g}` are written as the language
writes numbers, `{count:~}` with three digits that count, and `{count:|record|records}` picks a
form by the number.
Standard library only, so that every room may speak.
"""

from __future__ import annotations

import importlib
import locale
import os
import re
import string
from functools import cache
from typing import Any

from yunque.words.writing import about, number

LANGUAGES = ("en", "es")
ROOMS = (
    "chat",
    "cli",
    "compare",
    "data",
    "demo",
    "doctor",
    "exam",
    "explain",
    "export",
    "ledger",
    "plan",
    "report",
    "screen",
)


NUMBER = re.compile(r",|,?\.(\d)f")


class Sentence(string.Formatter):
    """Fills the placeholders of a sentence in one language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.startswith("|"):
            one, many = format_spec[1:].split("|")
            return one if value == 1 else many
        if format_spec == "~":
            return about(value, self.lang)
        if format_spec == "g":
            return f"{value:g}".replace(".", "." if self.lang == "en" else ",")
        as_number = NUMBER.fullmatch(format_spec)
        if as_number:
            return number(value, self.lang, int(as_number[1] or 0))
        return str(super().format_field(value, format_spec))


@cache
def table(room: str) -> dict[str, tuple[str, str]]:
    """All sentences of one room; loaded when first spoken."""
    words: dict[str, tuple[str, str]] = importlib.import_module(f"yunque.words.{room}").WORDS
    return words


def say(key: str, lang: str, **numbers: Any) -> str:
    """The sentence `key` ("room.sentence") in `lang`, its placeholders filled.

    Raises:
        KeyError: no such sentence (our own fault).
        ValueError: no such language.
    """
    room = key.partition(".")[0]
    return Sentence(lang).format(table(room)[key][LANGUAGES.index(lang)], **numbers)


def both(key: str, **numbers: Any) -> dict[str, str]:
    """The sentence in every language: `{"en": …, "es": …}`."""
    return {lang: say(key, lang, **numbers) for lang in LANGUAGES}


def user_language() -> str:
    """The user's language by the locale, "en" where it is neither Spanish nor English."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            return "es" if value.lower().startswith("es") else "en"
    return "es" if (locale.getlocale()[0] or "").lower().startswith("es") else "en"
