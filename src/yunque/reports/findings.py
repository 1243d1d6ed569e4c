"""The findings: pure functions of the log that return None where the log does not prove it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from yunque.reports.curve import (
    CLEAR,
    FEW,
    NEGLIGIBLE,
    SMALL_SHARE,
    Curve,
    above_lowest,
    curve,
    fell,
    single_turn,
    whole_fall,
)
from yunque.reports.log import Log, Record, whole
from yunque.reports.metrics import held_out_measure
from yunque.reports.trend import ahead, as_good_as_the_best
from yunque.words.report import WORDS, tell

FREE_PASSES = 4
"""Passes over the same data that are nearly as good as new data (Muennighoff et al. 2023,
arXiv:2305.16264, section 5); from more on, and with nothing held out, memorising is a risk."""

ENOUGH_WEIGHTS = 10
"""Weights for a token of training text from which on the text surely fits into them."""

Text = dict[str, str]


@dataclass(frozen=True)
class Finding:
    """One claim: its numbers, the rows that prove it, what it says, what to do."""

    id: str
    severity: str
    numbers: dict[str, Any]
    evidence: list[dict[str, Any]]
    text: Text
    advice: Text


def evidence(*rows: tuple[Record, str]) -> list[dict[str, Any]]:
    """(row, field) → what stands there; NaN and infinities as text, which JSON can hold."""
    found = []
    for row, name in rows:
        value = row.values.get(name, getattr(row, name, None))
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        found.append({"row": row.row, "field": row.names.get(name, name), "value": value})
    return found


def make(
    id: str,
    severity: str,
    proof: list[dict[str, Any]],
    case: str = "",
    also: str = "",
    **numbers: Any,
) -> Finding:
    """A finding that says `report.ID[.case]` and the sentence `also`.

    Its advice is `report.ID[.case].advice`, or that of the id where the case has none of its own.
    """
    base = f"report.{id}"
    key = f"{base}.{case}" if case else base
    text = joined([tell(name, **numbers) for name in (key, also) if name])
    advice = f"{key}.advice" if f"{key}.advice" in WORDS else f"{base}.advice"
    return Finding(id, severity, numbers, proof, text, tell(advice, **numbers))


def joined(sentences: list[Text]) -> Text:
    """Sentences one after the other, in each language."""
    return {lang: " ".join(s[lang] for s in sentences) for lang in sentences[0]}


def too_short_to_judge(train: Curve, val: Curve) -> Finding | None:
    """Fewer points than any statement about noise needs."""
    if len(train.values) >= 8 or len(val.values) >= 4:
        return None
    rows = [(c.rows[-1], c.name) for c in (train, val) if c.rows]
    return make(
        "too_short_to_judge",
        "warning",
        evidence(*rows),
        loss_rows=len(train.values),
        val_rows=len(val.values),
    )


def non_finite(log: Log, facts: dict[str, Any]) -> Finding | None:
    """NaN or infinite values; in a loss they are a problem, in a gradient norm alone a warning."""
    rows = [row for row in (*log.steps, *log.evals) if row.non_finite]
    if not rows:
        return None
    losses = [row for row in rows if {"train_loss", "val_loss"} & set(row.non_finite)]
    shown = (losses or rows)[0]
    name = min(shown.non_finite, key=lambda k: (k not in ("train_loss", "val_loss"), k))
    return make(
        "non_finite",
        "problem" if losses else "warning",
        evidence((shown, name)),
        case="loss" if losses else "other",
        field=shown.names.get(name, name),
        rows=len(rows),
        total=facts["loss_rows"] + facts["eval_rows"],
        step=shown.step,
    )


def divergence_onset(train: Curve) -> int | None:
    """Index after which the training loss lost, for good, a quarter or more of what it had won.

    For good: over the last tenth of the rows; or, where it lost more than half, in the last three:
    a log that ends in such a jump shows no way back.
    """
    if len(train.values) < 8:
        return None
    low = float(train.smooth.min())
    won, least = float(train.smooth[0] - low), 6 * train.noise
    tail = max(3, len(train.values) // 10)
    ends = ((float(np.median(train.values[-tail:])), 0.25), (float(train.values[-3:].min()), 0.5))
    for level, share in ends:
        if level > low + max(least, share * won):
            # Where it left the level that it never came back to.
            return int(np.flatnonzero(train.smooth <= low + max(least, 0.05 * won))[-1])
    return None


def broken_end(train: Curve, onset: int) -> float:
    """The loss at the end of a training that diverged: the median of its last tenth of rows."""
    tail = max(3, len(train.values) // 10)
    return float(np.median(train.values[max(onset + 1, len(train.values) - tail) :]))


def diverged(train: Curve, onset: int | None) -> Finding | None:
    """The training loss rose and stayed up."""
    if onset is None:
        return None
    last, turn = train.rows[-1], train.rows[onset]
    low = train.rows[int(np.argmin(train.values[: onset + 1]))]
    return make(
        "diverged",
        "problem",
        evidence((low, "train_loss"), (turn, "train_loss"), (last, "train_loss")),
        low=low.number("train_loss"),
        low_step=low.step,
        onset_step=turn.step,
        end=broken_end(train, onset),
        last_step=last.step,
    )


def best_step(log: Log, val: Curve) -> Finding | None:
    """Where the validation loss is lowest, and whether that model was kept."""
    if not len(val.values):
        return None
    row, last = val.rows[val.lowest], val.rows[-1]
    early = log.stop is not None and log.stop.values.get("reason") == "early_stopping"
    case = "alone"
    if log.kept:
        case = "stopped_early" if early and row.step != last.step else "kept"
    other = log.kept_step is not None and log.kept_step != row.step
    by_exam: dict[str, Any] = {"kept_step": log.kept_step} if other else {}
    return make(
        "best_step",
        "info",
        evidence((row, "val_loss"), (last, "val_loss")),
        case=case,
        also="report.best_step.by_exam" if other else "",
        step=row.step,
        val_loss=row.number("val_loss"),
        perplexity=math.exp(min(700.0, float(row.number("val_loss") or 0.0))),
        evals=len(val.values),
        last_step=last.step,
        kept=log.kept,
        **by_exam,
    )


def train_level(log: Log, train: Curve, at: Record) -> float | None:
    """Training loss at an evaluation: measured with it, else of the rows logged up to there.

    In the rows of other tools it is that of a single batch, or stands among the rows anyway.
    """
    exact = at.number("train_loss") if log.format == "yunque" else None
    if exact is not None or not len(train.values):
        return exact
    index = int(np.searchsorted(train.steps, at.step, side="right"))
    return float(np.median(train.values[max(0, index - train.width) : max(1, index)]))


def others_of(log: Log) -> list[Curve]:
    """The validation curves of the further held-out sets."""
    return [curve(rows, "val_loss") for rows in log.other_evals.values()]


def overfitting(log: Log, train: Curve, val: Curve) -> Finding | None:
    """Validation rose beyond its noise after its best, and the training loss did not rise.

    Where the log has no training loss the rise of validation alone says it, with that doubt.
    """
    if len(val.values) < 4 or val.lowest > len(val.values) - 3:
        return None
    after = val.values[val.lowest + 1 :]
    best, last = val.rows[val.lowest], val.rows[-1]
    low, level = float(val.values[val.lowest]), float(np.median(after[-3:]))
    won = float(val.values[0]) - low
    before, behind = train_level(log, train, best), train_level(log, train, last)
    if not above_lowest(val, level) or level - low < SMALL_SHARE * max(won, 0.2 * low):
        return None
    more: dict[str, Any] = {}
    if before is not None and behind is not None:
        more = {"train_at_best": before, "train_at_last": behind}
        few = len(train.values) < FEW and behind - before > CLEAR * abs(before)
        if few or train.moved(behind - before, train.width / math.pi):
            # Where the training loss rose too, something else went wrong. The difference of two
            # medians of n points is as noisy as n/pi single points.
            return None
    large = level - low > 0.1 * won
    saved = log.kept or log.kept_step is not None
    severity = ("warning" if large else "info") if saved else ("problem" if large else "warning")
    case = "alone" if not more else "kept" if log.kept else "lost"
    also = "report.overfitting.sets" if log.other_evals else ""
    if log.other_evals:
        rose = [len(c.values) and c.values[-1] > c.values[c.lowest] for c in others_of(log)]
        more |= {"set": log.eval_set, "sets": 1 + len(rose), "rose": 1 + sum(map(bool, rose))}
    return make(
        "overfitting",
        severity,
        evidence((best, "val_loss"), (last, "val_loss")),
        case=case,
        also=also,
        step=best.step,
        onset_step=val.rows[val.turn()[1]].step,
        best=low,
        last_step=last.step,
        last=float(val.values[-1]),
        rise=float(val.values[-1]) - low,
        kept=log.kept,
        **more,
    )


def stop_point(log: Log, train: Curve, val: Curve, onset: int | None) -> dict[str, Any] | None:
    """The earliest step that the log shows to be as good as the best, within the noise.

    Judged by the validation loss, where there is none by the training loss: then it is only the
    step from which more training bought no lower training loss.
    """
    c, why, at = val, "validation", 0
    if onset is not None:
        c, why = train, "diverged"
        at = int(np.argmin(train.values[: onset + 1]))
    elif len(val.values) >= 4:
        at = good_enough(val)
    elif len(train.values) >= 8 and fell(train):
        c, why, at = train, "training_loss", first_tiny(train)
    else:
        return None
    row = c.rows[at]
    steps = [r.step for r in (*log.steps, *log.evals)]
    # What is counted in epochs or rows may begin at 0, and the first of them was trained too.
    before, end = (1 - min(steps) if log.counted else 0), max(steps)
    saved = 1 - (row.step + before) / (end + before) if end else 0.0
    return {"step": row.step, "epoch": row.epoch, "saved_fraction": saved, "why": why}


def good_enough(val: Curve) -> int:
    """Index of the earliest evaluation as good as the best."""
    low, n = val.lowest, len(val.values)
    # Points that fall one by one to the best, and rise one by one from it, have little noise, and
    # what there is of it third differences show; too few for a law, they are taken as they stand.
    if single_turn(val.values) and (n < 10 or (n <= 12 and low <= n - 3)):
        rest = np.abs(np.diff(val.values, 3)) / math.sqrt(20) if n >= 10 else np.zeros(1)
        slack = max(2 * 1.4826 * float(np.median(rest)), NEGLIGIBLE * abs(float(val.values[low])))
        return int(np.flatnonzero(val.values <= val.values[low] + slack)[0])
    likely = as_good_as_the_best(val.steps, val.values, val.noise)
    return val.turn()[0] if likely is None else likely


def first_tiny(train: Curve) -> int:
    """First index from which the running median falls by less than a hundredth of its fall."""
    low = float(train.smooth.min())
    slack = SMALL_SHARE * float(train.smooth[0] - low)
    return int(np.flatnonzero(train.smooth <= low + slack)[0])


def could_have_stopped(
    log: Log,
    train: Curve,
    val: Curve,
    stop: dict[str, Any] | None,
    over: Finding | None,
    flat: bool,
) -> Finding | None:
    """A tenth of the run or more bought nothing that the log can show.

    By the training loss alone only where it is flat: on new data a slow fall is worth its steps.
    """
    if stop is None or (stop["why"] == "training_loss" and not flat):
        return None
    if stop is None or stop["why"] == "diverged" or stop["saved_fraction"] < 0.1:
        return None
    if log.stop is not None and log.stop.values.get("reason") == "early_stopping":
        return None  # The patience is the price of knowing it.
    c = val if stop["why"] == "validation" else train
    at = int(np.searchsorted(c.steps, stop["step"]))
    # Single training batches are too noisy to set against each other: take their running median.
    level = val.values if c is val else train.smooth
    low = int(np.argmin(level))
    if c is val and at == len(val.values) - 1:
        return None  # Nothing was measured after it: the rest may have been worth its steps.
    spent = log.runtime_seconds or max((row.seconds or 0.0 for row in c.rows), default=0.0)
    time: dict[str, Any] = {"saved_seconds": spent * stop["saved_fraction"]} if spent else {}
    end = max((r.epoch for r in (*log.steps, *log.evals) if r.epoch is not None), default=None)
    there = c.rows[at].epoch
    passes = {} if end is None or there is None else {"saved_epochs": end - there}
    also = ("time" if spent else "") + ("passes" if passes else "")
    return make(
        "could_have_stopped",
        "info" if over is None else "warning",
        evidence((c.rows[at], c.name), (c.rows[low], c.name)),
        case="best" if c is val and at == low else stop["why"],
        also=f"report.saved_{also}" if also else "",
        step=c.rows[at].step,
        loss=float(level[at]),
        best=float(level[low]),
        best_step=c.rows[low].step,
        saved=stop["saved_fraction"],
        **passes,
        **time,
    )


def still_improving(
    val: Curve, train: Curve, facts: dict[str, Any], rates: Curve, way: str
) -> Finding | None:
    """The judging loss fell beyond its noise in the last quarter of the run.

    Without a validation loss the training loss says so only where no data was seen many times.

    Args:
        val: the validation loss.
        train: the training loss.
        facts: the facts of the log.
        rates: the learning rate.
        way: where no law of the loss looks ahead, why: `decayed`, the rate had gone to its end, or
            `rising`, it was still in the warm-up; else empty.
    """
    held_out = len(val.values) >= 4
    c = val if held_out else train
    if held_out and val.lowest < len(val.values) - 2:
        return None
    if not held_out and (len(train.values) < 24 or (facts["epochs"] or 1.0) > FREE_PASSES):
        return None
    begin = c.steps[0] + 0.75 * (c.steps[-1] - c.steps[0])
    at = int(np.searchsorted(c.steps, begin, side="right")) - 1
    if held_out:
        fall, points = float(val.values[at] - val.values[val.lowest]), 1.0
        won = whole_fall(val.values)
    else:
        # The means of the third and the last quarter: each worth half its number of points.
        early, late = c.values[2 * at - len(c.values) : at], c.values[at:]
        fall, points = float(early.mean() - late.mean()), len(late) / 2
        won = whole_fall(c.smooth)
    if not won or not c.moved(fall, points) or fall < SMALL_SHARE * won:
        return None
    row, best = c.rows[at], c.rows[val.lowest if held_out else -1]
    told = None if way else ahead(c.steps, c.values, c.noise, points)
    then: dict[str, Any] = (
        {} if told is None else {f"ahead_{key}": value for key, value in vars(told).items()}
    )
    proof = evidence((row, c.name), (best, c.name))
    also = f"report.still_improving.{way or 'ahead'}" if way or then else ""
    if way:
        then = {"rate": float(rates.values[-1]), "rate_step": rates.rows[-1].step}
        proof += evidence((rates.rows[-1], rates.name))
    return make(
        "still_improving",
        "info",
        proof,
        case="validation" if held_out else "training",
        also=also,
        **then,
        step=row.step,
        loss=float(c.values[at]) if held_out else float(early.mean()),
        best_step=best.step,
        best=float(c.values[val.lowest]) if held_out else float(late.mean()),
        part=fall / won,
    )


def plateau(val: Curve, train: Curve, facts: dict[str, Any]) -> Finding | None:
    """The judging loss stopped moving, by a test that could have seen a hundredth of its fall.

    Where the same data was seen over and over, also: the last half of the run or more brought less
    than a hundredth of the fall, however exactly it can be seen.
    """
    c = val if len(val.values) >= 8 else train
    n = len(c.values)
    if n < 12 or not fell(c):
        return None
    won = whole_fall(c.smooth)
    first = c.steps[0] + 0.75 * (c.steps[-1] - c.steps[0])
    for begin in sorted({int(i) for i in np.linspace(n // 20, n - 8, 80)}):
        if c.steps[begin] > first:
            return None
        half = (n - begin) // 2
        early, late = c.values[begin : begin + half], c.values[begin + half :]
        move = float(np.median(early) - np.median(late))
        error = 1.25 * c.noise * math.sqrt(1 / len(early) + 1 / len(late))
        opening = float(np.median(early[: max(3, half // 4)]))
        level = abs(opening - float(np.median(late))) + 2 * error <= SMALL_SHARE * won
        still = level and abs(move) <= 2 * error
        drag = (
            level
            and (facts["epochs"] or 0) > FREE_PASSES
            and c.steps[begin] <= c.steps[0] + 0.5 * (c.steps[-1] - c.steps[0])
            and move > -2 * error
        )
        if still or drag:
            row, last = c.rows[begin], c.rows[-1]
            return make(
                "plateau",
                "info",
                evidence((row, c.name), (last, c.name)),
                case="validation" if c is val else "training",
                step=row.step,
                last_step=last.step,
                part=(last.step - row.step) / last.step if last.step else 0.0,
                early=float(np.median(early)),
                late=float(np.median(late)),
                won=won,
            )
    return None


def no_validation(log: Log, train: Curve) -> Finding | None:
    """No loss on text that was held out. The loss of reinforcement would not say more of it."""
    if (
        log.objective == "reinforcement"
        or any(row.values.get("val_loss") is not None for row in log.evals)
        or not any("train_loss" in row.values for row in log.steps)
    ):
        return None
    rows = [(train.rows[-1], "train_loss")] if train.rows else []
    measure = held_out_measure(log)
    if measure is None:
        # Our own evaluations measure the training data where nothing was held out.
        more = bool(log.evals) and log.format != "yunque"
        known: dict[str, Any] = {"evals": len(log.evals)} if more else {}
        return make(
            "no_validation",
            "warning",
            evidence(*rows),
            case="evaluated" if known else "",
            loss_rows=len(train.values),
            **known,
        )
    c, up = measure
    best, last = c.rows[int(np.argmax(c.values if up else -c.values))], c.rows[-1]
    return make(
        "no_validation",
        "warning",
        evidence(*rows, (best, c.name), (last, c.name)),
        case="measured",
        loss_rows=len(train.values),
        metric=c.name,
        evals=len(c.values),
        step=best.step,
        value=best.number(c.name),
        last_value=last.number(c.name),
        last_step=last.step,
    )


def memorisation_risk(log: Log, train: Curve, facts: dict[str, Any], short: bool) -> Finding | None:
    """Many passes over the same data: nothing held out, or a training loss that came near zero."""
    passes = facts["epochs"]
    if passes is None or passes <= FREE_PASSES or short or not fell(train):
        return None
    first, last = train.rows[0], train.rows[-1]
    level = float(np.median(train.values[-max(3, len(train.values) // 10) :]))
    first_loss = float(train.values[0])
    near_zero = abs(level) < 0.1 * first_loss and passes >= 10
    held_out = facts["best_val_loss"] is not None or held_out_measure(log) is not None
    if held_out and not near_zero:
        return None
    known: dict[str, Any] = {"examples": log.examples} if log.examples else {}
    proof = evidence((last, "epoch"), (first, "train_loss"), (last, "train_loss"))
    weights, tokens = whole(log.settings.get("parameters")), log.settings.get("tokens")
    size = whole(tokens.get("train")) if isinstance(tokens, Mapping) else None
    # A weight holds about two bits (Allen-Zhu and Li 2024, arXiv:2404.05405), a token of text more.
    roomy = bool(weights and size and weights >= ENOUGH_WEIGHTS * size)
    if roomy and weights and size and log.start is not None:
        known |= {"parameters": weights, "each": weights / size}
        proof += evidence((log.start, "parameters"))
    case = "held_out" if held_out else "examples" if log.examples else ""
    case = case if near_zero else "possible"
    return make(
        "memorisation_risk",
        "warning" if held_out or not near_zero else "problem",
        proof,
        case=case,
        also="report.memorisation_risk.size" if roomy else "",
        passes=passes,
        first=first_loss,
        last=float(train.values[-1]),
        **known,
    )


def data_repeated(train: Curve, facts: dict[str, Any], risk: Finding | None) -> Finding | None:
    """More passes over the same data than are worth as much as new data."""
    passes = facts["epochs"]
    if passes is None or passes <= FREE_PASSES or risk is not None or not train.rows:
        return None
    row = train.rows[-1]
    return make("data_repeated", "info", evidence((row, "epoch")), passes=passes, free=FREE_PASSES)


def throughput(log: Log) -> Finding | None:
    """Tokens a second, and whether they fell for good."""
    c = curve(log.steps, "tokens_per_second")
    if len(c.values) < 8:
        return None
    quarter = len(c.values) // 4
    early, late = float(np.median(c.values[:-quarter])), float(np.median(c.values[-quarter:]))
    slow = late < 0.8 * early
    parts: dict[str, Any] = {"early": early, "late": late} if slow else {}
    return make(
        "throughput",
        "warning" if slow else "info",
        evidence((c.rows[len(c.rows) // 2], c.name), (c.rows[-1], c.name)),
        case="slower" if slow else "",
        tokens_per_second=float(np.median(c.values)),
        **parts,
    )


def memory(log: Log) -> Finding | None:
    """The most memory that a row names."""
    c = curve(log.steps, "memory_bytes")
    if not len(c.values) or c.values.max() <= 0:
        return None
    row, top = c.rows[int(np.argmax(c.values))], int(c.values.max())
    room, proof = whole(log.settings.get("device_bytes")), evidence((row, c.name))
    known: dict[str, Any] = {}
    # A row may name more than the device has where a part was swapped out: nothing to say then.
    if room and room >= top and log.start is not None:
        known = {"room_bytes": room, "headroom": 1 - top / room}
        proof += evidence((log.start, "device_bytes"))
    also = "report.memory.room" if known else ""
    return make("memory", "info", proof, also=also, bytes=top, step=row.step, **known)


def forecast(log: Log) -> Finding | None:
    """The time and the memory that were forecast before the run, against what it took."""
    told = None if log.start is None else log.start.values.get("forecast")
    if log.start is None or log.stop is None or not isinstance(told, Mapping):
        return None
    if log.stop.values.get("reason") != "steps":
        return None  # A forecast is one of the whole run.
    asked = Record(log.start.row, 0, None, None, None, told)
    seconds, most = asked.number("seconds"), curve(log.steps, "memory_bytes")
    room, spent = asked.number("memory_bytes"), log.stop.seconds
    proof, numbers = evidence((log.start, "forecast")), dict[str, Any]()
    said: list[Text] = []
    if seconds and spent:
        numbers |= {"forecast_seconds": seconds, "spent_seconds": spent, "times": spent / seconds}
        said.append(tell("report.forecast.time", **numbers))
        proof += evidence((log.stop, "seconds"))
    if room and len(most.values) and most.values.max() > 0:
        row = most.rows[int(np.argmax(most.values))]
        top = float(most.values.max())
        more = {"forecast_bytes": room, "bytes": top, "memory_times": top / room}
        said.append(tell("report.forecast.memory", **more))
        numbers |= more
        proof += evidence((row, "memory_bytes"))
    if not said:
        return None
    advice = tell("report.forecast.advice")
    return Finding("forecast", "info", numbers, proof, joined(said), advice)
