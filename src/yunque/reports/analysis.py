"""Log → facts, findings, stages, verdict, and what the log cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yunque.reports.beginning import worse_than_base
from yunque.reports.consistency import (
    abnormal_start_loss,
    epoch_staircase,
    log_incomplete,
    log_inconsistent,
    losses_not_comparable,
    mean_is_not_last_loss,
    metric_disagrees_with_loss,
    not_a_loss_objective,
    resumed_run,
    validation_doubtful,
)
from yunque.reports.curve import CLEAR, FEW, SMALL_SHARE, Curve, curve, fell, whole_fall
from yunque.reports.exams import (
    best_kept,
    exam_better,
    exam_numbers,
    exam_worse,
    last_paired,
    paired_numbers,
    sat,
)
from yunque.reports.findings import (
    FREE_PASSES,
    Finding,
    Text,
    best_step,
    could_have_stopped,
    data_repeated,
    diverged,
    divergence_onset,
    forecast,
    joined,
    make,
    memorisation_risk,
    memory,
    no_validation,
    non_finite,
    overfitting,
    plateau,
    still_improving,
    stop_point,
    throughput,
    too_short_to_judge,
)
from yunque.reports.log import Log, Record
from yunque.reports.metrics import held_out_measure
from yunque.reports.names import SHARES, meanings, words_of
from yunque.reports.rewards import reward_fell
from yunque.reports.rises import (
    ended_worse,
    lost_much,
    other_set_rose,
    training_flat,
    validation_unmoved,
)
from yunque.reports.schedule import (
    finished,
    learning_rate_too_high,
    learning_rate_zero,
    schedule,
)
from yunque.reports.spikes import gradient_spike, loss_spike
from yunque.reports.yardsticks import below_counting, copied_text, ngram_yardstick, yardsticks
from yunque.words.report import counted_in, tell


@dataclass(frozen=True)
class Analysis:
    """All that the report says about a log."""

    facts: dict[str, Any]
    verdict: dict[str, Any]
    stages: list[dict[str, Any]]
    stop: dict[str, Any] | None
    findings: list[Finding]
    unknown: list[dict[str, Any]]

    def finding(self, id: str) -> Finding | None:
        """The finding of that id, None where it was not made."""
        return next((f for f in self.findings if f.id == id), None)


def analyse(log: Log) -> Analysis:
    """Everything that the log supports."""
    train, val = curve(log.steps, "train_loss"), curve(log.evals, "val_loss")
    facts = facts_of(log, train, val)
    if log.format == "unknown":
        return not_a_training_log(log, facts)
    rates, norms = curve(log.steps, "learning_rate"), curve(log.steps, "grad_norm")
    short = too_short_to_judge(train, val)
    # The loss of a reinforcement trainer need not fall, and its rise is no failure.
    silent = short is not None or log.objective == "reinforcement"
    onset = None if silent else divergence_onset(train)
    idle = learning_rate_zero(rates, train)
    still_born = idle is not None and idle.severity == "problem"
    over = None if silent or onset is not None or still_born else overfitting(log, train, val)
    stop = None if silent else stop_point(log, train, val, onset)
    if stop is not None and stop["why"] == "validation" and over is None and not was_lower(val):
        stop = None  # Where nothing fell, the first evaluation is not as good as it gets.
    # Of a loss that is NaN at the end, or 0, nothing says how it would have gone on.
    broken = ends_broken(log.steps, "train_loss")
    strange = abnormal_start_loss(log, train)
    zeroed = strange is not None and "before" in strange.numbers
    calm = not silent and onset is None and over is None and not broken and not zeroed
    stop = None if zeroed else stop
    risk = memorisation_risk(log, train, facts, silent)
    plan = schedule(log, rates, norms)
    rising = plan is not None and plan.numbers["form"] == "rising"
    way = "rising" if rising else "decayed" if finished(rates) else ""
    stairs = epoch_staircase(train) if not silent else None
    more = still_improving(val, train, facts, rates, way) if calm else None
    if more is not None and stairs is not None and len(val.values) < 4:
        more = None  # What fell are the stairs; within a pass nothing need have.
    # A loss that still falls is on no plateau, and what it cost was not for nothing.
    still = plateau(val, train, facts) if calm and more is None else None
    flat = still is not None or (facts["epochs"] or 0.0) > FREE_PASSES
    found = [
        not_a_loss_objective(log, train),
        reward_fell(log),
        short,
        non_finite(log, facts),
        diverged(train, onset),
        learning_rate_too_high(rates, train, onset),
        idle,
        over,
        ended_worse(log, train, val) if calm and not still_born else None,
        best_step(log, val),
        could_have_stopped(log, train, val, stop, over, flat),
        more,
        still,
        no_validation(log, train),
        validation_doubtful(log, val, facts["epochs"]),
        validation_unmoved(train, val) if calm else None,
        training_flat(train) if calm and not still_born and not was_lower(val) else None,
        other_set_rose(log) if not silent and over is None else None,
        risk,
        data_repeated(train, facts, risk),
        worse_than_base(log, val),
        strange,
        loss_spike(log, train, onset),
        gradient_spike(log, norms),
        plan,
        stairs,
        None if silent or onset is not None else losses_not_comparable(train, val),
        metric_disagrees_with_loss(log, val) if not silent else None,
        mean_is_not_last_loss(log, train),
        log_incomplete(log, facts),
        log_inconsistent(log, facts),
        resumed_run(log),
        throughput(log),
        memory(log),
        forecast(log),
        ngram_yardstick(log, val),
        copied_text(log),
    ]
    if stop is not None and stop["why"] == "training_loss" and not flat:
        stop = None
    findings = [f for f in found if f is not None]
    if any(f.id == "worse_than_base" and f.numbers.get("lost") is not None for f in findings):
        first = tell("report.worse_than_base.first")
        by_loss = ("best_step", "still_improving")
        findings = [replace(f, advice=first) if f.id in by_loss else f for f in findings]
    stages = [] if silent else stages_of(train, val, onset, over)
    analysis = Analysis(facts, {}, stages, stop, findings, unknown_of(log, facts))
    verdict = verdict_of(log, analysis, train, val)
    return as_counted(replace(analysis, verdict=verdict), log.counted)


def as_counted(analysis: Analysis, counted: str) -> Analysis:
    """The analysis with its sentences about what the log counts, where that is not steps.

    What does not agree in a log's own figures is about true steps, if about any.
    """
    verdict = analysis.verdict | {"text": counted_in(analysis.verdict["text"], counted)}
    found = [
        f
        if f.id == "log_inconsistent"
        else replace(
            f,
            text=counted_in(f.text, counted),
            advice=counted_in(f.advice, counted, numbered=True),
        )
        for f in analysis.findings
    ]
    return replace(analysis, verdict=verdict, findings=found)


def facts_of(log: Log, train: Curve, val: Curve) -> dict[str, Any]:
    """The contract's facts; None where the log does not tell."""
    rows = [*log.steps, *log.evals]
    last = max(rows, key=lambda row: row.step, default=None)
    seconds = [row.seconds for row in rows if row.seconds is not None]
    spent = log.runtime_seconds or max(seconds, default=None)
    losses, lowest = train.values, train.lowest if len(train.values) else 0
    # Our own log has a row for each update; elsewhere a row may stand for many.
    mean = float(losses.mean()) if log.format == "yunque" and len(losses) else log.mean_train_loss
    steps = last.step if last and not log.counted else None
    steps = log.total_steps if log.total_steps is not None else steps
    return {
        "steps": steps,
        "epochs": log.epochs
        if log.epochs is not None
        else max((row.epoch for row in rows if row.epoch is not None), default=None),
        "examples": log.examples,
        "hours": None if spent is None else spent / 3600,
        "first_train_loss": float(losses[0]) if len(losses) else None,
        "last_train_loss": float(losses[-1]) if len(losses) else None,
        "lowest_train_loss": float(losses[lowest]) if len(losses) else None,
        "lowest_train_step": train.rows[lowest].step if len(losses) else None,
        "mean_train_loss": mean,
        "best_val_loss": float(val.values[val.lowest]) if len(val.values) else None,
        "best_val_step": val.rows[val.lowest].step if len(val.values) else None,
        "last_val_loss": float(val.values[-1]) if len(val.values) else None,
        "loss_rows": sum(isinstance(r.values.get("train_loss"), int | float) for r in log.steps),
        "eval_rows": sum("val_loss" in row.values for row in log.evals) or len(log.evals),
        "non_finite_rows": sum(bool(row.non_finite) for row in rows),
    }


