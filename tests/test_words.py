"""Spanish and English: the same sentences with the same numbers."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from yunque.words import LANGUAGES, ROOMS, both, say, table


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("room", ROOMS)
def test_both_languages_hold_the_same_placeholders(room: str) -> None:
    for key, (english, spanish) in table(room).items():
        assert key.startswith(f"{room}."), key
        assert english.strip(), key
        assert spanish.strip(), key
        assert placeholders(english) == placeholders(spanish), key


def test_every_module_of_words_is_a_room() -> None:
    folder = Path(__file__).parents[1] / "src" / "yunque" / "words"
    others = {"__init__", "writing"}  # writing: how numbers and foreign text are written
    assert {path.stem for path in folder.glob("*.py")} - others == set(ROOMS)


def test_numbers_and_plurals_are_those_of_the_language() -> None:
    one = both("data.bad_records", count=1, percent=1.0, first="a.csv:2: x")
    assert one["en"].startswith("1 record was left out because it could not be read (1.0 % of the")
    assert one["es"].startswith("Se ha dejado fuera 1 registro que no se podía leer (1,0 % de los")
    many = both("data.bad_records", count=12_345, percent=1.0, first="a.csv:2: x")
    assert many["en"].startswith("12,345 records were left out because they could not be read (")
    assert many["es"].startswith(
        "Se han dejado fuera 12\u00a0345 registros que no se podían leer ("
    )
    rate = both("data.tokens_per_byte", tokens=1.5)
    assert "spends 1.50 tokens" in rate["en"]
    assert "gasta 1,50 tokens" in rate["es"]


def test_say_fills_placeholders_in_each_language() -> None:
    sentences = both("cli.page_written", path="x.html")
    assert sentences == {"en": "Written: x.html", "es": "Escrito: x.html"}
    assert tuple(sentences) == LANGUAGES
    with pytest.raises(ValueError, match="not in tuple"):
        say("cli.page_written", "fr", path="x")
