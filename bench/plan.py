"""Forecasts against outcomes: short runs of many shapes, each in a process of its own.

    python bench/plan.py memory rows.jsonl     # every case, two updates; other work may go on
    python bench/plan.py time rows.jsonl       # cases of short updates; nothing else may run
    python bench/plan.py time rows.jsonl --minutes 4    # as many as these hold; again for the rest
    python bench/plan.py table rows.jsonl      # forecasts of today's arithmetic beside them

Every run trains a few updates of a random model on random text through the command itself and adds
a line to the file; a case that is there already is not run again. The machine is measured at the
beginning and again every few runs: a run is forecast by the measurement before it, of which the
file keeps the seconds, so that the table is of today's arithmetic. Beside the forecast stands
"parameters x 4", accelerate's estimate for training with Adam: four times the float32 weights.
Outcomes are not learnt from while the table is made; its last lines say what learning from the
first runs would have done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from yunque import runtime
from yunque.assemble.calibration import Timings, machine_of, timings
from yunque.assemble.planning import job_of, planned_recipe, precision_on
from yunque.config import (
    AdaptConfig,
    MachineConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    TrainConfig,
    to_toml,
)
from yunque.data.tokenizer import train_tokenizer
from yunque.forecast.history import SPARE, Correction, Outcome, correction
from yunque.forecast.machine import STEADY, Machine
from yunque.forecast.memory import library_bytes
from yunque.forecast.plan import NORMAL_90, plan_run
from yunque.forecast.shape import count_parameters
from yunque.forecast.work import Workload
from yunque.model.decoder import Decoder
from yunque.weights.folder import save_folder

MEMORY_UPDATES = 2
UNCOUNTED, LEAST_COUNTED, MOST_COUNTED, COUNTED_SECONDS = 2, 3, 9, 4.0
"""Of a timed run: updates that do not count, how many do, and for how long these should last."""
ORDERS = 200
LONGEST_UPDATE = 2.0
"""Seconds by forecast; what takes longer is left out of the timed part."""
MEASURED_EVERY = 140.0
"""Seconds after which the machine is measured again."""
SHAPES = {
    # name: layers, width, heads, vocabulary, GPT-2's layers or the modern ones
    "1m": (4, 128, 4, 1_000, False),
    "3m": (6, 192, 6, 2_000, False),
    "6m": (6, 256, 4, 4_000, True),
    "12m": (8, 320, 5, 6_000, False),
    "30m": (8, 512, 8, 8_000, True),
    "60m": (10, 640, 10, 12_000, False),
    "124m": (12, 768, 12, 50_257, True),
    "350m": (24, 1024, 16, 16_000, False),
    "1b": (20, 2048, 16, 16_000, False),
}


def shape_of(name: str, context: int) -> ModelConfig:
    """A shape of the table."""
    layers, width, heads, vocabulary, old = SHAPES[name]
    return ModelConfig(
        preset="",
        vocab_size=vocabulary,
        context_length=context,
        num_layers=layers,
        num_heads=heads,
        hidden_size=width,
        # bitsandbytes packs 4 bits on a CPU only by multiples of 64.
        intermediate_size=0 if old else -(-8 * width // 3 // 64) * 64,
        positions="learned" if old else "rotary",
        norm="layernorm" if old else "rmsnorm",
        mlp="gelu" if old else "swiglu",
        bias=old,
        qkv_bias=old,
        qk_norm=False,
        dropout=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """One run."""

    method: str
    shape: str
    batch: int
    length: int
    flags: tuple[str, ...] = ()


def cases() -> Iterator[Case]:
    """All runs: methods, sizes from 1 M to 1 B, batch, length, checkpointing, optimizer, splits."""
    for shape, batch, length in [
        ("1m", 4, 64), ("1m", 32, 128), ("3m", 8, 256), ("3m", 32, 64), ("6m", 8, 256),
        ("6m", 2, 1024), ("12m", 8, 128), ("12m", 4, 512), ("30m", 4, 256), ("30m", 2, 512),
        ("60m", 2, 256), ("60m", 4, 128), ("124m", 1, 256), ("124m", 2, 128), ("350m", 1, 64),
    ]:  # fmt: skip
        yield Case("pretrain", shape, batch, length)
    checkpointing = ("--gradient-checkpointing",)
    for shape, batch, length in [
        ("3m", 16, 256),
        ("12m", 8, 512),
        ("60m", 2, 512),
        ("124m", 2, 256),
    ]:
        yield Case("pretrain", shape, batch, length, checkpointing)
    for shape, batch, length in [("1m", 16, 128), ("6m", 8, 128), ("30m", 4, 128), ("60m", 2, 128)]:
        yield Case("pretrain", shape, batch, length, ("--optimizer", "muon"))
    for shape, batch, length in [("3m", 16, 128), ("30m", 8, 128), ("60m", 4, 256)]:
        yield Case("pretrain", shape, batch, length, ("--micro-batch-size", "2"))
    for shape, batch, length in [
        ("1m", 16, 256),
        ("6m", 8, 256),
        ("30m", 4, 256),
        ("124m", 1, 128),
    ]:
        yield Case("pretrain", shape, batch, length, ("--dropout", "0.1"))
    yield Case("pretrain", "12m", 8, 256, ("--average-decay", "0.98"))
    yield Case("pretrain", "30m", 4, 256, ("--optimizer", "sgd", "--learning-rate", "0.01"))
    for shape, batch, length in [
        ("6m", 8, 256),
        ("30m", 4, 128),
        ("60m", 2, 256),
        ("124m", 1, 128),
    ]:
        yield Case("full", shape, batch, length)
    for shape, batch, length in [
        ("6m", 8, 256), ("12m", 8, 128), ("30m", 4, 256), ("60m", 4, 128), ("124m", 2, 256),
        ("124m", 4, 128), ("350m", 1, 256), ("350m", 2, 64), ("1b", 1, 64),
    ]:  # fmt: skip
        yield Case("lora", shape, batch, length)
    for shape, batch, length in [
        ("12m", 8, 256),
        ("30m", 8, 256),
        ("60m", 4, 256),
        ("124m", 2, 256),
        ("350m", 2, 256),
        ("1b", 1, 128),
    ]:
        yield Case("lora", shape, batch, length, checkpointing)
    yield Case("lora", "60m", 4, 128, ("--rank", "64"))
    for shape, batch, length in [
        ("30m", 4, 256), ("60m", 2, 256), ("124m", 2, 128), ("350m", 1, 128), ("350m", 2, 256),
        ("1b", 1, 64),
    ]:  # fmt: skip
        yield Case("qlora", shape, batch, length)
    for shape, batch, length in [("124m", 2, 256), ("350m", 1, 256)]:
        yield Case("qlora", shape, batch, length, checkpointing)
    yield Case("qlora", "124m", 2, 128, ("--quantize-bits", "8"))
    for method, shape, batch, length in [
        ("pretrain", "12m", 8, 128),
        ("pretrain", "60m", 2, 128),
        ("full", "124m", 1, 128),
        ("lora", "30m", 4, 256),
    ]:
        yield Case(method, shape, batch, length, ("--optimizer", "adamw8bit"))
    least = ("--optimizer", "adamw16bit", "--update-in-backward", "--clip-norm", "0")
    for shape, batch, length in [("30m", 4, 256), ("60m", 2, 256), ("124m", 1, 256)]:
        yield Case("pretrain", shape, batch, length, least)
    for method, shape, batch, length in [
        ("pretrain", "6m", 4, 128),
        ("pretrain", "30m", 2, 128),
        ("lora", "60m", 2, 128),
    ]:
        yield Case(method, shape, batch, length, ("--precision", "bf16"))


def text_of(folder: Path) -> Path:
    """A megabyte of random small letters."""
    path = folder / "text.txt"
    if not path.exists():
        drawn = random.Random(1)
        path.write_text("".join(drawn.choices("abcdefghij klmno", k=1_000_000)))
    return path


def base_of(case: Case, folder: Path) -> Path:
    """A random base of a shape, saved as a model folder."""
    path = folder / f"base-{case.shape}"
    if not path.exists():
        text = text_of(folder).read_text()[:10_000]
        tokenizer = train_tokenizer("char", lambda: iter([text]), "<|endoftext|>")
        shape = shape_of(case.shape, 1024).resolved(0)
        save_folder(Decoder(shape), path, tokenizer.save, {"eos_token_id": 0})
    return path


def run(case: Case, folder: Path, updates: int) -> dict[str, Any]:
    """Train a few updates; the row of the file: outcome, and the job that it was."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    command = [sys.executable, "-m", "yunque.cli"]
    if case.method == "pretrain":
        recipe = out.parent / "shape.toml"
        shape = shape_of(case.shape, case.length)
        recipe.write_text(to_toml(Recipe().replace(tokenizer="char", **given(shape))))
        command += ["pretrain", str(text_of(folder)), "--recipe", str(recipe)]
    else:
        command += ["finetune", str(base_of(case, folder)), str(text_of(folder))]
        command += ["--method", case.method, "--max-length", str(case.length), "--epochs", "0"]
    command += ["--out", str(out), "--batch-size", str(case.batch), "--steps", str(updates)]
    command += ["--eval-every", "1000", "--eval-tokens", str(case.batch * case.length)]
    command += ["--sample-tokens", "0", "--quiet", *case.flags]
    if updates == MEMORY_UPDATES:  # saving takes memory, too
        command += ["--keep-checkpoints", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["event"] == "step"]
    start = next(row for row in rows if row["event"] == "start")
    asked = planned_recipe(str(out))
    here = Machine("", "cpu", 0, {}, 0, 0.0, measured=False)
    job, _ = job_of(asked, precision_on(here, asked.machine))
    shutil.rmtree(out.parent)
    return {
        "case": label(case),
        "method": case.method,
        "updates": updates,
        "seconds": [case.batch * case.length / row["tokens_per_second"] for row in steps],
        "memory": max(row["memory_bytes"] for row in rows if row.get("memory_bytes")),
        "base": start["forecast"]["base_bytes"],
        "job": dataclasses.asdict(job),
    }