SHOWN_COLUMNS = 12


def not_a_training_log(log: Log, facts: dict[str, Any]) -> Analysis:
    """The result for a file that is no training log: what it is instead, as far as can be seen."""
    empty = dict.fromkeys(facts)
    names = meanings(log.columns)[0]
    losses = [names[name] for name in ("train_loss", "val_loss") if name in names]
    told: dict[str, Any] = {}
    case = "line" if log.first_line else ""
    if log.columns:
        more = " …" if len(log.columns) > SHOWN_COLUMNS else ""
        told = {"columns": ", ".join(log.columns[:SHOWN_COLUMNS]) + more}
        shares = [name for name in log.columns if set(SHARES) & set(words_of(name))]
        case = "shares" if shares else "columns"
        if losses:
            told |= {"loss": losses[0]}
            case = "values" if {"step", "epoch"} & set(names) else "steps"
        elif shares:
            told |= {"shares": ", ".join(shares[:SHOWN_COLUMNS])}
    elif case:
        told = {"line": log.first_line}
    finding = make("not_a_training_log", "problem", [], case=case, **told)
    verdict = {"id": "cannot_tell", "text": finding.text}
    return Analysis(empty, verdict, [], None, [finding], [])


def staged_curve(train: Curve, val: Curve, diverged: bool, overfitted: bool) -> Curve:
    """The loss whose fall the stages share: of validation where it was measured from early on."""
    early = len(val.values) >= 6 and val.steps[0] <= 0.05 * val.steps[-1]
    return val if overfitted or (early and not diverged) else train


