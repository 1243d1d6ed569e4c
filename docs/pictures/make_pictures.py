"""Make the pictures of the README from a real run: `python docs/pictures/make_pictures.py RUN`.

terminal.en.svg and terminal.es.svg: the live screen after 60 % of the run's steps, replayed from
RUN/log.jsonl. report.en.png, report.es.png: the picture of the run's report. Nothing in them points
to the network.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from yunque import runlog
from yunque.errors import YunqueError
from yunque.files import write_bytes, write_text
from yunque.screen import LiveScreen
from yunque.screen.replay import replay
from yunque.words import LANGUAGES

FOLDER = Path(__file__).parent
COLUMNS, ROWS = 100, 34
FRACTION = 0.6

# The names in braces are filled by rich. Its own template loads fonts from the network.
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px "DejaVu Sans Mono", Menlo, Consolas,
  monospace; }}
.{unique_id}-title {{ font: bold 17px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def terminal_svg(rows: list[runlog.Row], lang: str, fraction: float = FRACTION) -> str:
    """The live screen after `fraction` of the run, as an SVG without references."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        record=True,
        force_terminal=True,
        color_system="truecolor",
        width=COLUMNS,
        height=ROWS,
    )
    unseen = Console(file=io.StringIO(), force_terminal=True, width=COLUMNS, height=ROWS)
    screen = LiveScreen(unseen, lang)
    try:
        replay(rows, screen, fraction)
        console.print(screen.frame(console))
    finally:
        screen.close()
    return console.export_svg(
        title="yunque pretrain", code_format=SVG, unique_id=f"terminal-{lang}"
    )


def report_png(run: Path, lang: str) -> bytes | None:
    """The report's picture; None where this version of Yunque has no report."""
    try:
        from yunque.reports.report import report
    except ImportError:
        return None
    return report(run).png(lang)


def main(run: Path) -> None:
    rows = list(runlog.read(run / runlog.NAME))
    for lang in LANGUAGES:
        path = FOLDER / f"terminal.{lang}.svg"
        write_text(path, terminal_svg(rows, lang))
        print(path)
        picture = report_png(run, lang)
        if picture is None:
            print(f"report.{lang}.png left out: there is no yunque.reports.report")
            continue
        path = FOLDER / f"report.{lang}.png"
        write_bytes(path, picture)
        print(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} RUN")
    try:
        main(Path(sys.argv[1]))
    except YunqueError as error:
        sys.exit(f"{error}")