def label(case: Case) -> str:
    """A case in words."""
    flags = " ".join(flag.removeprefix("--") for flag in case.flags)
    return f"{case.method} {case.shape} {case.batch} x {case.length} {flags}".strip()


def given(shape: ModelConfig) -> dict[str, Any]:
    """A shape as options of a recipe."""
    values = dataclasses.asdict(shape)
    del values["preset"]
    return values


def job_from(row: dict[str, Any]) -> Workload:
    """The job of a row of the file."""
    kinds = {"shape": ModelConfig, "train": TrainConfig, "optim": OptimConfig, "adapt": AdaptConfig}
    made = {name: kind(**row["job"][name]) for name, kind in kinds.items()}
    return Workload(**{**row["job"], **made})


def main() -> None:
    """Make the runs that are not there yet, or print the table of those that are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("memory", "time", "table"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="cases whose words hold this")
    parser.add_argument("--largest", default="", help="the largest shape")
    parser.add_argument("--peer", default="", help="python of an environment with fitcheck-llm")
    parser.add_argument("--minutes", type=float, default=math.inf, help="then begin no more runs")
    options = parser.parse_args()
    rows = []
    if options.file.exists():
        rows = [json.loads(line) for line in options.file.read_text().splitlines()]
    if options.what == "table":
        show(rows)
        if options.peer:
            beside_peer(rows, options.peer)
        return
    timed = options.what == "time"
    done = {row["case"] for row in undisturbed(rows) if "case" in row and is_timed(row) == timed}
    sizes = list(SHAPES)
    largest = sizes.index(options.largest or ("350m" if timed else "1b"))
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name, options.file.open("a") as file:
        here = Here()
        machine, measured = here.measure(options.what, file), time.monotonic()
        print(f"{machine.name}, {machine.threads} threads, {os.cpu_count()} cores", file=sys.stderr)
        # In no order in particular, so that the runs of some minutes are of all kinds.
        for case in random.Random(2).sample(list(cases()), len(list(cases()))):
            if sizes.index(case.shape) > largest or label(case) in done:
                continue
            if options.only not in label(case) or (timed and not short(case, machine)):
                continue
            if time.monotonic() > end:
                break
            if timed and time.monotonic() - measured > MEASURED_EVERY:
                machine, measured = here.measure(options.what, file), time.monotonic()
            updates = timed_updates(case, machine) if timed else MEMORY_UPDATES
            file.write(json.dumps(run(case, Path(name), updates)) + "\n")
            file.flush()
            print(label(case), file=sys.stderr, flush=True)
        if timed:
            here.measure(options.what, file)


class Here:
    """This machine, measured as often as it is asked for."""

    def __init__(self) -> None:
        self.where = runtime.start(MachineConfig())
        self.base = self.where.resident_bytes()
        runtime.keep_freed_memory()

    def measure(self, what: str, file: TextIO) -> Machine:
        """Measure it, and keep what was measured in the file."""
        found = timings(self.where, lambda done, count: None)
        kept = {"what": what, "base": self.base, "timings": dataclasses.asdict(found)}
        file.write(json.dumps(kept) + "\n")
        file.flush()
        return machine_of(self.where, self.base, found)


def is_timed(row: dict[str, Any]) -> bool:
    """Whether a row is of a timed run."""
    return bool(row["updates"] > MEMORY_UPDATES)


def undisturbed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of measurements, and of the timed runs between two that found the machine alike.

    Whether other work disturbed a run is told by the measurements around it, never by the run: the
    last round before and the first after it. Of the runs of a case the first stays.
    """
    rounds = [row["timings"]["rounds"] if "timings" in row else None for row in rows]
    kept, seen = [], set()
    for place, row in enumerate(rows):
        if "case" in row and is_timed(row):
            before = next((sum(one[-1]) for one in reversed(rounds[:place]) if one), 0.0)
            after = next((sum(one[0]) for one in rounds[place:] if one), before)
            if max(before, after) > (1 + STEADY) * min(before, after) or row["case"] in seen:
                continue
            seen.add(row["case"])
        kept.append(row)
    return kept


