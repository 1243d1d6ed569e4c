"""The pictures of a run: one PNG (matplotlib) and the figures of the page (plain dictionaries).

Both are made of the same lines. Nothing here touches global state of a plotting library.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yunque.reports.analysis import Analysis
from yunque.reports.exams import with_accuracy
from yunque.reports.log import Log, Record
from yunque.reports.yardsticks import yardsticks
from yunque.words import LANGUAGES, say
from yunque.words.report import counted_in, tell

POINTS = 2000
"""Points of a line at most: more than any screen shows, few enough for a small page."""

# Okabe and Ito's colours, which colour-blind readers can tell apart, on light and on dark.
BATCH, TRAIN, VAL, MARK = "batch", "train", "val", "mark"
COLOURS = {BATCH: "#9bb7d4", TRAIN: "#0072b2", VAL: "#d55e00", MARK: "#5b6570"}


@dataclass(frozen=True)
class Line:
    """One line of a figure: rows that hold a finite `field`."""

    field: str
    label: str
    role: str
    rows: tuple[Record, ...]

    @property
    def thin(self) -> bool:
        """Single batches are drawn thin where evaluations say the same more exactly."""
        return self.role == BATCH

    def y(self) -> list[float]:
        """The values."""
        return [row.number(self.field) or 0.0 for row in self.rows]

    def x(self) -> list[int]:
        """The steps."""
        return [row.step for row in self.rows]


def line(rows: tuple[Record, ...], field: str, label: str, role: str) -> Line:
    """The line of `field`, thinned to POINTS rows with the highs and lows of each stretch."""
    pairs = [(row, value) for row in rows if (value := row.number(field)) is not None]
    kept = [row for row, _ in pairs]
    if len(kept) > POINTS:
        values = np.array([value for _, value in pairs])
        stretches = np.array_split(np.arange(len(kept)), POINTS // 2)
        extremes = {int(s[i]) for s in stretches for i in (values[s].argmin(), values[s].argmax())}
        kept = [kept[i] for i in sorted(extremes | {0, len(kept) - 1})]
    return Line(field, label, role, tuple(kept))


def loss_lines(log: Log) -> list[Line]:
    """Training as logged, training and validation at evaluations."""
    measured = any(row.number("train_loss") is not None for row in log.evals)
    return [
        line(log.steps, "train_loss", "report.train_rows", BATCH if measured else TRAIN),
        line(log.evals, "train_loss", "report.train_eval", TRAIN),
        line(log.evals, "val_loss", "report.validation", VAL),
    ]


def marks(log: Log, analysis: Analysis) -> list[tuple[Record, str]]:
    """The rows that are marked in the curves, each with the key of its label."""
    rows = [*log.evals, *log.steps]
    wanted: list[tuple[int | None, str]] = [(analysis.facts["best_val_step"], "report.best")]
    if analysis.finding("could_have_stopped") and analysis.stop is not None:
        wanted.append((analysis.stop["step"], "report.could_stop"))
    if log.stop is not None and log.stop.values.get("reason") == "early_stopping":
        wanted.append((log.stop.step, "report.stopped"))
    found: dict[int, tuple[Record, str]] = {}
    for step, label in wanted:
        for row in rows:
            if row.step == step:
                found.setdefault(row.step, (row, label))
                break
    return list(found.values())


def yardstick_lines(log: Log, analysis: Analysis) -> list[Line]:
    """The n-gram models that a finding speaks of, each a level from first to last evaluation."""
    found, ends = analysis.finding("ngram_yardstick"), log.evals
    told = yardsticks(log) if found is not None else {}
    return [
        Line(name, f"report.{name}", MARK, tuple(replace(r, values={name: loss}) for r in rows))
        for order, loss in told.items()
        if found is not None and f"loss_{order}" in found.numbers
        for name, rows in ((f"ngram_{order}", (ends[0], ends[-1])),)
    ]


def loss_label(log: Log) -> str:
    """Our own losses are nats per token; of a foreign log we do not know."""
    return "report.loss_unit" if log.format == "yunque" else "report.loss_plain"


# ---------------------------------------------------------------------------------------------
# The figures of the page.

AXES = ("steps", "epochs", "tokens", "hours")


def position(row: Record, axis: str) -> float | None:
    """Where a row stands on one of the AXES."""
    hours = None if row.seconds is None else row.seconds / 3600
    return {
        "steps": row.step,
        "epochs": row.epoch,
        "tokens": row.tokens_seen,
        "hours": hours,
    }[axis]


def figures(log: Log, analysis: Analysis) -> list[dict[str, Any]]:
    """The figures of the page, empty ones left out, as plotly specifications.

    `data` and `layout` are plotly's. `meta` of a trace holds its places on every axis and its
    name in each language, `meta` of a layout the title and the marks: the page's script puts
    the chosen ones in their place.
    """
    lines = loss_lines(log)
    batch = {name: [line(log.steps, name, f"report.{name}", TRAIN)] for name in STEP_FIGURES}
    read = lines[1:] if lines[1].rows else lines
    # Only where the loss may be one of prediction: else exp(loss) is the perplexity of nothing.
    plain = log.objective == "prediction"
    perplexities = [("perplexity", "report.perplexity", read)] if plain else []
    exam = line(with_accuracy(log), "accuracy", "report.accuracy", VAL)
    general = line(log.evals, "general_loss", "report.general_loss", VAL)
    wanted = [
        ("loss", loss_label(log), [*lines, *yardstick_lines(log, analysis)]),
        *perplexities,
        ("exam", "report.accuracy", [exam]),
        ("general_loss", "report.general_loss", [general]),
        *[(name, f"report.{name}", batch[name]) for name in STEP_FIGURES],
    ]
    ranges = stage_ranges(log, analysis)
    marked = [(position_of(row), tell(label)) for row, label in marks(log, analysis)]
    return [
        figure(
            id,
            label,
            [trace(one, id, tell(one.label)) for one in these if one.rows],
            marked,
            ranges,
        )
        for id, label, these in wanted
        if any(one.rows for one in these)
    ]


def stage_ranges(log: Log, analysis: Analysis) -> list[dict[str, Any]]:
    """The stages with their places on every axis."""
    at = {row.step: position_of(row) for row in (*log.evals, *log.steps)}
    return [
        {
            "id": one["id"],
            "from": at[one["from_step"]],
            "to": at[one["to_step"]],
            "text": tell(f"report.stage.{one['id']}"),
        }
        for one in analysis.stages
        if one["from_step"] in at and one["to_step"] in at
    ]


STEP_FIGURES = ("learning_rate", "grad_norm", "tokens_per_second")


def position_of(row: Record) -> dict[str, float | None]:
    """Where a row stands on every axis."""
    return {axis: position(row, axis) for axis in AXES}


def figure(
    id: str,
    label: str,
    data: list[dict[str, Any]],
    marked: list[tuple[dict[str, Any], dict[str, str]]],
    ranges: list[dict[str, Any]],
) -> dict[str, Any]:
    """One figure as a plotly specification."""
    shown = marked if id in ("loss", "perplexity") else []
    meta = {
        "title": tell(label),
        "marks": [{"at": at, "text": text} for at, text in shown],
        "stages": ranges if id in ("loss", "perplexity") else [],
    }
    return {"id": id, "data": data, "layout": {"meta": meta}}


def trace(one: Line, id: str, name: dict[str, str], dash: str = "solid") -> dict[str, Any]:
    """One line of the figure `id` as plotly draws it."""
    drawn: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines" if len(one.rows) > 40 else "lines+markers",
        "x": one.x(),
        "y": [perplexity(v) for v in one.y()] if id == "perplexity" else one.y(),
        "line": {"width": 1 if one.thin or id in STEP_FIGURES else 2.5, "dash": dash},
        "marker": {"size": 4 if one.thin else 6},
        "meta": {
            "role": one.role,
            "name": name,
            "x": {axis: [position(row, axis) for row in one.rows] for axis in AXES[1:]},
        },
    }
    if one.field == "accuracy":  # The interval belongs to the point: without it chance is news.
        low, high = ([row.number(k) or 0.0 for row in one.rows] for k in ("low", "high"))
        drawn["customdata"] = [list(pair) for pair in zip(low, high, strict=True)]
        drawn["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [h - y for h, y in zip(high, one.y(), strict=True)],
            "arrayminus": [y - v for v, y in zip(low, one.y(), strict=True)],
            "thickness": 1,
            "width": 3,
        }
    return drawn


def perplexity(loss: float) -> float | None:
    """exp(loss), None where no float holds it."""
    return math.exp(loss) if loss < 700 else None


# ---------------------------------------------------------------------------------------------
# The PNG.


def png(log: Log, analysis: Analysis, lang: str = "en") -> bytes:
    """One picture: the loss curves, and beside them the learning rate and the gradient norm."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(picture)
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    for one in yardstick_lines(log, analysis):
        name = say(one.label, lang)
        left.plot(one.x(), one.y(), color=COLOURS[MARK], label=name, linewidth=0.6, linestyle="-.")
    for one in loss_lines(log):
        if one.rows:
            style = {"linewidth": 0.8} if one.thin else {"linewidth": 2.0, "marker": "."}
            left.plot(
                one.x(), one.y(), color=COLOURS[one.role], label=say(one.label, lang), **style
            )
    for row, label in marks(log, analysis):
        at = counted_in(tell("report.at_step", step=row.step), log.counted)[lang]
        name = f"{say(label, lang)}: {at}"
        dash = "--" if label == "report.best" else ":"
        left.axvline(row.step, color=COLOURS[MARK], linestyle=dash, linewidth=1.2, label=name)
    left.set_xlabel(counted_in(tell("report.steps"), log.counted)[lang])
    left.set_ylabel(say(loss_label(log), lang))
    left.set_title(say(f"report.id.{analysis.verdict['id']}", lang), loc="left", fontweight="bold")
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize=8, frameon=False)
    else:
        left.text(0.5, 0.5, say("report.no_curves", lang), ha="center", transform=left.transAxes)
    add_axes(left, log, lang)
    twin = right.twinx()
    for axes, name, role in ((right, "learning_rate", TRAIN), (twin, "grad_norm", VAL)):
        one = line(log.steps, name, f"report.{name}", role)
        axes.set_ylabel(say(one.label, lang), color=COLOURS[role])
        if one.rows:
            axes.plot(one.x(), one.y(), color=COLOURS[role], linewidth=1.0, alpha=0.7)
    right.set_xlabel(counted_in(tell("report.steps"), log.counted)[lang])
    for axes in (left, right):
        axes.grid(alpha=0.25)
    for axes in (left, right, twin):
        axes.xaxis.set_major_formatter(lambda v, _: short(v, lang))
        axes.yaxis.set_major_formatter(lambda v, _: short(v, lang))
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def add_axes(axes: Any, log: Log, lang: str) -> None:
    """Epochs and tokens over the same curve, where they go with the steps in proportion."""
    rows = [row for row in line(log.steps, "train_loss", "", BATCH).rows if row.step > 0]
    place = 1.0
    for name in ("epochs", "tokens"):
        pairs = [(row.step, position(row, name)) for row in rows]
        known = [(step, value) for step, value in pairs if value]
        if len(known) < max(2, len(pairs)):
            continue
        step, value = max(known)
        rate = value / step
        # A step of rounding aside: a log with two decimals of the epoch is still in proportion.
        if any(abs(v - rate * s) > 0.02 * value for s, v in known):
            continue
        second = axes.secondary_xaxis(
            place, functions=(lambda s, r=rate: s * r, lambda v, r=rate: v / r)
        )
        second.set_xlabel(say(f"report.{name}", lang), fontsize=8)
        second.tick_params(labelsize=8)
        second.xaxis.set_major_formatter(lambda v, _: short(v, lang))
        place += 0.13


def short(value: float, lang: str) -> str:
    """A number for a narrow axis: 2.5M, 30k, 4000, 0.5."""
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    size, unit = next(((s, u) for s, u in units if abs(value) >= max(s, 1e4)), (1.0, ""))
    text = f"{value / size:.4g}{unit}"
    return text.replace(".", ",") if lang == LANGUAGES[1] else text
