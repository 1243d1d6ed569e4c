"""Runs side by side: what differed in their recipes, what it changed, within noise or not.

Pure functions from reports to claims. Each run is held against the first; every claim has its
numbers and the rows that prove it. What the logs do not share is not compared.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from yunque.errors import InputError
from yunque.exam import mcnemar, wilson
from yunque.reports.curve import SIGMAS, Curve, curve, noise
from yunque.reports.exams import (
    FORGOT_NATS,
    SURE,
    answers,
    best_kept,
    exam_score,
    sat,
)
from yunque.reports.findings import Text, evidence, joined
from yunque.reports.log import Record
from yunque.reports.report import Report
from yunque.words.report import counted_in, tell

MOST_RUNS = 20
SEED = "machine.seed"
DATA_KEYS = ("base", "sources", "data.", "model.context_length", "train.eval_tokens")
"""What makes the validation loss of a recipe the answer to its question."""
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided 95 %, for 1 to 10 degrees of freedom; the last also for more."""


@dataclass(frozen=True)
class Cell:
    """One figure of one run, None where its log does not tell, and the rows that prove it."""

    value: Any
    text: Text
    evidence: list[dict[str, Any]]


@dataclass(frozen=True)
class Claim:
    """One sentence about a run against another (or about all): its numbers and its rows."""

    id: str
    verdict: str
    run: str
    against: str
    numbers: dict[str, Any]
    evidence: list[dict[str, Any]]
    text: Text


@dataclass(frozen=True)
class Comparison:
    """All that the comparison says."""

    runs: tuple[Report, ...]
    names: tuple[str, ...]
    from_recipes: bool
    """Whether `differences` are keys of recipe.toml, else what the logs say of their settings."""
    differences: dict[str, list[Any]]
    """Key → its value in each run, None where it is not known; equal ones left out."""
    measures: dict[str, list[Cell]]
    claims: list[Claim]
    summary: Text
    unknown: list[dict[str, Any]]

    @property
    def counted(self) -> str:
        """What all the logs count where none of them has steps; else empty."""
        return common_count(self.runs)


def compare(runs: Sequence[Report]) -> Comparison:
    """Hold every run against the first.

    Raises:
        InputError: fewer than two runs, more than MOST_RUNS, or one that is no training log.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise InputError(
            f"--compare: got {len(runs)} {'run' if len(runs) == 1 else 'runs'}, expected 2 to "
            f"{MOST_RUNS} run folders or logs."
        )
    for one in runs:
        if not one.is_training_log:
            raise InputError(
                f"--compare: {one.log.path} is not a training log that Yunque reads. Leave it out, "
                "or give a run folder or a log with steps and losses."
            )
    names = names_of(runs)
    recipes = [flat(one.log.recipe) for one in runs]
    from_recipes = all(recipes)
    told = recipes if from_recipes else [settings_of(one) for one in runs]
    differences = differing(told)
    spread = seed_spread(runs, recipes)
    claims = []
    for i in range(1, len(runs)):
        pair = Pair(runs[0], runs[i], names[0], names[i], recipes[0], recipes[i])
        level = SURE / (len(runs) - 1)
        made = [by_exam(pair, level), by_validation(pair, spread), by_training(pair)]
        claims += [c for c in (*made, by_general(pair), by_speed(pair)) if c is not None]
    counted = common_count(runs)
    claims = [replace(c, text=counted_in(c.text, counted)) for c in claims]
    measures = {id: [cell(id, one) for one in runs] for id in MEASURES}
    known = {id: row for id, row in measures.items() if any(c.value is not None for c in row)}
    return Comparison(
        tuple(runs),
        names,
        from_recipes,
        differences,
        known,
        claims,
        counted_in(summary_of(runs, names, recipes, spread), counted),
        unknown_of(runs, recipes, from_recipes, differences),
    )


def common_count(runs: Sequence[Report]) -> str:
    """What the logs of all the runs count in place of steps; empty where they differ."""
    kinds = {one.log.counted for one in runs}
    return kinds.pop() if len(kinds) == 1 else ""


def names_of(runs: Sequence[Report]) -> tuple[str, ...]:
    """A name for each run; where two would have the same, the folder above is put before it."""
    plain = [one.log.name for one in runs]
    names = list(plain)
    for i, one in enumerate(runs):
        if plain.count(one.log.name) > 1:
            parts = Path(one.log.path).resolve().parts
            above = parts[: parts.index(one.log.name)] if one.log.name in parts else parts[:-1]
            names[i] = f"{above[-1]}/{one.log.name}" if above else one.log.name
    return tuple(n if names.count(n) == 1 else f"{n} ({i})" for i, n in enumerate(names, 1))


# ---------------------------------------------------------------------------------------------
# What differed.


def flat(recipe: str) -> dict[str, Any]:
    """recipe.toml as {"section.key": value}; empty where there is none or it cannot be read."""
    try:
        found = tomllib.loads(recipe)
    except ValueError:
        return {}
    return {
        key: value
        for name, part in found.items()
        for key, value in (
            {f"{name}.{k}": v for k, v in part.items()}
            if isinstance(part, Mapping)
            else {name: part}
        ).items()
    }


def settings_of(one: Report) -> dict[str, Any]:
    """What a log says of the settings of its run, under the names of the log or of the report."""
    facts = one.analysis.facts
    found: dict[str, Any] = {"format": one.log.format}
    found |= {k: v for k, v in one.log.settings.items() if isinstance(v, str | int | float | bool)}
    rates = curve(one.log.steps, "learning_rate")
    if len(rates.values):
        found["learning_rate (peak)"] = float(f"{rates.values.max():.2g}")
    schedule = one.analysis.finding("schedule")
    if schedule is not None and "warmup_steps" in schedule.numbers:
        found["warm-up steps"] = schedule.numbers["warmup_steps"]
    for name in ("steps", "epochs", "examples"):
        if facts[name] is not None:
            found[name] = facts[name]
    return found


def differing(told: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values are not the same in all runs, in the order of the first that has it."""
    keys = dict.fromkeys(key for one in told for key in one)
    rows = {key: [one.get(key) for one in told] for key in keys}
    return {k: values for k, values in rows.items() if any(v != values[0] for v in values)}