def timed_updates(case: Case, machine: Machine) -> int:
    """Updates of a timed run: as many as last for some seconds by forecast."""
    counted = round(COUNTED_SECONDS / seconds_of(case, machine))
    return UNCOUNTED + min(MOST_COUNTED, max(LEAST_COUNTED, counted))


def short(case: Case, machine: Machine) -> bool:
    """Whether a case is short, and of the precision that the machine was measured in."""
    return "--precision" not in case.flags and seconds_of(case, machine) <= LONGEST_UPDATE


def seconds_of(case: Case, machine: Machine) -> float:
    """An update of a case by forecast, as far as its size, checkpointing and optimizer tell."""
    again = "--gradient-checkpointing" in case.flags
    optim = OptimConfig()
    if "--optimizer" in case.flags:
        named: Any = case.flags[case.flags.index("--optimizer") + 1]
        optim = OptimConfig(optimizer=named)
    job = Workload(
        shape_of(case.shape, case.length).resolved(0),
        TrainConfig(batch_size=case.batch, gradient_checkpointing=again),
        optim,
        case.method,
        AdaptConfig(),
        case.length,
    )
    return plan_run(job, machine, Correction()).update_seconds.value


def machine_from(row: dict[str, Any]) -> Machine:
    """The machine of a row of the file, by today's arithmetic where its timings were kept."""
    if "machine" in row:
        return Machine.from_json(row["machine"])
    found = Timings(**row["timings"])
    return machine_of(runtime.start(MachineConfig()), row["base"], found)


