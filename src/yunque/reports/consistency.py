"""What a log says about itself: its figures against each other, its order, its end, its losses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from yunque.reports.curve import Curve, curve
from yunque.reports.findings import Finding, Text, evidence, joined, make
from yunque.reports.log import Log, Record, whole
from yunque.reports.names import higher_is_better
from yunque.words.report import tell

LARGEST_VOCABULARY = 300_000
"""Tokens: more than any common tokenizer has (Gemma's 262,144 is the largest of them)."""
LEAST_FLOPS = 1e9
"""Of one example: 6 · parameters · tokens (Kaplan et al. 2020, arXiv:2001.08361, section 2.1) of
a model of a million parameters on 160 tokens."""
FEW_EXAMPLES = 30
"""Held-out examples below which their mean hangs on single ones: it is uncertain by more than a
sixth (1/sqrt(30)) of what parts one example from another."""
FEW_TOKENS = 1000
"""The same in tokens, where a log tells these: 30 short sentences."""
MANY_PASSES = 10
NEAR_ZERO = 0.05
"""A validation loss that fell below that part of its first value over so many passes: text that was
really held out rarely comes so low while the training text is learned by heart."""
PACKED = 0.7
"""Of the parameters that a model's name promises. A 4-bit layer keeps two weights in a byte: a
count of its bytes finds half of them, and a base with its embeddings 52 to 60 %."""


def validation_doubtful(log: Log, val: Curve, passes: float | None) -> Finding | None:
    """The held-out set is tiny, holds copies of training documents, or looks as if it did."""
    if not len(val.values):
        return None
    cases: list[tuple[str, dict[str, Any]]] = []
    proof: list[dict[str, Any]] = []
    for row in log.warnings:
        counts = row.values.get("numbers")
        if row.values.get("id") == "data.near_copies" and isinstance(counts, Mapping):
            copied, total = whole(counts.get("count")), whole(counts.get("total"))
            if copied and total:
                cases.append(("copies", {"copied": copied, "total": total}))
                proof += evidence((row, "id"))
    first, tokens = val.rows[0], log.settings.get("tokens")
    held = whole(tokens.get("val")) if isinstance(tokens, Mapping) else None
    prefix = first.names.get("val_loss", "").removesuffix("loss")  # eval_, eval_SET_
    names = [f"{prefix}samples_per_second", f"{prefix}runtime"]
    rate, seconds = map(first.number, names)
    if held and held < FEW_TOKENS and log.start is not None:
        cases.append(("tokens", {"held_out_tokens": held}))
        proof += evidence((log.start, "tokens"))
    elif rate and seconds and 0.5 <= rate * seconds < FEW_EXAMPLES - 0.5:
        cases.append(("examples", {"held_out": round(rate * seconds)}))
        proof += evidence(*[(first, name) for name in names])
    level, begun = float(np.median(val.values[-3:])), float(val.values[0])
    if len(val.values) >= 4 and (passes or 0) >= MANY_PASSES and level < NEAR_ZERO * begun:
        ends = {"val_first": begun, "val_last": float(val.values[-1])}
        cases.append(("near_zero", {"passes": passes, "val_step": val.rows[-1].step, **ends}))
        proof += evidence((first, "val_loss"), (val.rows[-1], "val_loss"))
    if not cases:
        return None
    numbers = {key: value for _, found in cases for key, value in found.items()}
    text = joined([tell(f"report.validation_doubtful.{case}", **numbers) for case, _ in cases])
    sure = any(case in ("copies", "near_zero") for case, _ in cases)
    severity = "warning" if sure else "info"
    advice = tell("report.validation_doubtful.advice")
    return Finding("validation_doubtful", severity, numbers, proof, text, advice)


def mean_is_not_last_loss(log: Log, train: Curve) -> Finding | None:
    """The mean over the run, which summaries call train_loss, is not the loss at the end."""
    mean, summary = log.mean_train_loss, log.summary
    if mean is None or summary is None:
        return None
    if not len(train.values):
        return make(
            "mean_is_not_last_loss",
            "warning",
            evidence((summary, "train_loss")),
            case="alone",
            mean=mean,
        )
    last = train.rows[-1]
    level = float(np.median(train.values[-max(3, len(train.values) // 10) :]))
    if abs(mean - level) < 0.1 * abs(level) or len(train.values) < 8:
        return None
    return make(
        "mean_is_not_last_loss",
        "info",
        evidence((summary, "train_loss"), (last, "train_loss")),
        mean=mean,
        last=float(train.values[-1]),
        last_step=last.step,
    )


def log_incomplete(log: Log, facts: dict[str, Any]) -> Finding | None:
    """The log ends before the run was meant to end, or holds no curve."""
    if log.format == "trainer_results":
        assert log.summary is not None
        return make(
            "log_incomplete", "warning", evidence((log.summary, "train_runtime")), case="summary"
        )
    done, asked = facts["steps"], log.asked_steps
    rows = [*log.steps, *log.evals]
    if not done or not asked or done >= 0.99 * asked or not rows:
        return None
    last = max(rows, key=lambda row: row.step)
    steps = sorted({row.step for row in log.steps or log.evals})
    if log.total_steps is None and done + max(np.diff(steps), default=0) >= asked:
        return None  # The next row of the log would have come after the end.
    return make(
        "log_incomplete",
        "warning" if done < 0.5 * asked else "info",
        evidence((last, "step")),
        case="steps",
        steps=done,
        asked=asked,
        part=done / asked,
    )


def log_inconsistent(log: Log, facts: dict[str, Any]) -> Finding | None:
    """Figures of the log that contradict each other; one finding, a sentence each."""
    said: list[Text] = []
    numbers: dict[str, Any] = {}
    proof: list[dict[str, Any]] = []

    def add(key: str, rows: list[tuple[Record, str]], **found: Any) -> None:
        said.append(tell(f"report.log_inconsistent.{key}", **found))
        numbers.update(found)
        proof.extend(e for e in evidence(*rows) if e not in proof)

    sizes, model = log.settings.get("sizes"), log.settings.get("model_name")
    if isinstance(sizes, Record):
        every, trained = sizes.number("all_params"), sizes.number("trainable_params")
        percent, name = sizes.number("trainable_percent"), ""
        if isinstance(model, Record):
            name = str(model.values["model"])
        named = 1e9 * float(re.split(r"[-_]", name)[-1][:-1]) if name else 0.0
        rows = [(sizes, "all_params")]
        if every and named and every < PACKED * named:
            add("packed", rows, all_params=round(every), model=name, packed=every / named)
        elif (
            every and trained and percent and abs(100 * trained / every - percent) > 0.01 * percent
        ):
            share = 100 * trained / every
            add(
                "share", [*rows, (sizes, "trainable_percent")], percent=percent, share_percent=share
            )
    epochs, steps, summary = facts["epochs"], facts["steps"], log.summary
    last = max((*log.steps, *log.evals), key=lambda row: row.step, default=None)
    ended = log.asked_steps is None or (steps or 0) >= log.asked_steps
    if log.asked_epochs and epochs and ended and log.asked_epochs >= math.ceil(epochs) + 1:
        row = summary or last
        add(
            "epochs",
            [(row, "epoch")] if row else [],
            asked_epochs=log.asked_epochs,
            epochs=epochs,
        )
    if summary is not None:
        seconds = summary.number("train_runtime") or 0.0
        rate = summary.number("train_samples_per_second")
        pace = summary.number("train_steps_per_second")
        shown = (rate or 0.0) * seconds
        if log.examples and epochs and rate:
            trained = log.examples * epochs
            if abs(shown - trained) > 0.01 * trained + 0.0006 * seconds:
                rows = [(summary, "train_samples_per_second"), (summary, "train_runtime")]
                add(
                    "rate",
                    rows,
                    rate=rate,
                    shown=round(shown),
                    trained=round(trained),
                    examples=log.examples,
                    passes=epochs,
                )
        if pace and steps and abs(pace * seconds - steps) > 0.02 * steps + 0.0006 * seconds:
            rows = [(summary, "train_steps_per_second"), (summary, "train_runtime")]
            add("pace", rows, pace=pace, paced=round(pace * seconds), steps=steps)
        if rate and pace and rate + 0.001 < pace:  # Both are rounded to three places.
            rows = [(summary, "train_samples_per_second"), (summary, "train_steps_per_second")]
            add("batch", rows, rate=rate, pace=pace)
        flops = summary.number("total_flos")
        if flops and shown >= 1 and flops / shown < LEAST_FLOPS:
            add(
                "flops",
                [(summary, "total_flos")],
                flops=flops,
                shown=round(shown),
                flops_each=flops / shown,
            )
        mean, rows_mean = log.mean_train_loss, mean_of_rows(log, steps)
        if mean and rows_mean and abs(mean - rows_mean) > 0.05 * rows_mean:
            add("mean", [(summary, "train_loss")], mean=mean, rows_mean=rows_mean)
    if log.unread:
        add("unread", [], unread=log.unread)
    if log.order.unsorted:
        add("unsorted", [], unsorted=log.order.unsorted)
    if log.order.repeated and not log.order.resumed:
        add("repeated", [], repeated=log.order.repeated)
    if not said:
        return None
    advice = tell("report.log_inconsistent.advice")
    return Finding("log_inconsistent", "info", numbers, proof, joined(said), advice)


def mean_of_rows(log: Log, steps: int | None) -> float | None:
    """The mean of the logged losses, where each stands for the same number of updates."""
    train = curve(log.steps, "train_loss")
    gaps = np.diff(train.steps)
    if len(gaps) < 8 or not np.all(gaps == gaps[0]) or train.steps[0] != gaps[0]:
        return None
    if len(train.values) < sum("train_loss" in r.values for r in log.steps):
        return None
    return float(train.values.mean()) if steps and train.steps[-1] > 0.9 * steps else None


def resumed_run(log: Log) -> Finding | None:
    """The step went back in the file: the run was resumed, or begun anew."""
    jumps, case = log.order.resumed, "resumed"
    if not jumps:
        jumps, case = log.order.restarted, "restarted"
    if not jumps:
        return None
    one = jumps[-1]
    return make(
        "resumed_run",
        "info",
        [
            {"row": row.row, "field": row.names.get("step", "step"), "value": row.step}
            for row in (one.before, one.after)
        ],
        case=case,
        times=len(jumps),
        before=one.before.step,
        after=one.after.step,
        repeated=log.order.repeated,
    )


def epoch_staircase(train: Curve) -> Finding | None:
    """The training loss steps down where a new pass begins, and not in the middle of one."""
    epochs = np.array([row.epoch if row.epoch is not None else math.nan for row in train.rows])
    if len(epochs) < 24 or np.isnan(epochs).any() or epochs[-1] < 1.5:
        return None
    each = len(epochs) / float(epochs[-1] - epochs[0]) if epochs[-1] > epochs[0] else 0.0
    # As many rows as a third of a pass on either side: the middle of a pass keeps its own.
    reach = int(each // 3)
    if reach < 4:
        return None

    def fall(place: float) -> tuple[float, float] | None:
        at = int(np.searchsorted(epochs, place + 1e-9, side="right"))
        if at < reach or at + reach > len(epochs):
            return None
        before, after = train.values[at - reach : at], train.values[at : at + reach]
        error = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / reach)
        return float(before.mean() - after.mean()), error

    # What a smooth fall would bring at the boundary: the geometric mean of the falls half a pass
    # before and after it, exact for an exponential and more than enough for a power of the step.
    ends = [k for k in range(1, math.ceil(epochs[-1])) if fall(k) and fall(k - 0.5)]
    excess = spread = 0.0
    for k in ends:
        (step, e0), (before, e1) = fall(k) or (0.0, 0.0), fall(k - 0.5) or (0.0, 0.0)
        after, e2 = fall(k + 0.5) or (before, e1)
        excess += step - math.sqrt(max(before, 0.0) * max(after, 0.0))
        spread += e0**2 + (e1**2 + e2**2) / 4
    if not ends or excess < 4.5 * math.sqrt(spread):
        return None
    if excess / len(ends) < 0.01 * float(np.median(train.values)):
        return None
    top = max(ends, key=lambda k: (fall(k) or (0.0, 0.0))[0])
    at = int(np.searchsorted(epochs, top + 1e-9, side="right"))
    lower, upper = train.values[at : at + reach], train.values[at - reach : at]
    return make(
        "epoch_staircase",
        "info",
        evidence((train.rows[at - 1], "train_loss"), (train.rows[at], "train_loss")),
        epoch=top,
        step=train.rows[at].step,
        before=float(upper.mean()),
        after=float(lower.mean()),
        rows=reach,
        boundaries=len(ends),
    )


def abnormal_start_loss(log: Log, train: Curve) -> Finding | None:
    """The first loss is above that of blind guessing, or a loss is exactly 0 and stays it."""
    if not len(train.values) or log.objective != "prediction":
        return None
    first, row = float(train.values[0]), train.rows[0]
    blind = math.log(LARGEST_VOCABULARY)
    zeros = min(3, len(train.values))
    if zeros == 3 and not np.any(train.values[:zeros]):
        return make(
            "abnormal_start_loss",
            "problem",
            evidence((row, "train_loss")),
            case="zero",
            step=row.step,
        )
    begin = (
        len(train.values) - int(np.argmax(train.values[::-1] != 0)) if np.any(train.values) else 0
    )
    # Losses that fell to 0.0001 may be rounded to 0; from a hundredth on, no row falls there.
    if 0 < begin <= len(train.values) - 3 and train.values[begin - 1] > 0.01:
        before, start, last = train.rows[begin - 1], train.rows[begin], train.rows[-1]
        return make(
            "abnormal_start_loss",
            "problem",
            evidence((before, "train_loss"), (start, "train_loss"), (last, "train_loss")),
            case="zero_from",
            step=start.step,
            last_step=last.step,
            before=float(train.values[begin - 1]),
            before_step=before.step,
            rows=len(train.values) - begin,
        )
    if first <= 1.02 * blind + 0.1:
        return None
    return make(
        "abnormal_start_loss",
        "warning",
        evidence((row, "train_loss")),
        case="high",
        step=row.step,
        loss=first,
        blind=blind,
        vocabulary=LARGEST_VOCABULARY,
    )


def losses_not_comparable(train: Curve, val: Curve) -> Finding | None:
    """Training and validation loss are of different size in a way that no overfitting explains."""
    if len(val.values) < 4 or len(train.values) < 8:
        return None
    # The training level about each evaluation: the median of the rows nearest to it.
    reach = max(2, min(10, len(train.values) // (2 * len(val.values))))
    levels = []
    for step in val.steps:
        at = int(np.searchsorted(train.steps, step))
        levels.append(float(np.median(train.values[max(0, at - reach) : at + reach])))
    ratio = np.array(levels) / np.maximum(val.values, 1e-12)
    if np.any(val.values <= 0):
        return None
    later = ratio[len(ratio) // 10 :]
    row = val.rows[-1]
    if later.min() > 1.05 and np.median(later) > 1.15:
        return make(
            "losses_not_comparable",
            "info",
            evidence((row, "val_loss"), (train.rows[-1], "train_loss")),
            case="above",
            val=float(val.values[-1]),
            train=levels[-1],
            step=row.step,
            ratio=float(np.median(later)),
            evals=len(val.values),
        )
    won = float(train.values[0] - train.values.min())
    early = float(train.values[0]) - levels[0] <= 0.1 * won
    if not early or ratio[0] > 0.8:
        return None
    row = val.rows[0]
    return make(
        "losses_not_comparable",
        "info",
        evidence((row, "val_loss"), (train.rows[0], "train_loss")),
        case="start",
        val=float(val.values[0]),
        train=float(train.values[0]),
        step=row.step,
        train_step=train.rows[0].step,
    )


def metric_disagrees_with_loss(log: Log, val: Curve) -> Finding | None:
    """A held-out metric got better beyond its noise while the validation loss got worse, or the
    reverse."""
    if len(val.values) < 6:
        return None
    names = {name for row in log.evals for name in row.values}
    for name in sorted(names):
        up = higher_is_better(name)
        if up is None:
            continue
        metric = curve(log.evals, name)
        if len(metric.values) < 6 or not np.isfinite(metric.noise):
            continue
        gain = metric.values if up else -metric.values
        half = val.lowest
        after = val.values[half + 1 :]
        tail = max(2, len(metric.values) // 4)
        at = int(np.searchsorted(metric.steps, val.steps[half]))
        there = gain[max(0, at - 1) : at + 2]
        late = float(np.median(gain[-tail:]))
        change = late - float(np.median(there))
        beyond = abs(change) > 4 * metric.noise * math.sqrt(1 / tail + 1 / len(there))
        luck = val.noise * math.sqrt(2 * math.log(len(val.values)))
        rose = len(after) >= 3 and val.moved(float(np.median(after[-3:]) - val.values[half]) - luck)
        fell_too = val.moved(float(val.values[0] - val.values[-1])) and half >= len(val.values) - 3
        early = float(np.median(gain[:tail]))
        lost = early - late > 4 * metric.noise * math.sqrt(2 / tail)
        if (rose and change > 0 and beyond) or (fell_too and lost):
            case = "better" if rose else "worse"
            first = metric.rows[at] if rose else metric.rows[0]
            begin = val.rows[half] if rose else val.rows[0]
            return make(
                "metric_disagrees_with_loss",
                "warning",
                evidence(
                    (begin, "val_loss"),
                    (val.rows[-1], "val_loss"),
                    (first, name),
                    (metric.rows[-1], name),
                ),
                case=case,
                metric=name,
                step=begin.step,
                loss=begin.number("val_loss"),
                last_step=val.rows[-1].step,
                last_loss=float(val.values[-1]),
                value=first.number(name),
                last_value=float(metric.values[-1]),
            )
    return None


def not_a_loss_objective(log: Log, train: Curve) -> Finding | None:
    """The loss of a reinforcement or preference trainer does not say how well text is predicted."""
    if log.objective == "prediction":
        return None
    rows = [(train.rows[-1], "train_loss")] if train.rows else []
    rewards = curve(log.steps, reward_name(log)) if reward_name(log) else None
    if rewards is None or len(rewards.values) < 2:
        return make(
            "not_a_loss_objective",
            "info",
            evidence(*rows),
            case=log.objective,
            loss_rows=len(train.values),
        )
    first, last = rewards.rows[0], rewards.rows[-1]
    return make(
        "not_a_loss_objective",
        "info",
        evidence(*rows, (first, rewards.name), (last, rewards.name)),
        case=log.objective,
        also="report.reward",
        loss_rows=len(train.values),
        name=rewards.name,
        first_reward=float(rewards.values[0]),
        first_step=first.step,
        last_reward=float(rewards.values[-1]),
        last_step=last.step,
    )


def reward_name(log: Log) -> str:
    """The column that says how well the aim of such a trainer was met."""
    names = {name for row in log.steps for name in row.values}
    wanted = ("reward", "rewards/mean", "reward_mean", "objective/rlhf_reward", "rewards/margins")
    for one in wanted:
        for name in sorted(names):
            if name == one or name.endswith(f"/{one}"):
                return name
    return ""
