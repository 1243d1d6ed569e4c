"""One frame of the live screen: the state of a run as a rich renderable of a given size.

Foreign text (samples, file names, warnings) enters only as `Text` after `visible`, so that
neither markup nor terminal codes in it are obeyed.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from yunque.screen import curve
from yunque.screen.progress import Progress, finite
from yunque.screen.sentences import exam_kinds, start_facts
from yunque.words import say
from yunque.words.writing import (
    duration,
    gigabytes,
    number,
    percent,
    perplexity,
    scientific,
    visible,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

LABEL, TRAIN, VAL, WARN = "dim", "cyan", "bold magenta", "bold yellow"
CURVE_ROWS = (4, 12)
SAMPLE_LINES = 4


def frame(progress: Progress, console: Console, lang: str) -> RenderableType:
    """The panel for the console's present width and height.

    Where the terminal is low, the curve shrinks first, then the sample and the exam go.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    width, height = console.size
    inner = max(10, width - 4)
    body: list[RenderableType] = []
    if progress.started:
        body += _facts(progress, inner, lang)
        body += _bar(progress.fraction, _place(progress, lang), inner)
        body += _metrics(progress, inner, lang)
    elif progress.phase_fraction is not None:
        words = Text(percent(progress.phase_fraction, lang))
        body += _bar(progress.phase_fraction, words, inner)
    below = _warnings(progress) + _exam(progress, console, inner, lang)
    room = height - 3 - len(body) - len(below)  # 2 lines of border, 1 for the cursor
    sample = _sample(progress, console, inner, lang)
    sample = sample if room >= len(sample) + CURVE_ROWS[0] + 2 else []
    rows = min(CURVE_ROWS[1], room - len(sample) - 2)  # 2: legend and step axis
    if rows >= CURVE_ROWS[0]:
        body += _curve(progress, inner, rows, lang)
    status = progress.phase
    body += [*sample, *below][: max(0, height - 3 - len(body))]
    title = Text("Yunque", style="bold")
    if progress.facts.get("run"):
        title.append(f" · {visible(str(progress.facts['run']))}", style="not bold")
    title.truncate(inner, overflow="ellipsis")
    return Panel(
        Group(*body) if body else Text(visible(status)),
        title=title,
        title_align="left",
        subtitle=_one_line(status, "") if body and status else None,
        subtitle_align="left",
        border_style=TRAIN,
        width=width,
    )