def same_question(a: Report, b: Report, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Whether two validation losses are about the same text: yes, no, unknown.

    Prepared data has a fingerprint; without it the recipes must name the same data.
    """
    if not ours or not theirs:
        return "unknown"
    prints = fingerprint(a), fingerprint(b)
    if None not in prints and ours.get("base") == theirs.get("base"):
        size = [one.get("model.context_length") for one in (ours, theirs)]
        return "yes" if prints[0] == prints[1] and size[0] == size[1] else "no"
    keys = {k for k in (*ours, *theirs) if k.startswith(DATA_KEYS)}
    if not any(key == "sources" for key in keys):
        return "unknown"
    return "yes" if all(ours.get(k) == theirs.get(k) for k in keys) else "no"


def fingerprint(one: Report) -> str | None:
    """The fingerprint of the run's prepared data, None where it cannot be read."""
    file = Path(one.log.path).parent / "data" / "data.json"
    try:
        found = json.loads(file.read_bytes()).get("fingerprint")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


# ---------------------------------------------------------------------------------------------
# The figures.


def cell(id: str, one: Report) -> Cell:
    """One figure of one run."""
    log, facts = one.log, one.analysis.facts
    rows = [*log.evals, *log.steps]
    proof: list[tuple[Record, str]] = []
    value: Any = facts.get(id)
    if id == "verdict":
        value = one.analysis.verdict["id"]
        return Cell(value, tell(f"report.id.{value}"), [])
    if id == "exam":
        row = exam_of(one)
        if row is None:
            return Cell(None, tell("compare.absent"), [])
        right, total = exam_score(row) or (0.0, 1.0)
        low, high = wilson(right, total)
        text = tell("compare.value.score", right=right, total=total, low=low, high=high)
        return Cell([int(right), int(total)], text, evidence((row, "right"), (row, "total")))
    if id == "exam_step":
        row = exam_of(one)
        value = None if row is None else row.step
    elif id == "seconds":
        value = None if facts["hours"] is None else facts["hours"] * 3600
        if log.runtime_seconds is None:
            proof = last_with(rows, "seconds")
    elif id == "stop_step":
        value = one.analysis.stop["step"] if one.analysis.stop else None
    elif id in ("tokens_per_second", "memory_bytes"):
        c = curve(log.steps, id)
        if len(c.values):
            value = float(np.median(c.values) if id == "tokens_per_second" else c.values.max())
            proof = [(c.rows[int(np.argmin(np.abs(c.values - value)))], id)]
    elif id == "general_loss":
        c = curve(log.evals, id)
        if len(c.values):
            value, proof = float(c.values[-1]), [(c.rows[-1], id)]
    elif id in ("best_val_loss", "best_val_step"):
        c = curve(log.evals, "val_loss")
        proof = [(c.rows[c.lowest], "val_loss")] if len(c.values) else []
    elif id == "last_train_loss":
        c = curve(log.steps, "train_loss")
        proof = [(c.rows[-1], "train_loss")] if len(c.values) else []
    elif id == "epochs" and log.epochs is None:
        proof = last_with(rows, "epoch")
    if value is None:
        return Cell(None, tell("compare.absent"), [])
    return Cell(value, tell(f"compare.value.{MEASURES[id]}", value=value), evidence(*proof))


MEASURES = {
    "verdict": "text",
    "exam": "score",
    "exam_step": "integer",
    "best_val_loss": "loss",
    "best_val_step": "integer",
    "last_train_loss": "loss",
    "general_loss": "loss",
    "steps": "integer",
    "epochs": "compact",
    "stop_step": "integer",
    "seconds": "time",
    "tokens_per_second": "integer",
    "memory_bytes": "memory",
}
"""Figure → how it is written."""


def last_with(rows: Sequence[Record], name: str) -> list[tuple[Record, str]]:
    """The row with the highest value of a field that rows share."""
    known = [row for row in rows if getattr(row, name) is not None]
    return [(max(known, key=lambda row: getattr(row, name)), name)] if known else []


def exam_of(one: Report) -> Record | None:
    """The exam of the model that the run kept, else its last exam."""
    rows = sat(one.log)
    return best_kept(one.log) or (rows[-1] if rows else None)


# ---------------------------------------------------------------------------------------------
# What it changed.


@dataclass(frozen=True)
class Pair:
    """A run and the one that it is held against."""

    base: Report
    run: Report
    base_name: str
    name: str
    base_recipe: Mapping[str, Any]
    recipe: Mapping[str, Any]

    @property
    def only_seed(self) -> bool:
        """Whether the two recipes are the same but for the seed."""
        return bool(self.recipe) and set(differing([self.base_recipe, self.recipe])) == {SEED}


def claim(
    pair: Pair,
    id: str,
    verdict: str,
    proof: Sequence[tuple[str, tuple[Record, str]]],
    also: Sequence[str] = (),
    **numbers: Any,
) -> Claim:
    """The sentence `compare.ID.VERDICT` and those of `also`."""
    words = {"run": pair.name, "against": pair.base_name}
    keys = (f"compare.{id}.{verdict}", *also)
    rows = [{"run": name, **evidence(one)[0]} for name, one in proof]
    text = joined([tell(key, **words, **numbers) for key in keys])
    return Claim(id, verdict, pair.name, pair.base_name, numbers, rows, text)


def beyond(a: Curve, b: Curve, points: float = 1.0) -> float:
    """What the noise of two curves explains of a difference between means of `points` points."""
    return SIGMAS * math.hypot(late_noise(a), late_noise(b)) / math.sqrt(points)


def late_noise(c: Curve) -> float:
    """The noise of a point of the later half, where no steep fall adds to it."""
    half = len(c.values) // 2
    return c.noise if half < 6 else min(c.noise, noise(c.steps[half:], c.values[half:]))


def same_aim(runs: Sequence[Report]) -> bool:
    """Whether a lower loss means the same in all: not in reinforcement, nor across objectives."""
    return {one.log.objective for one in runs} in ({"prediction"}, {"preference"})


def by_validation(pair: Pair, spread: float | None) -> Claim | None:
    """The best validation losses, where both have one and they are of one kind."""
    if not same_aim([pair.base, pair.run]):
        return None
    a, b = (curve(one.log.evals, "val_loss") for one in (pair.base, pair.run))
    if not len(a.values) or not len(b.values):
        return None
    base, best = a.rows[a.lowest], b.rows[b.lowest]
    low, value = float(a.values[a.lowest]), float(b.values[b.lowest])
    same = same_question(pair.base, pair.run, pair.base_recipe, pair.recipe)
    proof = [(pair.name, (best, "val_loss")), (pair.base_name, (base, "val_loss"))]
    numbers: dict[str, Any] = {"value": value, "base": low}
    if same == "no":
        return claim(pair, "val", "not_comparable", proof, **numbers)
    numbers |= {"step": best.step, "base_step": base.step, "size": abs(value - low)}
    limit = val_limit(a, b, spread)
    also = ["compare.val.same_text"] if same == "unknown" else []
    if pair.only_seed:
        also.append("compare.val.only_seed")
    if limit is None:
        return claim(pair, "val", "noise_unknown", proof, also, **numbers)
    if spread is not None and limit > beyond(a, b):
        also.append("compare.val.by_seed")
    verdict = judged(value - low, limit)
    return claim(pair, "val", verdict, proof, also, limit=limit, **numbers)


def val_limit(a: Curve, b: Curve, spread: float | None) -> float | None:
    """What chance explains of the difference of two best validation losses; None: not known."""
    if min(len(a.values), len(b.values)) < 3:
        return None
    return max(beyond(a, b), spread or 0.0)


def judged(change: float, limit: float) -> str:
    """lower, higher, within_noise."""
    if abs(change) <= limit:
        return "within_noise"
    return "lower" if change < 0 else "higher"


def by_training(pair: Pair) -> Claim | None:
    """The training losses at the end, only where validation losses do not say more."""
    vals = [curve(one.log.evals, "val_loss") for one in (pair.base, pair.run)]
    if all(len(c.values) for c in vals) or not same_aim([pair.base, pair.run]):
        return None
    a, b = (curve(one.log.steps, "train_loss") for one in (pair.base, pair.run))
    if min(len(a.values), len(b.values)) < 8:
        return None
    tails = [max(3, len(c.values) // 10) for c in (a, b)]
    low, value = (float(np.median(c.values[-n:])) for c, n in zip((a, b), tails, strict=True))
    # The median of n points is as noisy as the mean of 2n/π.
    limit = beyond(a, b, 2 * min(tails) / math.pi)
    proof = [(pair.name, (b.rows[-1], b.name)), (pair.base_name, (a.rows[-1], a.name))]
    verdict = judged(value - low, limit)
    return claim(pair, "train", verdict, proof, value=value, base=low, limit=limit)


def by_exam(pair: Pair, level: float) -> Claim | None:
    """The exams of the two models, question by question where the same ones were asked."""
    before, after = exam_of(pair.base), exam_of(pair.run)
    if before is None or after is None:
        return None
    (base_right, base_total), (right, total) = (exam_score(r) or (0, 1) for r in (before, after))
    numbers: dict[str, Any] = {"right": int(right), "total": int(total)}
    numbers |= {"base_right": int(base_right), "base_total": int(base_total)}
    proof = [
        (name, (row, key))
        for name, row in ((pair.name, after), (pair.base_name, before))
        for key in ("right", "total")
    ]
    ours, theirs = answers(pair.base.log, before), answers(pair.run.log, after)
    if ours is None or theirs is None or set(ours) != set(theirs):
        return claim(pair, "exam", "not_comparable", proof, **numbers)
    lost = sum(ours[q] and not theirs[q] for q in ours)
    gained = sum(theirs[q] and not ours[q] for q in ours)
    p_value = float(mcnemar(lost, gained))
    verdict = "within_noise"
    if p_value < level:
        verdict = "better" if gained > lost else "worse"
    numbers |= {"lost": lost, "gained": gained, "p_value": p_value, "level": level}
    return claim(pair, "exam", verdict, proof, **numbers)


def by_general(pair: Pair) -> Claim | None:
    """The loss on the general text at the end; less than FORGOT_NATS is not judged."""
    a, b = (curve(one.log.evals, "general_loss") for one in (pair.base, pair.run))
    if not len(a.values) or not len(b.values):
        return None
    # Models of another base began elsewhere: the end does not say what was forgotten.
    if pair.base_recipe.get("base") != pair.recipe.get("base"):
        return None
    low, value = float(a.values[-1]), float(b.values[-1])
    verdict = judged(value - low, FORGOT_NATS)
    if verdict == "within_noise":
        return None
    proof = [(pair.name, (b.rows[-1], b.name)), (pair.base_name, (a.rows[-1], a.name))]
    return claim(pair, "general", verdict, proof, value=value, base=low, size=abs(value - low))


def by_speed(pair: Pair) -> Claim | None:
    """Tokens per second; the middle halves of the rows must lie apart."""
    a, b = (curve(one.log.steps, "tokens_per_second") for one in (pair.base, pair.run))
    if min(len(a.values), len(b.values)) < 8:
        return None
    (a25, base, a75), (b25, value, b75) = (np.percentile(c.values, [25, 50, 75]) for c in (a, b))
    verdict = "faster" if b25 > a75 else "slower" if b75 < a25 else "within_noise"
    proof = [
        (name, (c.rows[int(np.argmin(np.abs(c.values - middle)))], c.name))
        for name, c, middle in ((pair.name, b, value), (pair.base_name, a, base))
    ]
    return claim(pair, "speed", verdict, proof, value=float(value), base=float(base))


def seed_spread(runs: Sequence[Report], recipes: Sequence[Mapping[str, Any]]) -> float | None:
    """How far two runs may lie apart by their seeds alone (95 %), None where no pair tells.

    From runs whose recipes are the same but for the seed: their pooled variance, Student's t.
    """
    groups: dict[str, dict[Any, float]] = {}
    for one, recipe in zip(runs, recipes, strict=True):
        best = one.analysis.facts["best_val_loss"]
        if SEED in recipe and best is not None:
            rest = json.dumps({k: v for k, v in recipe.items() if k != SEED}, default=str)
            groups.setdefault(f"{rest} {fingerprint(one)}", {})[recipe[SEED]] = best
    squares = sum(float(np.var(list(g.values()))) * len(g) for g in groups.values())
    freedom = sum(len(g) - 1 for g in groups.values())
    if not freedom:
        return None
    t = T_QUANTILES[min(freedom, len(T_QUANTILES)) - 1]
    return t * math.sqrt(2 * squares / freedom)


def summary_of(
    runs: Sequence[Report],
    names: Sequence[str],
    recipes: Sequence[Mapping[str, Any]],
    spread: float | None,
) -> Text:
    """The best by the exam and by the validation loss, and who cannot be told from it."""
    sentences = [*best_by_exam(runs, names), *best_by_validation(runs, names, recipes, spread)]
    return joined(sentences or [tell("compare.best.none")])


def best_by_exam(runs: Sequence[Report], names: Sequence[str]) -> list[Text]:
    """Only where all sat the same exam."""
    rows = [exam_of(one) for one in runs]
    sheets = [None if r is None else answers(o.log, r) for o, r in zip(runs, rows, strict=True)]
    known = [s for s in sheets if s is not None]
    if len(known) < len(runs) or any(set(s) != set(known[0]) for s in known):
        return []
    top = max(range(len(runs)), key=lambda i: sum(known[i].values()))
    tied = []
    for i, sheet in enumerate(known):
        lost = sum(known[top][q] and not sheet[q] for q in sheet)
        gained = sum(sheet[q] and not known[top][q] for q in sheet)
        if i != top and float(mcnemar(lost, gained)) >= SURE / (len(runs) - 1):
            tied.append(names[i])
    right, total = sum(known[top].values()), len(known[top])
    best = tell("compare.best.exam", name=names[top], right=right, total=total)
    return [best, *([tell("compare.best.exam_tied", names=", ".join(tied))] if tied else [])]


def best_by_validation(
    runs: Sequence[Report],
    names: Sequence[str],
    recipes: Sequence[Mapping[str, Any]],
    spread: float | None,
) -> list[Text]:
    """Only where no two of the validation losses are known to be about different text."""
    curves = [curve(one.log.evals, "val_loss") for one in runs]
    if not all(len(c.values) for c in curves) or not same_aim(runs):
        return []
    first = (runs[0], recipes[0])
    same = [same_question(first[0], o, first[1], r) for o, r in zip(runs, recipes, strict=True)]
    if "no" in same:
        return []
    lows = [float(c.values.min()) for c in curves]
    top = int(np.argmin(lows))
    tied, apart = list[str](), list[str]()
    for i, c in enumerate(curves):
        limit = val_limit(curves[top], c, spread)
        if i != top:
            near = limit is None or lows[i] - lows[top] <= limit
            (tied if near else apart).append(names[i])
    row = curves[top].rows[curves[top].lowest]
    found = [tell("compare.best.val", name=names[top], value=lows[top], step=row.step)]
    lists = (("val_tied", tied), ("val_apart", apart))
    found += [tell(f"compare.best.{key}", names=", ".join(some)) for key, some in lists if some]
    return [*found, *([tell("compare.val.same_text")] if "unknown" in same else [])]


def unknown_of(
    runs: Sequence[Report],
    recipes: Sequence[Mapping[str, Any]],
    from_recipes: bool,
    differences: Mapping[str, list[Any]],
) -> list[dict[str, Any]]:
    """What the comparison cannot tell, and what to do to know it."""
    count = len([key for key in differences if key != SEED])
    cases = {
        "seed": seed_spread(runs, recipes) is None,
        "cause": from_recipes and count > 1,
        "exam": any(exam_of(one) is None for one in runs),
        "settings": not from_recipes,
    }
    return [
        {"id": id, "text": tell(f"compare.unknown.{id}", count=count)}
        for id, holds in cases.items()
        if holds
    ]
