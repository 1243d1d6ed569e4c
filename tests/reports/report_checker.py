"""Recomputes what a report says from the file itself. It shares no code with the report.

`check(file, report_json)` reads the file in its own way (standard library only), works out every
number of every finding from the rows, looks the evidence up, and reads the numbers back out of the
sentences of both languages. It returns what does not agree.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from html import unescape
from operator import mul
from pathlib import Path
from statistics import fmean, median
from typing import Any

Row = dict[str, Any]
TRAIN = ("train_loss", "loss")
VAL = ("val_loss", "eval_loss", "eval_g0_loss")


def cell(text: Any) -> Any:
    """A number where it reads as one."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


class File:
    """The rows of a file as they stand, and the series in them."""

    def __init__(self, path: Path):
        text = path.read_text(encoding="utf-8")
        self.state: Row = {}
        self.rows: dict[int, Row] = {}
        if path.suffix == ".csv":
            lines = csv.DictReader(text.splitlines())
            for line in lines:
                filled = {k: cell(v) for k, v in line.items() if v != ""}
                self.rows[lines.line_num] = filled
        elif text.lstrip().startswith("{") and '"log_history"' in text[:100_000]:
            self.state = json.loads(text)
            self.rows = dict(enumerate(self.state["log_history"], 1))
        else:
            for number, line in enumerate(text.splitlines(), 1):
                self.rows[number] = json.loads(line)
        for row in self.rows.values():
            for key, value in dict(row).items():
                if key.endswith("lm_loss"):
                    row["loss"] = value
            row.setdefault("step", row.get("current_steps", row.get("Step")))
            row.setdefault("learning_rate", row.get("lr"))
            for key, value in (row.get("non_finite") or {}).items():
                row[key] = float(value)
        self.summary = next((r for r in self.rows.values() if "train_runtime" in r), {})
        own = any("event" in r for r in self.rows.values())
        kind = "step" if own else None
        self.train = self.series(TRAIN, kind)
        self.val = self.series(VAL, "eval" if own else None)
        self.rates = self.series(("learning_rate",), kind)
        self.norms = self.series(("grad_norm",), kind)
        self.watched = self.series(("train_loss",), "eval") if own else []
        self.exams = [r for r in self.rows.values() if r.get("event") == "exam"]
        self.folder = path.parent
        self.end = max(s for s, _, _ in [*self.train, *self.val])
        # A median over a tenth of the rows, odd and at most 101 wide.
        self.width = min(101, 2 * (len(self.train) // 20) + 1)

    def series(self, names: tuple[str, ...], event: str | None) -> list[tuple[int, float, Row]]:
        """(step, value, row) of the finite values, in the order of the steps."""
        found = []
        for row in self.rows.values():
            name = next((n for n in names if row.get(n) is not None), None)
            if name is None or "train_runtime" in row or (event and row["event"] != event):
                continue
            if isinstance(row[name], int | float) and math.isfinite(row[name]):
                found.append((int(row["step"]), float(row[name]), row))
        return sorted(found, key=lambda one: one[0])

    def at(self, series: list[tuple[int, float, Row]], step: int) -> float:
        """The value at a step."""
        return next(v for s, v, _ in series if s == step)

    def smooth(self, series: list[tuple[int, float, Row]] | None = None) -> list[float]:
        """The running median of a series, narrower at the ends; of the training loss by default."""
        values = [v for _, v, _ in (self.train if series is None else series)]
        n = len(values)
        half = min(101, 2 * (n // 20) + 1) // 2
        reach = [min(half, i, n - 1 - i) for i in range(n)]
        return [median(values[i - r : i + r + 1]) for i, r in enumerate(reach)]

    def train_level(self, step: int) -> float:
        """The training loss at an evaluation: its own, else the median of the rows up to it."""
        row = next(r for s, _, r in self.val if s == step)
        if isinstance(row.get("train_loss"), float) and "event" in row:
            return row["train_loss"]
        before = [v for s, v, _ in self.train if s <= step] or [self.train[0][1]]
        return median(before[-self.width :])

    def epochs(self) -> float:
        """Passes as the tool says, or the highest epoch of a row."""
        if "epoch" in self.state:
            return float(self.state["epoch"])
        return max(float(r["epoch"]) for r in self.rows.values() if r.get("epoch") is not None)

    def best_kept(self) -> bool:
        """Whether a model was kept in best/."""
        return (self.folder / "best").is_dir()

    def kept_step(self) -> int:
        """The step of the model in best/: the first with most answers right, or the lowest loss."""
        recipe = self.folder / "recipe.toml"
        if recipe.is_file() and re.search(r'(?m)^watch = "exam"$', recipe.read_text()):
            return int(max(self.exams, key=lambda r: r["right"] / r["total"])["step"])
        return lowest(self.val or self.watched)[0]

    def seconds(self) -> float:
        """How long the run took."""
        if self.summary:
            return float(self.summary["train_runtime"])
        clock = [r["elapsed_time"].split(":") for r in self.rows.values() if "elapsed_time" in r]
        if clock:
            return max(float(h) * 3600 + float(m) * 60 + float(s) for h, m, s in clock)
        return max(float(r.get("seconds", 0)) for r in self.rows.values())


def lowest(series: list[tuple[int, float, Row]]) -> tuple[int, float]:
    """(step, value) of the lowest value, the first of equals."""
    step, value, _ = min(series, key=lambda one: one[1])
    return step, value


def overfitting(f: File, n: Row) -> Row:
    (step, best), (last_step, last, _) = lowest(f.val), f.val[-1]
    return {
        "step": step,
        "best": best,
        "last_step": last_step,
        "last": last,
        "rise": last - best,
        **({"train_at_best": f.train_level(step)} if "train_at_best" in n else {}),
        **({"train_at_last": f.train_level(last_step)} if "train_at_last" in n else {}),
    }


def ended_worse(f: File, n: Row) -> Row:
    if "rows" not in n:
        (step, best), values = lowest(f.val), [v for _, v, _ in f.val]
        last_step, last = f.val[-1][0], values[-1]
        assert last > best
    else:
        values = f.smooth()
        step, best = f.train[values.index(min(values))][0], min(values)
        last_step, last = f.train[-1][0], median([v for _, v, _ in f.train][-n["rows"] :])
    found = {"step": step, "best": best, "last_step": last_step, "last": last}
    if "won" in n:
        found |= {"won": height(values), "part": (last - best) / height(values)}
    return found


def other_set(f: File, n: Row) -> Row:
    series = f.series((n["set"],), None)
    step, best = lowest(series)
    sets = {k for r in f.rows.values() for k in r if re.fullmatch(r"eval_\w+_loss", k)}
    rose = [
        s
        for s in sets - {n["main"]}
        if f.series((s,), None)[-1][1] > lowest(f.series((s,), None))[1]
    ]
    assert n["rose"] <= len(rose)
    found = {"step": step, "best": best, "last_step": series[-1][0], "last": series[-1][1]}
    return found | {"others": len(sets) - 1}


def unmoved(f: File, n: Row) -> Row:
    held = sorted(v for _, v, _ in f.val)
    found = {"evals": len(held), "least": held[0], "most": held[-1]}
    return found | {"first": f.train[0][1], "last": f.train[-1][1]}


def flat(f: File, n: Row) -> Row:
    values = [v for _, v, _ in f.train]
    half = len(values) // 2
    found = {"early": fmean(values[:half]), "late": fmean(values[half:])}
    return found | {"least": min(values), "most": max(values), "loss_rows": len(values)}


def reward(f: File, n: Row) -> Row:
    series = f.series((n["name"],), None)
    values, rows = [v for _, v, _ in series], max(3, len(series) // 10)
    level = f.smooth(series)
    found = {"rows": rows, "start": median(values[:rows]), "end": median(values[-rows:])}
    if "top" in n:
        found |= {"top": max(level), "step": series[level.index(max(level))][0]}
    return found | {"last_step": series[-1][0]}


def best_step(f: File, n: Row) -> Row:
    step, best = lowest(f.val)
    return {
        "step": step,
        "val_loss": best,
        "perplexity": math.e**best,
        "evals": len(f.val),
        "last_step": f.val[-1][0],
        "kept_step": f.kept_step() if "kept_step" in n else None,
    }


def could_have_stopped(f: File, n: Row) -> Row:
    saved = 1 - n["step"] / f.end
    values = f.val or [(s, v, r) for (s, _, r), v in zip(f.train, f.smooth(), strict=True)]
    step, best = lowest(values)
    # What came after it ends with the last row of any kind, not with the last evaluation.
    every = [r for r in f.rows.values() if r is not f.summary and r.get("event") != "stop"]
    marks = [float(r["epoch"]) for r in every if r.get("epoch") is not None]
    assert values is not f.val or n["step"] < f.val[-1][0]
    found = {}
    if "saved_epochs" in n:
        there = next(r for s, _, r in values if s == n["step"])
        found["saved_epochs"] = max(marks) - float(there["epoch"])
    return found | {
        "saved": saved,
        "loss": f.at(values, n["step"]),
        "best": best,
        "best_step": step,
        "saved_seconds": f.seconds() * saved,
    }


def fitted(columns: list[list[float]], values: list[float]) -> tuple[float, float]:
    """(sum of squares left by the first len(values) rows, what their weights give in the last)."""
    basis: list[list[float]] = []
    left, given = list(values), 0.0
    for column in columns:
        for one in basis:
            part = sum(map(mul, one, column[: len(values)]))
            column = [x - part * y for x, y in zip(column, one, strict=True)]
        size = math.sqrt(sum(x * x for x in column[: len(values)])) or math.inf
        basis.append([x / size for x in column])
        weight = sum(map(mul, basis[-1], left))
        left = [x - weight * y for x, y in zip(left, basis[-1], strict=False)]
        given += weight * basis[-1][-1]
    return sum(x * x for x in left), given


def law_ahead(points: list[tuple[int, float]], step: float) -> float:
    """A power or two exponentials of the step, by least squares over a grid, at a step."""
    each = -(-len(points) // 60)
    groups = [points[i : i + each] for i in range(0, len(points), each)]
    steps = [fmean(s for s, _ in group) for group in groups] + [step]
    values = [fmean(v for _, v in group) for group in groups]
    u, one = [s / points[-1][0] for s in steps], [1.0] * len(steps)
    tries = [
        [one, [(1 + k * x) ** -p for x in u]]
        for k in (1, 4, 12, 25, 40, 60, 120, 400)
        for p in (0.1, 0.2, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0, 1.5, 2.5)
    ]
    falls = [[math.exp(-r * x) for x in u] for r in (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 7)]
    fast = [[math.exp(-r * x) for x in u] for r in (8, 10, 12, 15, 18, 22, 27, 33, 40)]
    tries += [[one, a] for a in falls + fast] + [[one, a, b] for a in falls for b in fast]
    return min(fitted(columns, values) for columns in tries)[1]


def still_improving(f: File, n: Row) -> Row:
    values = f.val if len(f.val) >= 4 else f.train
    start, end = values[0][0], values[-1][0]
    if "ahead_step" in n:
        # By a law and a search of its own: its place is within the interval, or an interval off.
        assert n["ahead_step"] == round(1.5 * end)
        assert n["ahead_low"] < n["ahead_middle"] < n["ahead_high"]
        own = law_ahead([(s, v) for s, v, _ in values if s >= 0.1 * end], n["ahead_step"])
        wide = n["ahead_high"] - n["ahead_low"]
        assert n["ahead_low"] - wide <= own <= n["ahead_high"] + wide, own
    more: Row = {}
    if "rate" in n:
        more = {"rate": f.rates[-1][1], "rate_step": f.rates[-1][0]}
    quarter = [one for one in values if one[0] <= start + 0.75 * (end - start)][-1]
    if values is f.train:
        at = values.index(quarter)
        late = [v for _, v, _ in values[at:]]
        early = [v for _, v, _ in values[:at]][-len(late) :]
        level = f.smooth()
        return {
            "step": quarter[0],
            "loss": fmean(early),
            "best": fmean(late),
            "best_step": values[-1][0],
            "part": (fmean(early) - fmean(late)) / height(level),
            **more,
        }
    step, best = lowest(values)
    fall = quarter[1] - best
    part = fall / height([v for _, v, _ in values])
    found = {"step": quarter[0], "loss": quarter[1], "best_step": step, "best": best, "part": part}
    return found | more


def height(values: list[float]) -> float:
    """The highest value before the lowest one, above it."""
    return max(values[: values.index(min(values)) + 1]) - min(values)


def plateau(f: File, n: Row) -> Row:
    values = f.val if len(f.val) >= 8 else f.train
    tail = [v for s, v, _ in values if s >= n["step"]]
    half = len(tail) // 2
    last = values[-1][0]
    return {
        "last_step": last,
        "part": (last - n["step"]) / last,
        "early": median(tail[:half]),
        "late": median(tail[half:]),
        "won": height(f.smooth(values)),
    }


def diverged(f: File, n: Row) -> Row:
    before = [one for one in f.train if one[0] <= n["onset_step"]]
    step, low = lowest(before)
    after = [v for s, v, _ in f.train if s > n["onset_step"]]
    tail = after[-max(3, len(f.train) // 10) :]
    return {"low": low, "low_step": step, "end": median(tail), "last_step": f.train[-1][0]}


def non_finite(f: File, n: Row) -> Row:
    names = (*TRAIN, *VAL, "grad_norm", "learning_rate")
    bad = [
        r
        for r in f.rows.values()
        if any(isinstance(r.get(k), float) and not math.isfinite(r[k]) for k in names)
    ]
    first = min((r for r in bad if not math.isfinite(r[n["field"]])), key=lambda r: r["step"])
    total = [r for r in f.rows.values() if any(k in r for k in (*TRAIN, *VAL))]
    own = [
        r for r in total if r.get("event") in (None, "step", "eval") and not r.get("train_runtime")
    ]
    return {"rows": len(bad), "step": first["step"], "total": len(own)}


def passes(f: File, n: Row) -> Row:
    found = {"passes": f.epochs(), "first": f.train[0][1], "last": f.train[-1][1], "free": 4}
    if "parameters" in n:
        start = next(r for r in f.rows.values() if r.get("event") == "start")
        found["parameters"] = start["parameters"]
        found["each"] = start["parameters"] / start["tokens"]["train"]
    if "examples" in n:  # One example a micro-batch: the epoch of a row has them underneath.
        share = f.train[0][2]["epoch"] * n["examples"]
        assert abs(share - round(share)) < 1e-9
    return {key: value for key, value in found.items() if key in n}


def usual(series: list[tuple[int, float, Row]], n: Row) -> float:
    """The higher of the medians before and after a spike, of 3, 7, 15 or 31 rows as is said."""
    values = [v for _, v, _ in series]
    at = next(i for i, (step, _, _) in enumerate(series) if step == n["step"])
    tries = [
        max(median(values[at - k : at]), median(values[at + 1 : at + 1 + k]))
        for k in (3, 7, 15, 31)
        if k <= at < len(values) - k
    ]
    return min(tries, key=lambda one: abs(one - n["around"]))


def spike(f: File, n: Row) -> Row:
    loss, around = f.at(f.train, n["step"]), usual(f.train, n)
    assert loss > around
    return {"loss": loss, "around": around, **rows_read(f, n, "loss_spike")}


def gradient_spike(f: File, n: Row) -> Row:
    norm, around = f.at(f.norms, n["step"]), usual([r for r in f.norms if r[1] > 0], n)
    assert norm >= 2.5 * around
    return {"norm": norm, "around": around, **rows_read(f, n, "gradient_spike")}


def rows_read(f: File, n: Row, id: str) -> Row:
    """What the last row of our own log says of the update of a spike."""
    if "read" not in n:
        return {}
    stop = [r for r in f.rows.values() if r.get("event") == "stop"][-1]
    assert stop[f"{id}_step"] == n["step"]
    names = ("read", "first", "worst", "middle")
    return {name: stop[f"{id}_{name}"] for name in names if name in n}


def schedule(f: File, n: Row) -> Row:
    found: Row = {"end": f.rates[-1][1], "last_step": f.rates[-1][0]}
    assert max(v for _, v, _ in f.rates) == f.peak_close(n["peak"])
    if "norm" in n:
        step, norm, _ = max(f.norms, key=lambda one: one[1])
        found |= {"norm": norm, "norm_step": step}
    return found


def peak_close(self: File, peak: float) -> float:
    """The highest logged rate; the true peak may lie between two rows, but no further than 2 %."""
    top = max(v for _, v, _ in self.rates)
    assert abs(peak - top) <= 0.02 * top
    return top


File.peak_close = peak_close  # type: ignore[attr-defined]


def rate_zero(f: File, n: Row) -> Row:
    zero = [s for s, v, _ in f.rates if v == 0]
    if "part" in n:  # Those at the end alone: a warm-up may begin at 0.
        zero = [s for s in zero if s > max(s for s, v, _ in f.rates if v != 0)]
    found: Row = {"rows": len(zero), "step": zero[0], "last_step": f.rates[-1][0]}
    found["part"] = (f.rates[-1][0] - zero[0]) / (f.rates[-1][0] - f.rates[0][0])
    # The sentence says "was 0": that is the value of these rows.
    return {key: value for key, value in found.items() if key in n} | {"rate": min(zero and [0])}


def rate_high(f: File, n: Row) -> Row:
    step, peak, _ = max(f.rates, key=lambda one: one[1])
    return {"rate": f.at(f.rates, n["rate_step"]), "peak": peak, "peak_step": step}


def mean_loss(f: File, n: Row) -> Row:
    return {"mean": f.summary["train_loss"], "last": f.train[-1][1], "last_step": f.train[-1][0]}


def incomplete(f: File, n: Row) -> Row:
    done, asked = f.state["global_step"], f.state["max_steps"]
    return {"steps": done, "asked": asked, "part": done / asked}


def inconsistent(f: File, n: Row) -> Row:
    s = f.summary
    found = {
        "asked_epochs": f.state.get("num_train_epochs"),
        "epochs": f.state.get("epoch"),
        "passes": f.state.get("epoch"),
        "rate": s.get("train_samples_per_second"),
        "shown": round(s["train_samples_per_second"] * s["train_runtime"]),
        "trained": round(n.get("examples", 0) * f.epochs()),
        "flops": s.get("total_flos"),
    }
    found["flops_each"] = found["flops"] / (s["train_samples_per_second"] * s["train_runtime"])
    return {key: value for key, value in found.items() if key in n}


def staircase(f: File, n: Row) -> Row:
    at = next(i for i, (_, _, r) in enumerate(f.train) if r["epoch"] > n["epoch"] + 1e-9)
    values = [v for _, v, _ in f.train]
    before, after = values[at - n["rows"] : at], values[at : at + n["rows"]]
    return {"step": f.train[at][0], "before": fmean(before), "after": fmean(after)}


def start_loss(f: File, n: Row) -> Row:
    if "before" in n:  # Zeros from a row on to the end.
        at = max(i for i, (_, v, _) in enumerate(f.train) if v != 0)
        (before_step, before, _), zeros = f.train[at], f.train[at + 1 :]
        found: Row = {"before": before, "before_step": before_step, "rows": len(zeros)}
        return found | {"step": zeros[0][0], "last_step": zeros[-1][0]}
    step, loss, _ = f.train[0]
    return {"step": step, "loss": loss, "blind": math.log(n["vocabulary"])}


def comparable(f: File, n: Row) -> Row:
    if "ratio" not in n:
        return {"val": f.val[0][1], "train": f.train[0][1], "train_step": f.train[0][0]}
    reach = max(2, min(10, len(f.train) // (2 * len(f.val))))
    ratios = []
    for step, value, _ in f.val:  # Against the training rows on both sides of the evaluation.
        before = [v for s, v, _ in f.train if s < step][-reach:]
        after = [v for s, v, _ in f.train if s >= step][:reach]
        level = median(before + after)
        ratios.append(level / value)
    later = ratios[len(ratios) // 10 :]
    assert min(later) > 1
    return {"val": f.val[-1][1], "evals": len(f.val), "train": level, "ratio": median(later)}


def chance(lost: int, gained: int) -> float:
    """How often a fair coin is at least as uneven: McNemar's exact test, counted toss by toss."""
    ways = [1]
    for _ in range(lost + gained):
        ways = [a + b for a, b in zip([0, *ways], [*ways, 0], strict=True)]
    far = abs(lost - gained)
    return sum(w for k, w in enumerate(ways) if abs(lost + gained - 2 * k) >= far) / sum(ways)


def named(name: str, exam: Row) -> Row:
    """The figures of one exam."""
    return {f"{name}_{key}": exam[key] for key in ("right", "total", "step")}


def changed(exam: Row, base: Row) -> Row:
    """What changed since the base, as far as the row tells it; its p-value and its verdict."""
    if "lost" not in exam:
        return {}
    assert exam["right"] - base["right"] == exam["gained"] - exam["lost"]
    p = chance(exam["lost"], exam["gained"])
    verdict = (
        "no different" if p >= 0.05 else "better" if exam["right"] > base["right"] else "worse"
    )
    assert exam["verdict"] == verdict
    return {"lost": exam["lost"], "gained": exam["gained"], "p_value": p}


def worse(f: File, n: Row) -> Row:
    exams = f.exams
    if "low" in n:
        (_, first, row), *later = f.val or f.watched
        assert row["step"] == 0
        step, low = lowest(later)
        return {"first": first, "later": len(later), "low": low, "low_step": step}
    if "top_right" in n:
        top = max(exams[1:], key=lambda r: r["right"])
        assert all(r["right"] <= exams[0]["right"] for r in exams)
        return {"later": len(exams) - 1, **named("first", exams[0]), **named("top", top)}
    if "first_right" not in n:
        return {"first": f.val[0][1], "last": f.val[-1][1], "last_step": f.val[-1][0]}
    found = {**named("first", exams[0]), **named("last", exams[-1])}
    kept = next((r for r in exams if r["step"] == f.kept_step()), None)
    if "kept_step" in n and kept is not None:
        found |= named("kept", kept)
    return found | changed(exams[-1], exams[0])


def objective(f: File, n: Row) -> Row:
    found: Row = {"loss_rows": len(f.train)}
    if "name" in n:
        (first_step, first, _), *_, (last_step, last, _) = f.series((n["name"],), None)
        found |= {"first_reward": first, "first_step": first_step}
        found |= {"last_reward": last, "last_step": last_step}
    return found


def speed(f: File, n: Row) -> Row:
    rates = [r["tokens_per_second"] for r in f.rows.values() if "tokens_per_second" in r]
    late = len(rates) // 4
    return {
        "tokens_per_second": median(rates),
        "early": median(rates[:-late]),
        "late": median(rates[-late:]),
    }


def memory(f: File, n: Row) -> Row:
    top = max((r for r in f.rows.values() if "memory_bytes" in r), key=lambda r: r["memory_bytes"])
    found: Row = {"bytes": top["memory_bytes"], "step": top["step"]}
    if "room_bytes" in n:
        room = next(r for r in f.rows.values() if r.get("event") == "start")["device_bytes"]
        found |= {"room_bytes": room, "headroom": (room - top["memory_bytes"]) / room}
    return found


def yardstick(f: File, n: Row) -> Row:
    start = next(r for r in f.rows.values() if r.get("event") == "start")
    low_step, low = lowest(f.val)
    found: Row = {"tokens": start["ngram_tokens"], "best": low, "best_step": low_step}
    for order in range(1, 6):
        loss = start[f"ngram_{order}"]
        found[f"loss_{order}"] = loss
        below = None
        for step, value, _ in f.val:
            below = None if value >= loss else step if below is None else below
            if step == low_step:
                break
        found[f"step_{order}"] = below
    return {key: value for key, value in found.items() if key in n}


def copied(f: File, n: Row) -> Row:
    stop = [r for r in f.rows.values() if r.get("event") == "stop"][-1]
    found: Row = {key: stop[key] for key in n if key in stop}
    found["part"] = stop["copied_tokens"] / stop["copied_of"]
    if "held_out_part" in n:
        found["held_out_part"] = stop["held_out_copied_tokens"] / stop["held_out_of"]
    return found


def forecast(f: File, n: Row) -> Row:
    told = next(r for r in f.rows.values() if r.get("event") == "start")["forecast"]
    spent = [r for r in f.rows.values() if r.get("event") == "stop"][-1]["seconds"]
    most = max(r["memory_bytes"] for r in f.rows.values() if "memory_bytes" in r)
    return {
        "forecast_seconds": told["seconds"],
        "spent_seconds": spent,
        "times": spent / told["seconds"],
        "forecast_bytes": told["memory_bytes"],
        "bytes": most,
        "memory_times": most / told["memory_bytes"],
    }


def short(f: File, n: Row) -> Row:
    return {"loss_rows": len(f.train), "val_rows": len(f.val)}


def doubtful(f: File, n: Row) -> Row:
    """The held-out set as our own warnings and first row, or the rate of an evaluation, tell it."""
    found: Row = {}
    start = next((r for r in f.rows.values() if r.get("event") == "start"), {})
    if "copied" in n:
        told = next(r for r in f.rows.values() if r.get("id") == "data.near_copies")["numbers"]
        found |= {"copied": told["count"], "total": told["total"]}
    if "held_out_tokens" in n:
        found["held_out_tokens"] = start["tokens"]["val"]
    if "held_out" in n:
        row = f.val[0][2]
        rate = next(v for k, v in row.items() if k.endswith("samples_per_second"))
        seconds = next(v for k, v in row.items() if k.endswith("_runtime"))
        found["held_out"] = round(rate * seconds)
    if "val_first" in n:
        found |= {"passes": f.epochs(), "val_first": f.val[0][1], "val_last": f.val[-1][1]}
        found["val_step"] = f.val[-1][0]
    return found


def unheld(f: File, n: Row) -> Row:
    """A log without a validation loss: its training losses, and the measure that it has instead."""
    found: Row = {"loss_rows": len(f.train)}
    assert not f.val
    if "metric" in n:
        values = f.series((n["metric"],), None)
        worst = {"wer", "cer", "error"} & set(n["metric"].split("_"))
        step, value, _ = (min if worst else max)(values, key=lambda one: one[1])
        found |= {"evals": len(values), "step": step, "value": value}
        found |= {"last_value": values[-1][1], "last_step": values[-1][0]}
    elif "evals" in n:
        found["evals"] = sum(any(k.startswith("eval_") for k in r) for r in f.rows.values())
    return found


RECOMPUTE: dict[str, Callable[[File, Row], Row]] = {
    "overfitting": overfitting,
    "ended_worse": ended_worse,
    "other_set_rose": other_set,
    "validation_unmoved": unmoved,
    "training_flat": flat,
    "reward_fell": reward,
    "not_a_loss_objective": objective,
    "best_step": best_step,
    "could_have_stopped": could_have_stopped,
    "still_improving": still_improving,
    "plateau": plateau,
    "diverged": diverged,
    "non_finite": non_finite,
    "memorisation_risk": passes,
    "data_repeated": passes,
    "loss_spike": spike,
    "gradient_spike": gradient_spike,
    "schedule": schedule,
    "learning_rate_zero": rate_zero,
    "learning_rate_too_high": rate_high,
    "mean_is_not_last_loss": mean_loss,
    "log_incomplete": incomplete,
    "log_inconsistent": inconsistent,
    "epoch_staircase": staircase,
    "abnormal_start_loss": start_loss,
    "losses_not_comparable": comparable,
    "worse_than_base": worse,
    "throughput": speed,
    "memory": memory,
    "copied_text": copied,
    "ngram_yardstick": yardstick,
    "forecast": forecast,
    "too_short_to_judge": short,
    "validation_doubtful": doubtful,
    "no_validation": unheld,
}

TOKEN = re.compile(r"(?<![\w.,-])\u2212?\d+(?:[.,\u00a0]\d+)*(?:e[-+]\d+)?")


def tokens(text: str, lang: str) -> list[str]:
    """The numbers of a sentence in plain form."""
    found = TOKEN.findall(
        re.sub(r"1e-4|5e-4|1e-5|5e-5|best/|\d*checkpoint-\d+/|eval_\w+", "", text)
    )
    if lang == "en":
        return [t.replace(",", "").replace("\u2212", "-") for t in found]
    return [t.replace("\u00a0", "").replace(",", ".").replace("\u2212", "-") for t in found]


def said(token: str, numbers: Row) -> bool:
    """Whether a number of the sentence is one of these, rounded as it is written."""
    value = float(token)
    mantissa, _, power = token.partition("e")
    places = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(power or 0) - places)
    for name, known in numbers.items():
        if isinstance(known, bool) or not isinstance(known, int | float):
            continue
        key = name.rpartition(".")[2]
        times = [known]
        if key in ("part", "held_out_part", "headroom", "saved", "saved_fraction"):
            times = [100 * known]
        elif key in ("bytes", "forecast_bytes", "room_bytes"):
            times = [known / 1e9, known / 1e6]
        elif key.endswith("_seconds"):  # 1 d 0 h, 12 min 50 s: the parts of a duration.
            whole = round(known)
            times = [whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60]
        if any(abs(t - value) <= 0.5001 * unit for t in times):
            return True
    return False


def check(path: Path, made: Row) -> tuple[list[str], int]:
    """(what does not agree, how many numbers were compared)."""
    f, faults, compared = File(path), [], 0
    for finding in made["findings"]:
        id, numbers = finding["id"], finding["numbers"]
        if id not in RECOMPUTE:
            faults.append(f"{id}: nothing recomputes it")
            continue
        own = RECOMPUTE[id](f, numbers)
        for key, value in own.items():
            if value is None or key not in numbers:
                continue
            compared += 1
            if not math.isclose(numbers[key], value, rel_tol=1e-9, abs_tol=1e-12):
                faults.append(f"{id}.{key}: says {numbers[key]}, is {value}")
        for proof in finding["evidence"]:
            compared += 1
            row = f.rows.get(proof["row"], {})
            got = row.get(proof["field"])
            same = str(got) == str(proof["value"]) or cell(got) == proof["value"]
            if not same and proof["field"] not in ("epoch", "step"):
                faults.append(
                    f"{id}: row {proof['row']} {proof['field']}: {proof['value']} / {got}"
                )
        foreign = [value for value in numbers.values() if isinstance(value, str) and value]
        for lang in ("en", "es"):
            text = finding["text"][lang]
            for value in foreign:  # Names of files and columns may hold digits.
                text = text.replace(value, "")
            for token in tokens(text, lang):
                compared += 1
                if not said(token, {**numbers, **own}):
                    faults.append(f"{id} ({lang}): {token} is nowhere in {numbers}")
        if tokens(finding["text"]["en"], "en") != tokens(finding["text"]["es"], "es"):
            faults.append(f"{id}: the languages differ in their numbers")
    facts = made["facts"]
    truth: Row = {"loss_rows": None}
    if f.train:
        truth = {
            "first_train_loss": f.train[0][1],
            "last_train_loss": f.train[-1][1],
            "lowest_train_loss": lowest(f.train)[1],
            "lowest_train_step": lowest(f.train)[0],
        }
    if f.val:
        truth |= {
            "best_val_loss": lowest(f.val)[1],
            "best_val_step": lowest(f.val)[0],
            "last_val_loss": f.val[-1][1],
            "eval_rows": len(f.val),
        }
    for key, value in truth.items():
        compared += 1
        if value is not None and facts[key] != value:
            faults.append(f"facts.{key}: says {facts[key]}, is {value}")
    for lang in ("en", "es"):
        known = {k: v for k, v in facts.items() if v is not None}
        for finding in made["findings"]:
            known |= {f"{finding['id']}.{k}": v for k, v in finding["numbers"].items()}
        if f.val:
            known["first_val_loss"] = f.val[0][1]
        if f.train:
            known["last_train_step"] = f.train[-1][0]
        for number, exam in enumerate(f.exams):
            known |= named(f"exam{number}", exam)
            known |= {f"exam{number}.{k}": v for k, v in changed(exam, f.exams[0]).items()}
        for token in tokens(made["verdict"]["text"][lang], lang):
            compared += 1
            if not said(token, known):
                faults.append(f"verdict ({lang}): {token} is nowhere")
    return faults, compared


# ---------------------------------------------------------------------------------------------
# The page: the tables and sentences that are no part of report.json.


def shown(html: str, id: str, lang: str) -> str:
    """The text of one section of the page in one language; cells are parted by bars."""
    found = re.search(rf'<section aria-labelledby="{id}">(.*?)</section>', html, re.S)
    if found is None:
        return ""
    other = {"en": "es", "es": "en"}[lang]
    text = re.sub(rf'<span lang="{other}">.*?</span>', "", found[1], flags=re.S)
    text = re.sub(r"</t[hd]>", " | ", re.sub(r"</(tr|p|li|caption|h\d)>", "\n", text))
    return unescape(re.sub(r"<[^>]*>", "", text))


def score_interval(right: int, total: int) -> tuple[float, float]:
    """Wilson's interval as its definition says: the shares whose z-test does not refuse `right`."""

    def refused(share: float) -> bool:
        return abs(right / total - share) > 1.959964 * math.sqrt(share * (1 - share) / total)

    ends = []
    for out, within in ((0.0, right / total), (1.0, right / total)):
        for _ in range(60):
            middle = (out + within) / 2
            out, within = (middle, within) if refused(middle) else (out, middle)
        ends.append(within)
    return ends[0], ends[1]


def check_page(path: Path, html: str) -> tuple[list[str], int]:
    """(what does not agree, how many numbers were compared): exams and forgetting on the page."""
    f, faults, compared = File(path), [], 0

    def hold(what: str, got: list[str], wanted: list[float]) -> None:
        nonlocal compared
        compared += len(wanted)
        same = len(got) == len(wanted)
        if not same or not all(said(g, {"": w}) for g, w in zip(got, wanted, strict=True)):
            faults.append(f"{what}: says {got}, is {wanted}")

    general = [(s, v) for s, v, r in f.series(("general_loss",), "eval") if r["event"] == "eval"]
    for lang in ("en", "es"):
        lines = shown(html, "report-exam", lang).splitlines()
        table = [line for line in lines if re.match(r"[\d,.\u00a0]+( \(best/\))? \| ", line)]
        if len(table) != len(f.exams):
            faults.append(f"{lang}: {len(table)} exams on the page, {len(f.exams)} in the log")
        for line, exam in zip(table, f.exams, strict=False):
            low, high = score_interval(exam["right"], exam["total"])
            change = changed(exam, f.exams[0])
            wanted = [exam["step"], exam["right"], exam["total"], 100 * low, 100 * high]
            hold(line, tokens(line, lang), [*wanted, *change.values()])
            words = {"better": "mejor", "no different": "sin diferencia", "worse": "peor"}
            verdict = exam.get("verdict")
            if change and (verdict if lang == "en" else words[str(verdict)]) not in line:
                faults.append(f"{line}: is {verdict}")
            if f.best_kept() and ("best/" in line) != (exam["step"] == f.kept_step()):
                faults.append(f"{line}: best/ holds step {f.kept_step()}")
        told = " ".join(shown(html, "report-forgetting", lang).splitlines()[1:])
        if general:
            (first_step, first), (last_step, last) = general[0], general[-1]
            rise = last - first
            wanted = [first, first_step, last, last_step]
            wanted += [0.05] if abs(rise) < 0.05 else [abs(rise)]
            kept = next((v for s, v in general if s == f.kept_step()), None)
            if f.best_kept() and kept is not None and f.kept_step() != last_step:
                wanted += [f.kept_step(), kept]
            hold(told, tokens(told, lang), wanted)
            words = {"en": ("rose", "fell", "went"), "es": ("subió", "bajó", "pasó")}
            word = words[lang][2 if abs(rise) < 0.05 else 0 if rise > 0 else 1]
            if f" {word} " not in told:
                faults.append(f"{told}: {word}")
        elif told:
            faults.append(f"forgetting from nowhere: {told}")
    return faults, compared