def stages_of(
    train: Curve, val: Curve, onset: int | None, over: Finding | None
) -> list[dict[str, Any]]:
    """The run in stages: fast (to 90 % of the improvement), refinement (to 99 % of it, or to
    within the noise), plateau; then overfitting or divergence where they were found."""
    c = staged_curve(train, val, onset is not None, over is not None)
    if len(c.values) < 4:
        return []
    end = len(c.values) - 1
    turn = end if onset is None or c is not train else onset
    turn = c.lowest if over is not None else turn
    envelope = np.minimum.accumulate(c.smooth[: turn + 1])
    won = float(envelope[0] - envelope[-1])
    if not (fell(c) or over is not None or onset is not None):
        won = 0.0
    bounds = [("plateau", 0, turn)]
    if won > 0:
        close = envelope[-1] + max(SMALL_SHARE * won, c.noise if c.noise < 0.1 * won else 0.0)
        most = int(np.flatnonzero(envelope <= envelope[0] - 0.9 * won)[0])
        near = max(most, int(np.flatnonzero(envelope <= close)[0]))
        bounds = [("fast", 0, most), ("refinement", most, near), ("plateau", near, turn)]
    if turn < end:
        bounds.append(("overfitting" if over is not None else "divergence", turn, end))
    level = [*envelope, *c.smooth[turn + 1 :]]
    clock = [row.seconds for row in c.rows]
    times = c.steps if None in clock else np.array(clock, dtype=float)
    whole = float(times[-1] - times[0])
    return [
        {
            "id": id,
            "from_step": int(c.steps[a]),
            "to_step": int(c.steps[b]),
            "share_of_improvement": None
            if won <= 0 or id == "divergence"
            else float(level[a] - level[b]) / won,
            "share_of_time": float(times[b] - times[a]) / whole if whole else None,
        }
        for id, a, b in bounds
        if b > a
    ]


def was_lower(val: Curve) -> bool:
    """Whether the lowest validation loss lies below the first by more than chance explains."""
    if len(val.values) < 2:
        return False
    fall = float(val.values[0] - val.values[val.lowest])
    return val.moved(fall - val.luck) or fall > CLEAR * abs(float(val.values[0]))


def ended_by_plan(analysis: Analysis) -> bool:
    """Whether the rate had decayed to its end, so that a fall in the last quarter is the decay's.

    A loss that fell as much in its last quarter as in the others had not begun to slow down: then a
    longer plan would still have brought more. A decay at the end alone never shows that.
    """
    still, plan = analysis.finding("still_improving"), analysis.finding("schedule")
    if still is None or "rate" not in still.numbers or plan is None:
        return False
    form = plan.numbers["form"]
    return form == "decay_at_end" or (form != "rising" and still.numbers["part"] < 0.25)


