"""The live panel on a terminal."""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from yunque.screen.progress import Progress
from yunque.screen.sentences import stop_sentences
from yunque.words import say
from yunque.words.writing import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

REDRAW_SECONDS = 0.25
DRAWING_SHARE = 0.02
"""Largest part of the time that is spent on drawing; on a slow machine the panel moves less."""


class LiveScreen:
    """A panel that is redrawn in place, from the thread that trains and at most 4 times a second.

    There is no drawing thread: it would compete with training and would have to be stopped
    before a process is forked. The terminal is restored by `close`, or by the interpreter's end
    where an exception kept the caller from it.
    """

    def __init__(
        self, console: Console, lang: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console
        self._lang = lang
        self._clock = clock
        self._progress = Progress()
        self._live: Live | None = None
        self._closed = False
        self._next_draw = -float("inf")

    def frame(self, console: Console | None = None) -> RenderableType:
        """The panel as it now stands, sized for `console`."""
        from yunque.screen.panel import frame

        return frame(self._progress, console or self.console, self._lang)

    def phase(self, text: str) -> None:
        self._progress.phase, self._progress.phase_fraction = text, None
        self._draw(now=True)  # what follows may draw nothing for a long time

    def progress(self, what: str, fraction: float) -> None:
        self._progress.phase, self._progress.phase_fraction = what, fraction
        self._draw()

    def start(self, facts: Mapping[str, Any]) -> None:
        self._progress.start(facts)
        self._draw(now=True)

    def step(self, row: Mapping[str, Any]) -> None:
        self._progress.step(row)
        self._draw()

    def evaluation(self, row: Mapping[str, Any], best: bool) -> None:
        self._progress.evaluation(row, best)
        self._draw()

    def sample(self, prompt: str, text: str) -> None:
        self._progress.sample(prompt, text)
        self._draw()

    def exam(self, row: Mapping[str, Any]) -> None:
        self._progress.exam_row = row
        self._draw()

    def warning(self, text: str) -> None:
        """Shown in the panel, and in full above it, where it stays."""
        self._progress.warnings.append(text)
        self._draw(now=True)
        if not self._closed:
            self._print(say("screen.line_warning", self._lang, text=visible(text)), "yellow")

    def checkpoint(self, path: str) -> None:
        if path:  # empty in the processes of a distributed run that do not write
            self._progress.phase = say("screen.line_checkpoint", self._lang, path=path)
            self._draw()

    def stop(self, reason: str, facts: Mapping[str, Any]) -> None:
        self._progress.phase = ""
        sentences = stop_sentences(reason, facts, self._lang)
        self._draw(now=True)
        self.close()
        self._print("\n".join(sentences), "")

    def close(self) -> None:
        live, self._live = self._live, None
        self._closed = True
        atexit.unregister(self.close)
        if live is not None:
            self._guard(live.stop)

    def _draw(self, now: bool = False) -> None:
        begin = self._clock()
        if self._closed or (begin < self._next_draw and not now):
            return
        self._guard(self._redraw)
        end = self._clock()
        self._next_draw = begin + max(REDRAW_SECONDS, (end - begin) / DRAWING_SHARE)

    def _redraw(self) -> None:
        if self._live is None:
            from rich.live import Live

            # Standard output may be the program's result on its way to a file: leave it alone
            # then. Standard error is where other libraries warn; their lines go above the panel.
            atexit.register(self.close)
            self._live = Live(
                self.frame(),
                console=self.console,
                auto_refresh=False,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=True,
            )
            self._live.start()
        self._live.update(self.frame(), refresh=True)

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text

        self._guard(lambda: self.console.print(Text(text, style)))

    def _guard(self, act: Callable[[], object]) -> None:
        """Do it; where the terminal is gone, draw no more: the run matters more than the view."""
        try:
            act()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._live, self._closed = None, True