def show(rows: list[dict[str, Any]]) -> None:
    """The table, and errors in sum."""
    print("| run | memory, MB | forecast | error | x 4 | s/update | forecast | error |")
    print("|---|---|---|---|---|---|---|---|")
    errors: dict[str, list[float]] = {"memory": [], "time": [], "parameters x 4": []}
    outcomes, inside, burst, held = [], 0, 0, 0
    kept = undisturbed(rows)
    for row in kept:
        if "case" not in row:
            measured = machine_from(row)
            continue
        timed = is_timed(row)
        job = job_from(row)
        machine = dataclasses.replace(
            measured, base_memory=measured.base_memory + library_bytes(job)
        )
        plan = plan_run(job, machine, Correction())
        seconds, memory = statistics.median(row["seconds"][UNCOUNTED:] or [1.0]), row["memory"]
        times_4 = 16 * count_parameters(plan.job.shape).total
        off = math.log(plan.peak.value / memory)
        late = math.log(plan.update_seconds.value / seconds)
        if timed:
            errors["time"].append(late)
            held += plan.update_seconds.low <= seconds <= plan.update_seconds.high
            known = Outcome(
                machine.name,
                row["method"],
                plan.update_seconds.value,
                seconds,
                plan.peak.value - machine.base_memory,
                memory - machine.base_memory,
                machine.base_memory,
            )
            outcomes.append(known)
        else:
            errors["memory"].append(off)
            errors["parameters x 4"].append(math.log(times_4 / memory))
            inside += plan.peak.low <= memory <= plan.peak.high
            # A budget that the forecast just fits into: did the run?
            burst += memory > SPARE * plan.peak.high
        told = f"{seconds:.3f} | {plan.update_seconds.value:.3f} | {math.expm1(late):+.1%}"
        print(
            f"| {row['case']} | {memory / 1e6:,.0f} | {plan.peak.value / 1e6:,.0f} "
            f"| {math.expm1(off):+.1%} | {times_4 / 1e6:,.0f} | {told if timed else '| |'} |"
        )
    for what, found in errors.items():
        sizes = [abs(math.expm1(error)) for error in found]
        if sizes:
            mean, most = statistics.mean(sizes), max(sizes)
            print(f"{what}: {len(sizes)} runs, mean {mean:.1%}, largest {most:.1%}")
    if errors["memory"]:
        print(f"memory: {inside} inside the interval, {burst} above what is said to fit")
    if outcomes:
        left = len(rows) - len(kept)
        print(f"time: {held} inside the interval; {left} runs left out, disturbed or once more")
    if len(outcomes) >= 25:
        learnt(outcomes, measured)