def verdict_of(log: Log, analysis: Analysis, train: Curve, val: Curve) -> dict[str, Any]:
    """The verdict: the first line of this table that holds.

    | holds                                                              | verdict       |
    |--------------------------------------------------------------------|---------------|
    | training loss diverged, or is not finite in the last three rows    | diverged      |
    | a reward that ended far below where it had been                    | diverged      |
    | too few rows                                                       | cannot_tell   |
    | the loss is not one of prediction (reinforcement)                  | cannot_tell   |
    | learning rate 0 throughout                                         | did_not_learn |
    | validation never moved while the training loss fell, exam no better| did_not_learn |
    | training loss flat within its noise; validation, exam no better    | did_not_learn |
    | worse than before training, or best/ is the model before training; | did_not_learn |
    |   and neither the last nor the kept model is better at the exam    |               |
    | overfitting, and no better model kept from before it               | overfitted    |
    | a quarter of the fall given back at the end, no better model kept, | cannot_tell   |
    |   and no exam that the last model does better                      |               |
    | exam better (no exam in pairs: validation), and: a tenth of the    | undertrained  |
    |   fall in the last quarter, but for a finished decay; or the log   |               |
    |   ends in the warm-up; or no exam in pairs, and never below        |               |
    |   counting tokens, or which follows which                          |               |
    | exam better (no exam in pairs: validation)                         | worked        |
    | anything else: nothing held out shows an improvement, or the last  | cannot_tell   |
    |   validation loss is NaN or infinite                               |               |
    """
    has = analysis.finding
    lower = was_lower(val)
    better, worse = exam_better(log), has("worse_than_base")
    held = last_paired(log) is not None
    # Where the exam was not compared in pairs, the finding decides alone, as far as nothing says
    # that an earlier model was better.
    failed = worse is not None and worse.severity == "problem" and not (held and better)
    # What is wanted of a model is in its exam: where one was compared in pairs, a lower validation
    # loss does not stand for it.
    improved = better or (lower and not held and not ends_broken(log.evals, "val_loss", 1))
    saved = bool(log.kept) or bool(log.kept_step)
    flat, begun = has("training_flat"), has("abnormal_start_loss")
    zero = begun is not None and begun.severity == "problem" and "before" not in begun.numbers
    still = has("still_improving")
    broken = ends_broken(log.steps, "train_loss")
    over, idle = has("overfitting"), has("learning_rate_zero")
    fell_back = has("reward_fell")
    plan, unmoved, worsened = has("schedule"), has("validation_unmoved"), has("ended_worse")
    counted = None if held else below_counting(log, val)
    young = counted or (plan and plan.numbers["form"] == "rising")
    if still and (still.numbers["part"] < 0.1 or ended_by_plan(analysis)):
        still = None
    if has("diverged") or broken or (fell_back and fell_back.severity == "problem"):
        id = "diverged"
    elif has("too_short_to_judge") or log.objective == "reinforcement":
        id = "cannot_tell"
    elif (
        (idle and idle.severity == "problem")
        or ((flat or unmoved or (zero and not lower)) and not better)
        or (failed and (not over or exam_worse(log)))
    ):
        id = "did_not_learn"
    elif over and not (saved and (lower or better)):
        id = "overfitted"
    elif worsened and lost_much(worsened) and not saved and not better:
        id = "cannot_tell"
    elif improved and (still or young):
        id = "undertrained"
    elif improved:
        id = "worked"
    else:
        id = "cannot_tell"
    opening = id
    if id == "overfitted" and over and "train_at_best" not in over.numbers:
        opening = "overfitted_alone"
    count = {"count": yardsticks(log)[counted]} if counted else {}
    if id == "undertrained" and (counted or not still):
        opening = f"undertrained_below_{counted}" if counted else "undertrained_warmup"
    sentences = [
        tell(f"report.verdict.{opening}", **count),
        *verdict_reasons(log, analysis, train, val, id, lower),
    ]
    if (other := has("other_set_rose")) and id in ("worked", "undertrained"):
        sentences.append(tell("report.verdict.other_set", **other.numbers))
    return {"id": id, "text": joined([*sentences, *exam_reasons(log)])}


def ends_broken(rows: tuple[Record, ...], name: str, last: int = 3) -> bool:
    """Whether the last values of the log are all NaN or infinite. Not every row need have one."""
    held = [row for row in rows if name in row.values][-last:]
    return bool(held) and all(name in row.non_finite for row in held)


def exam_reasons(log: Log) -> list[Text]:
    """What the last exam says against the first, and what the exam of the kept model was."""
    rows = sat(log)
    if not rows:
        return []
    held, kept = last_paired(log), best_kept(log)
    if held is None:
        return [tell("report.verdict.exam", **exam_numbers("last", rows[-1]))]
    case = held.verdict.replace(" ", "_")
    sentences = [tell(f"report.verdict.exam_{case}", **paired_numbers(held))]
    if kept is not None and kept.step != held.row.step:
        key = f"report.worse_than_base.kept_{'other' if kept.step else 'first'}"
        sentences.append(tell(key, **exam_numbers("kept", kept)))
    return sentences


