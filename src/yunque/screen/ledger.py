"""The ledger in the terminal: its equations and a few records, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TextIO

from yunque.screen.lines import encodable
from yunque.words import say
from yunque.words.ledger import equations, example_place
from yunque.words.writing import number, visible

LEFT, RIGHT = "⟦", "⟧"  # around what carries loss, where there are no colours
CARRIES = "black on bright_green"


def ledger_lines(ledger: Mapping[str, Any], lang: str) -> list[str]:
    """The title and one line for each equation."""
    return [say("ledger.title", lang), *(f"  {line}" for line in equations(ledger, lang))]


def print_examples(
    examples: Sequence[Mapping[str, Any]], names: Sequence[str], stream: TextIO, lang: str
) -> None:
    """Print a few records with the tokens that carry loss marked: by colour, else by brackets.

    Args:
        examples: of `Prepared.facts`.
        names: of the sources, by number.
    """
    if not examples:
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream)
    coloured = console.is_terminal and console.color_system is not None
    with console.capture() as captured:
        console.print(Text(say("ledger.examples", lang)))
        for example in examples:
            console.print(Text("  " + visible(example_place(example, names, lang)), "bold"))
            line = Text("    ", overflow="fold")
            for carries, group in groupby(example["tokens"], lambda token: bool(token[1])):
                text = visible("".join(token for token, _ in group))
                if carries:
                    line.append(text if coloured else f"{LEFT}{text}{RIGHT}", CARRIES)
                else:
                    line.append(text, "dim")
            if example["left_out"]:
                left = number(example["left_out"], lang)
                line.append(" " + say("ledger.left_out", lang, n=left), "dim")
            console.print(line)
    stream.write(encodable(captured.get(), console.encoding))