def _one_line(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")


def _facts(progress: Progress, inner: int, lang: str) -> list[RenderableType]:
    """At most two lines, broken between facts (a wrapped text would break inside numbers);
    the parts of the model are named where there is room."""
    from rich.cells import cell_len

    for parts in (True, False):
        lines: list[str] = []
        for fact in start_facts(progress.facts, lang, parts):
            longer = f"{lines[-1]} · {fact}" if lines else fact
            lines[-1:] = [longer] if cell_len(longer) <= inner else [*lines[-1:], fact]
        if len(lines) <= 2:
            break
    return [_one_line(line, LABEL) for line in lines[:2]]


def _place(progress: Progress, lang: str) -> Text:
    from rich.text import Text

    step, steps = number(progress.step_number, lang), number(progress.steps, lang)
    words = [percent(progress.fraction, lang), say("screen.step", lang, step=step, steps=steps)]
    if progress.epoch is not None:
        words.append(say("screen.epoch", lang, epoch=number(progress.epoch, lang, 2)))
    return Text("  ".join(words), no_wrap=True, overflow="ellipsis")


def _bar(fraction: float, words: Text, inner: int) -> list[RenderableType]:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    bar = ProgressBar(total=1.0, completed=fraction, complete_style=TRAIN, finished_style=TRAIN)
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    if inner < words.cell_len + 20:
        grid.add_row(bar)
        return [grid, words]
    grid.add_column(width=words.cell_len, no_wrap=True)
    grid.add_row(bar, words)
    return [grid]


def _metrics(progress: Progress, inner: int, lang: str) -> list[RenderableType]:
    """Labels and values, one to three pairs a line; each line one renderable, to be counted."""
    from rich.table import Table
    from rich.text import Text

    p, row = progress, progress.row
    smooth, last = number(p.smooth_loss, lang, 3), number(row.get("train_loss"), lang, 3)
    best = (
        "-"
        if p.best_loss is None
        else say(
            "screen.best_at",
            lang,
            loss=number(p.best_loss, lang, 3),
            step=number(p.best_step, lang),
        )
    )
    values = (
        ("train_loss", say("screen.smooth_last", lang, smooth=smooth, last=last), TRAIN),
        ("val_loss", number(p.val_loss, lang, 3), VAL),
        ("best", best, VAL),
        ("perplexity", perplexity(p.perplexity_loss, lang), ""),
        ("learning_rate", scientific(row.get("learning_rate"), lang), ""),
        ("grad_norm", number(row.get("grad_norm"), lang, 2), ""),
        ("speed", number(row.get("tokens_per_second"), lang), ""),
        ("memory", gigabytes(row.get("memory_bytes"), lang), ""),
        ("elapsed", duration(p.seconds), ""),
        ("left", duration(p.pace.seconds_left(p.steps)), "bold"),
    )
    labels = [say(f"screen.{key}", lang) for key, _, _ in values]
    label_width = max(map(len, labels)) + 2
    pairs = 1 if inner < 72 else 2 if inner < 116 else 3
    lines: list[RenderableType] = []
    for start in range(0, len(values), pairs):
        grid = Table.grid(expand=True)
        cells = []
        for i in range(start, start + pairs):
            grid.add_column(width=label_width, no_wrap=True)
            grid.add_column(ratio=1, no_wrap=True)
            if i < len(values):
                cells += [Text(labels[i], LABEL), _one_line(values[i][1], values[i][2])]
        grid.add_row(*cells)
        lines.append(grid)
    return lines


def _curve(progress: Progress, inner: int, rows: int, lang: str) -> list[RenderableType]:
    from rich.text import Text

    train, val = progress.train.points(), progress.validation.points()
    if len(train) + len(val) < 2:
        return []
    low, high = curve.limits(train, val)
    ends = [number(high, lang, 2), number(low, lang, 2)]
    margin = max(map(len, ends)) + 1
    legend = Text.assemble((say("screen.curve", lang) + "  ", LABEL))
    legend.append("⠒⠒ " + say("screen.curve_train", lang), TRAIN)
    if val:
        legend.append("  o " + say("screen.curve_val", lang), VAL)
    legend.truncate(inner)
    lines, styles = [legend], {"train": TRAIN, "val": VAL, "": ""}
    for i, cells in enumerate(curve.draw(train, val, inner - margin, rows)):
        label = ends[0] if i == 0 else ends[1] if i == rows - 1 else ""
        line = Text.assemble((label.rjust(margin - 1) + " ", LABEL), no_wrap=True)
        for kind, run in groupby(cells, key=lambda cell: cell[1]):
            line.append("".join(character for character, _ in run), styles[kind])
        lines.append(line)
    steps = [x for x, _ in [*train, *val]]
    first, last = number(min(steps), lang), number(max(steps), lang)
    lines.append(Text(" " * margin + first + last.rjust(inner - margin - len(first)), LABEL))
    return list(lines)


def _sample(progress: Progress, console: Console, inner: int, lang: str) -> list[RenderableType]:
    from rich.text import Text

    if progress.sample_text is None:
        return []
    step, prompt, text = progress.sample_text
    words = Text(visible(prompt, newlines=True), style="bold")
    words.append(visible(text, newlines=True), style="not bold")
    lines = [line for line in words.wrap(console, inner) if line.plain.strip()][:SAMPLE_LINES]
    return [Text(say("screen.sample", lang, step=number(step, lang)), LABEL), *lines]


def _exam(progress: Progress, console: Console, inner: int, lang: str) -> list[RenderableType]:
    from rich.text import Text

    row = progress.exam_row
    if row is None:
        return []
    right, total = finite(row.get("right")), finite(row.get("total"))
    share = percent(right / total if right is not None and total else None, lang)
    counts = {"right": number(right, lang), "total": number(total, lang)}
    words = Text(say("screen.exam", lang, share=share, **counts), style="bold")
    kinds = exam_kinds(row, lang)
    words.append(f"  {kinds}" if kinds else "", style="not bold")
    return list(words.wrap(console, inner)[:3])


def _warnings(progress: Progress) -> list[RenderableType]:
    return [_one_line(f"! {text}", WARN) for text in list(progress.warnings)[-2:]]
