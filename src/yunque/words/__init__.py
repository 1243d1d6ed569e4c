"""What Yunque says to its user, in Spanish and in English, from one table a language.

`en.py` and `es.py` hold the same keys with the same placeholders; a test holds them equal.
Standard library only, so that every room may speak.
"""

from __future__ import annotations

from typing import Any

from yunque.words import en, es

LANGUAGES = ("en", "es")
_TABLES = {"en": en.WORDS, "es": es.WORDS}


def say(key: str, lang: str, **numbers: Any) -> str:
    """The sentence `key` in `lang`, its placeholders filled (`str.format`).

    Raises:
        KeyError: no such sentence or language (our own fault).
    """
    return _TABLES[lang][key].format(**numbers)


def both(key: str, **numbers: Any) -> dict[str, str]:
    """The sentence in every language: `{"en": …, "es": …}`."""
    return {lang: say(key, lang, **numbers) for lang in LANGUAGES}