def verdict_reasons(
    log: Log, analysis: Analysis, train: Curve, val: Curve, id: str, lower: bool
) -> list[Text]:
    """The second sentence: the figures that decided."""
    facts, has = analysis.facts, analysis.finding
    over, diverge, first = has("overfitting"), has("diverged"), facts["first_train_loss"]
    losses = {"first": first, "last": facts["last_train_loss"]}
    if diverge:
        return [tell("report.verdict.diverged_why", **diverge.numbers)]
    bad_train = ends_broken(log.steps, "train_loss")
    broken = bad_train or ends_broken(log.evals, "val_loss", 1)
    if broken and (bad := has("non_finite")) and id in ("diverged", "cannot_tell"):
        said = [tell("report.verdict.not_finite_why", step=bad.numbers["step"])]
        if bad_train and train.rows:
            row, value = train.rows[-1], float(train.values[-1])
            said.append(tell("report.verdict.last_finite", loss=value, step=row.step))
        return said
    if (fallen := has("reward_fell")) and id == "diverged":
        return [fallen.text]
    still = has("validation_unmoved") or has("training_flat")
    if still and id == "did_not_learn":
        return [still.text]
    objective = has("not_a_loss_objective")
    if objective and log.objective == "reinforcement":
        return [objective.text]
    case, worse = "", has("ended_worse")
    rise = float(val.values[-1] - val.values[val.lowest]) if len(val.values) else 0.0
    rose = val.moved(rise) and rise > SMALL_SHARE * whole_fall(val.values)
    if id in ("worked", "undertrained") and lower:
        up = bool(over or worse or rose)
        case = "val" if not up else "kept" if log.kept else "rose"
    elif id == "cannot_tell" and lower and worse and worse.numbers["best"] == val.values.min():
        case = "fell_back"
    elif id == "cannot_tell" and worse:
        return [worse.text]
    elif id == "cannot_tell" and len(val.values) >= 3 and not lower and not sat(log) and not over:
        case = "unsure"
    if case and not (case == "unsure" and has("too_short_to_judge")):
        few = case == "unsure" and len(val.values) < FEW
        extra = [tell("report.verdict.few", evals=len(val.values))] if few else []
        return [
            tell(
                f"report.verdict.{case}_why",
                first=float(val.values[0]),
                best=facts["best_val_loss"],
                step=facts["best_val_step"],
                last=facts["last_val_loss"],
                last_step=val.rows[-1].step,
                kept=log.kept,
            ),
            *extra,
        ]
    if over:
        alone = "" if "train_at_best" in over.numbers else "_alone"
        return [tell(f"report.verdict.overfitted{alone}_why", **over.numbers)]
    if first is None or id == "diverged" or has("too_short_to_judge"):
        return []
    risk = has("memorisation_risk")
    if risk and risk.severity == "problem" and id == "cannot_tell":
        return [tell("report.verdict.memorised_why", passes=risk.numbers["passes"], **losses)]
    unheld = has("no_validation")
    if unheld and "metric" in unheld.numbers and id == "cannot_tell":
        return [tell("report.verdict.measured_why", **unheld.numbers | losses)]
    if unheld and id == "cannot_tell":
        return [tell("report.verdict.no_validation_why", **losses)]
    return [tell("report.verdict.train_why", **losses)]


def unknown_of(log: Log, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """What this log cannot tell, and what to log to know it."""
    early = log.stop is None and log.format == "yunque"
    losses = bool(facts["loss_rows"])
    kinds = {key for row in log.steps for key in row.values}
    cases = {
        "generalisation": facts["best_val_loss"] is None and held_out_measure(log) is None,
        "quality": not log.exams,
        "end": early,
        f"updates_{log.counted}": bool(log.counted) and facts["steps"] is None,
        "steps_reckoned": log.reckoned,
        "perplexities": log.perplexities,
        "unit": log.format != "yunque"
        and losses
        and log.objective == "prediction"
        and not log.perplexities,
        "learning_rate": losses and "learning_rate" not in kinds,
        "grad_norm": losses and "grad_norm" not in kinds,
        "epochs": losses and facts["epochs"] is None,
        "hours": facts["hours"] is None,
        "tokens": losses and all(row.tokens_seen is None for row in log.steps),
        "labels": losses and not log.exams,
        "copied_text": bool(log.samples) and copied_text(log) is None,
        "other_runs": bool(log.other_runs),
        "other_files": bool(log.other_files),
        "seed": True,
    }
    return [
        {"id": id, "text": tell(f"report.unknown.{id}")} for id, holds in cases.items() if holds
    ]
