"""The screen: what training and preparing report to while they work.

`make_screen` chooses: a live panel on a terminal, plain lines elsewhere, nothing where asked.
rich is imported only when a panel is made.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from yunque.screen.explanation import print_explanation
from yunque.screen.lines import LineScreen
from yunque.screen.live import LiveScreen

__all__ = ["LineScreen", "LiveScreen", "Screen", "SilentScreen", "make_screen", "print_explanation"]


class Screen(Protocol):
    """Receives the events of a run in time order; every method is cheap. Rows are as in runlog."""

    def phase(self, text: str) -> None:
        """What goes on now, before the first step or between two."""

    def progress(self, what: str, fraction: float) -> None:
        """How far a long preparation is, 0 to 1."""

    def start(self, facts: Mapping[str, Any]) -> None:
        """The run begins. Keys that are shown, each optional: run, parameters (a number or a
        number by part), tokens {split: number}, resumed_step, steps, batch_size, context_length,
        device, precision."""

    def step(self, row: Mapping[str, Any]) -> None:
        """A `step` row with `epoch` and `steps`, the total."""

    def evaluation(self, row: Mapping[str, Any], best: bool) -> None:
        """An `eval` row; `best`: the lowest watched loss so far (of
        validation, of training where there is none)."""

    def sample(self, prompt: str, text: str) -> None:
        """A text that the model wrote after `prompt`."""

    def exam(self, row: Mapping[str, Any]) -> None:
        """An `exam` row: right, total, kinds {kind: [right, total]}."""

    def warning(self, text: str) -> None:
        """Something the user should know; the run goes on."""

    def checkpoint(self, path: str) -> None:
        """A checkpoint was saved."""

    def stop(self, reason: str, facts: Mapping[str, Any]) -> None:
        """The run ended. Reasons with a sentence: steps, early_stopping, interrupted,
        non_finite, spikes; any other is shown as it is. Facts: best_step, best_loss,
        validated, run."""

    def close(self) -> None:
        """Leave the terminal as it was; may be called twice."""


class SilentScreen:
    """Shows nothing."""

    def phase(self, text: str) -> None: ...
    def progress(self, what: str, fraction: float) -> None: ...
    def start(self, facts: Mapping[str, Any]) -> None: ...
    def step(self, row: Mapping[str, Any]) -> None: ...
    def evaluation(self, row: Mapping[str, Any], best: bool) -> None: ...
    def sample(self, prompt: str, text: str) -> None: ...
    def exam(self, row: Mapping[str, Any]) -> None: ...
    def warning(self, text: str) -> None: ...
    def checkpoint(self, path: str) -> None: ...
    def stop(self, reason: str, facts: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


def make_screen(lang: str, stream: TextIO | None = None, quiet: bool = False) -> Screen:
    """The screen that suits `stream` (standard error where None)."""
    if quiet:
        return SilentScreen()
    stream = sys.stderr if stream is None else stream
    utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
    if not (utf8 and stream.isatty()):
        return LineScreen(stream, lang)
    from rich.console import Console

    console = Console(file=stream)
    if not console.is_terminal or console.is_dumb_terminal:
        return LineScreen(stream, lang)
    return LiveScreen(console, lang)
