"""`explain` in the terminal: the text painted by its loss, then a table of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from yunque.screen.lines import encodable
from yunque.words import say
from yunque.words.explain import SURPRISES, ExplainedToken, legend, surprise
from yunque.words.writing import marked, number, painted_text, percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

TOKEN_WIDTH = 20
GAP = 2


def print_explanation(
    tokens: Sequence[ExplainedToken], stream: TextIO | Console, lang: str
) -> None:
    """Print the painted text, its legend and the table of tokens to a stream or rich console."""
    from rich.console import Console
    from rich.text import Text

    console = stream if isinstance(stream, Console) else Console(file=stream)
    painted = Text(overflow="fold")
    for token in tokens:
        painted.append(painted_text(token.text), _style(token.loss))
    with console.capture() as captured:
        console.print(painted)
        console.print(_legend(lang))
        console.print(_table(tokens, console.width, lang))
        console.print(Text(say("explain.marks", lang), "dim"))
    console.file.write(encodable(captured.get(), console.encoding))


def _table(tokens: Sequence[ExplainedToken], width: int, lang: str) -> Table:
    """One line a token. Where the terminal is narrow, the rank goes first, then the id; the
    alternatives have what is left, and only those that fit whole are shown."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    columns = {
        "id": [str(token.id) for token in tokens],
        "probability": [percent(token.probability, lang, 2) for token in tokens],
        "loss": [number(token.loss, lang, 3) for token in tokens],
        "rank": [number(token.rank, lang) for token in tokens],
    }
    heads = {key: say(f"explain.{key}", lang) for key in ("token", *columns, "alternatives")}
    widths = {key: max(map(cell_len, [heads[key], *cells])) for key, cells in columns.items()}
    longest = max((cell_len(marked(token.text)) for token in tokens), default=0)
    widths["token"] = max(cell_len(heads["token"]), min(TOKEN_WIDTH, longest))

    def left() -> int:
        return width - sum(widths.values()) - GAP * (len(widths) + 1)

    for key in ("rank", "id"):
        if left() < cell_len(heads["alternatives"]):
            del columns[key], widths[key]
    table = Table(box=None, padding=(0, GAP, 0, 0))
    for key in ("token", *columns):
        justify: Literal["left", "right"] = "left" if key == "token" else "right"
        table.add_column(
            Text(heads[key]), width=widths[key], justify=justify, no_wrap=True, overflow="ellipsis"
        )
    room = left()
    show = room >= cell_len(heads["alternatives"])
    if show:
        table.add_column(Text(heads["alternatives"]), width=room, no_wrap=True)
    for i, token in enumerate(tokens):
        cells = [Text.assemble((marked(token.text), _style(token.loss)))]
        cells += [Text(column[i]) for column in columns.values()]
        table.add_row(*cells, *([Text(_alternatives(token, room, lang))] if show else []))
    return table


def _alternatives(token: ExplainedToken, room: int, lang: str) -> str:
    from rich.cells import cell_len

    line = ""
    for _, text, probability in token.alternatives:
        item = f"{marked(text)} {percent(probability, lang, 1)}"
        longer = f"{line}  {item}" if line else item
        if cell_len(longer) > room:
            break
        line = longer
    return line


def _style(loss: float | None) -> str:
    if loss is None:
        return "dim"
    step = SURPRISES[surprise(loss)]
    return f"{step.foreground} on {step.background}" if step.background else ""


def _legend(lang: str) -> Text:
    from rich.text import Text

    text = Text.assemble((say("explain.legend", lang) + ": ", "dim"))
    for step, words in zip(SURPRISES, legend(lang), strict=True):
        colours = f"{step.foreground} on {step.background}" if step.background else ""
        text.append(f" {words} ", colours)
        text.append(" ")
    return text
