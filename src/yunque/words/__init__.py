"""What Yunque says to its user: every sentence in English and Spanish, side by side.

One module a room; each holds `WORDS: dict[key, (english, spanish)]` with keys `room.sentence`.
Both sentences use the same placeholders (`str.format`); a test holds them to it.
Standard library only, so that every room may speak.
"""

from __future__ import annotations

import importlib
import locale
import os
from functools import cache
from typing import Any

LANGUAGES = ("en", "es")
ROOMS = ("cli", "data", "demo", "doctor", "exam", "explain", "ledger", "report", "screen")


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
    return table(room)[key][LANGUAGES.index(lang)].format(**numbers)


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
