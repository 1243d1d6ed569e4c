"""The screen where there is no terminal: one line at a time, no cursor movements, any encoding."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from yunque.screen.progress import Progress, finite
from yunque.screen.sentences import exam_kinds, start_facts, stop_sentences
from yunque.words import say
from yunque.words.writing import (
    NO_BREAK_SPACE,
    duration,
    gigabytes,
    number,
    percent,
    perplexity,
    scientific,
    visible,
)

LINE_SECONDS = 5.0
PROMPT_CHARACTERS, SAMPLE_CHARACTERS = 40, 160  # of a sample, in its one line


def encodable(text: str, encoding: str) -> str:
    """`text` in characters that `encoding` has: accents fall off, the rest becomes `?`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        bare = unicodedata.normalize("NFKD", text)
        bare = "".join(c for c in bare if not unicodedata.combining(c))
        return bare.encode(encoding, "replace").decode(encoding)
    return text


class LineScreen:
    """A line for the first step, then one every LINE_SECONDS; every other event has its own.

    Where the stream breaks (a closed pipe, a lost connection) the screen falls silent: a run of
    hours does not end because nobody can watch it.
    """

    def __init__(
        self, stream: TextIO, lang: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream: TextIO | None = stream
        self._lang = lang
        self._clock = clock
        self._progress = Progress()
        self._next_line = -float("inf")

    def phase(self, text: str) -> None:
        self._write(visible(text))

    def progress(self, what: str, fraction: float) -> None:
        if self._due(fraction >= 1):
            self._write(f"{visible(what)} {percent(fraction, self._lang)}")

    def start(self, facts: Mapping[str, Any]) -> None:
        self._progress.start(facts)
        if facts.get("run"):
            self._say("line_start", run=visible(str(facts["run"])))
        words = start_facts(facts, self._lang)
        if words:
            self._write(" | ".join(words))
        self._next_line = -float("inf")

    def step(self, row: Mapping[str, Any]) -> None:
        p, lang = self._progress, self._lang
        p.step(row)
        if not self._due(p.step_number == p.steps):
            return
        self._say(
            "line_step",
            step=p.step_number,
            steps=p.steps,
            epoch=number(p.epoch, lang, 1),
            loss=number(row.get("train_loss"), lang, 3),
            lr=scientific(row.get("learning_rate"), lang),
            grad=number(row.get("grad_norm"), lang, 2),
            speed=number(row.get("tokens_per_second"), lang),
            memory=gigabytes(row.get("memory_bytes"), lang),
            left=duration(p.pace.seconds_left(p.steps), short=True),
        )

    def evaluation(self, row: Mapping[str, Any], best: bool) -> None:
        p, lang = self._progress, self._lang
        p.evaluation(row, best)
        values = {
            "step": p.step_number,
            "train": number(row.get("train_loss"), lang, 3),
            "best": say("screen.line_best", lang) if best else "",
            "perplexity": perplexity(p.perplexity_loss, lang),
        }
        if row.get("val_loss") is None:
            self._say("line_eval_train", **values)
        else:
            self._say("line_eval", val=number(row["val_loss"], lang, 3), **values)

    def sample(self, prompt: str, text: str) -> None:
        """One line of it: the log and the report hold every sample whole."""
        begin, end = prompt[-PROMPT_CHARACTERS:], text[:SAMPLE_CHARACTERS]
        self._say(
            "line_sample",
            prompt=("…" if begin != prompt else "") + visible(begin),
            text=visible(end) + ("…" if end != text else ""),
        )

    def exam(self, row: Mapping[str, Any]) -> None:
        right, total = finite(row.get("right")), finite(row.get("total"))
        share = right / total if right is not None and total else None
        kinds = exam_kinds(row, self._lang)
        self._say(
            "line_exam",
            step=row.get("step", self._progress.step_number),
            right=number(right, self._lang),
            total=number(total, self._lang),
            share=percent(share, self._lang),
            end=f": {kinds}" if kinds else "",
        )

    def warning(self, text: str) -> None:
        self._say("line_warning", text=visible(text))

    def checkpoint(self, path: str) -> None:
        if path:  # empty in the processes of a distributed run that do not write
            self._say("line_checkpoint", path=visible(path))

    def stop(self, reason: str, facts: Mapping[str, Any]) -> None:
        self._write(" ".join(stop_sentences(reason, facts, self._lang)))

    def close(self) -> None:
        self._stream = None

    def _due(self, always: bool) -> bool:
        now = self._clock()
        if now < self._next_line and not always:
            return False
        self._next_line = now + LINE_SECONDS
        return True

    def _say(self, word: str, **values: Any) -> None:
        end = values.pop("end", "")
        self._write(say(f"screen.{word}", self._lang, **values) + end)

    def _write(self, line: str) -> None:
        if self._stream is None:
            return
        line = line.replace(NO_BREAK_SPACE, " ")
        try:
            self._stream.write(encodable(line, self._stream.encoding or "utf-8") + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._stream = None