def beside_peer(rows: list[dict[str, Any]], python: str) -> None:
    """Errors of memory on the rows that fitcheck-llm has an answer to: ours, its, parameters x 4.

    Its guess of a GPU's context is replaced by what was there before the first tensor, which ours
    knows as well.
    """
    here = machine_from(next(row for row in rows if "case" not in row))
    rows = [row for row in rows if "case" in row and not is_timed(row)]
    jobs = [job_from(row) for row in rows]
    sizes = [count_parameters(job.shape).total for job in jobs]
    asked = "".join(
        json.dumps({"job": row["job"], "parameters": size}) + "\n"
        for row, size in zip(rows, sizes, strict=True)
    )
    worker = [python, str(Path(__file__).with_name("plan_peer.py"))]
    told = subprocess.run(worker, input=asked, capture_output=True, text=True, check=True).stdout
    errors: dict[tuple[str, str], list[float]] = {}
    print("| run | memory, MB | fitcheck-llm | error |")
    print("|---|---|---|---|")
    for row, job, size, line in zip(rows, jobs, sizes, told.splitlines(), strict=True):
        answer, base = json.loads(line), here.base_memory + library_bytes(job)
        if "why" in answer:
            print(f"| {row['case']} | {row['memory'] / 1e6:,.0f} | {answer['why']} | |")
            continue
        ours = plan_run(job, dataclasses.replace(here, base_memory=base), Correction()).peak.value
        found = {"ours": ours, "fitcheck-llm": answer["bytes"] + base, "parameters x 4": 16 * size}
        for name, value in found.items():
            errors.setdefault((row["method"], name), []).append(value / row["memory"] - 1)
            errors.setdefault(("all", name), []).append(value / row["memory"] - 1)
        theirs = found["fitcheck-llm"]
        print(
            f"| {row['case']} | {row['memory'] / 1e6:,.0f} | {theirs / 1e6:,.0f} "
            f"| {theirs / row['memory'] - 1:+.1%} |"
        )
    for (method, name), found_errors in sorted(errors.items()):
        mean = statistics.mean(abs(error) for error in found_errors)
        ends = f"{min(found_errors):+.1%} to {max(found_errors):+.1%}"
        print(f"{method}, {name}: {len(found_errors)} runs, mean {mean:.1%}, {ends}")


def learnt(outcomes: list[Outcome], machine: Machine) -> None:
    """What learning from the first runs does to those after them, over many orders.

    The order in which a user would run them is none in particular.
    """
    orders = [random.Random(seed).sample(outcomes, len(outcomes)) for seed in range(ORDERS)]
    for count in (0, 1, 5, 20):
        errors, inside = [], 0
        for order in orders:
            for one in order[20:]:
                sizes = (one.forecast_seconds, one.forecast_memory)
                past = correction(order[:count], one.machine, one.method, *sizes, machine.spread)
                error = math.log(one.forecast_seconds * past.time_factor / one.seconds)
                errors.append(abs(math.expm1(error)))
                inside += abs(error) <= NORMAL_90 * (past.time_spread or machine.spread)
        mean, share = statistics.mean(errors), inside / len(errors)
        print(f"time after {count} runs: {mean:.1%}, {share:.0%} inside ({len(orders)} orders)")


if __name__ == "__main__":
    main()
