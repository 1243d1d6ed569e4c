"""`explain` in the terminal."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console

from yunque.screen.explanation import print_explanation
from yunque.words.explain import SURPRISES, surprise


@dataclass(frozen=True)
class Token:
    id: int
    text: str
    probability: float | None
    rank: int | None
    alternatives: tuple[tuple[int, str, float], ...] = ()

    @property
    def loss(self) -> float | None:
        return None if self.probability is None else -math.log(self.probability)


TOKENS = (
    Token(7, "En", None, None),
    Token(12345, " un", 0.25, 2, ((3, " el", 0.5), (12345, " un", 0.25), (4, "\n", 0.00001))),
    Token(3, " [red]\x1b[31m", 0.0005, 40000, ((3, " [/]", 0.5),)),
    Token(4, "\n", 0.9, 1, ((4, "\n", 0.9),)),
)


def printed(lang: str, width: int, **options: object) -> str:
    target = Console(file=io.StringIO(), width=width, **options)  # type: ignore[arg-type]
    print_explanation(TOKENS, target, lang)
    return target.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_text_and_table_in_english() -> None:
    lines = [line.rstrip() for line in printed("en", 100).splitlines()]
    assert lines[0] == "En un [red]␛[31m↵"
    table = [re.split(r"\s{2,}", line) for line in lines if re.match(r"token|En  |·", line)]
    assert table[0] == ["token", "id", "probability", "loss", "rank", "best alternatives"]
    assert table[1] == ["En", "7", "-", "-", "-"]
    assert table[2] == ["·un", "12345", "25.00%", "1.386", "2", "·el 50.0%", "·un 25.0%", "↵ <0.1%"]
    assert table[3] == ["·[red]␛[31m", "3", "0.05%", "7.601", "40,000", "·[/] 50.0%"]


def test_spanish_has_the_same_numbers() -> None:
    text = printed("es", 100).replace("\u00a0", " ")
    for expected in ("probabilidad", "25,00 %", "1,386", "40 000", "·el 50,0 %", "menos del 0,1 %"):
        assert expected in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    text = printed("en", width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    row = next(line for line in text.splitlines() if line.startswith("·un"))
    assert "25.00%" in row
    assert "1.386" in row
    assert ("best alternatives" in text) == (width > 40)


def test_the_colours_are_those_of_the_scale() -> None:
    text = printed("en", 100, force_terminal=True, color_system="truecolor")

    def code(colour: str, place: int) -> str:
        r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"{place};2;{r};{g};{b}"

    first = text.splitlines()[0]
    for step, words in ((SURPRISES[1], " un"), (SURPRISES[4], " [red]␛[31m")):
        assert f"\x1b[{code(step.foreground, 38)};{code(step.background, 48)}m{words}" in first
    assert "\x1b[31m" not in text


def test_the_steps_of_surprise() -> None:
    probabilities = (1.0, 0.5, 0.49, 0.1, 0.09, 0.01, 0.009, 0.001, 0.0009, 1e-30)
    assert [surprise(-math.log(p)) for p in probabilities] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_an_ascii_stream_does_not_crash() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    print_explanation(TOKENS, stream, "es")
    assert "perdida" in raw.getvalue().decode("ascii")


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_the_scale_is_legible_and_darkens_from_step_to_step() -> None:
    painted = SURPRISES[1:]
    for step in painted:
        bright, dark = sorted((luminance(step.background), luminance(step.foreground)))[::-1]
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, step
    lights = [luminance(step.background) for step in painted]
    assert all(a > 1.5 * b for a, b in pairwise(lights))
