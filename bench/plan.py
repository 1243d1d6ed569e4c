"""Forecasts against outcomes: short runs of many shapes, each in a process of its own.

    python bench/plan.py [--only pretrain] [--limit 10] [--out bench/results/plan.md]

Every run trains a few updates of a random model on random text through the command itself. Beside
the forecast stands "parameters x 4", accelerate's estimate for training with Adam: four times the
float32 weights. The machine is measured at the beginning; outcomes are not learnt from while the
table is made, and the last lines say what learning from the first five would have done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yunque.assemble.calibration import calibrate
from yunque.assemble.planning import job_of, planned_recipe, precision_on
from yunque.config import MachineConfig, ModelConfig, Recipe, to_toml
from yunque.data.tokenizer import train_tokenizer
from yunque.forecast.history import Correction, Outcome, correction
from yunque.forecast.machine import Machine
from yunque.forecast.plan import Plan, plan_run
from yunque.forecast.shape import count_parameters
from yunque.model.decoder import Decoder
from yunque.weights.folder import save_folder

UPDATES = 6
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
        ("30m", 8, 256),
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


def run(case: Case, folder: Path) -> tuple[float, float, float, Path]:
    """(median seconds of an update, peak bytes, bytes before the model, the run's folder)."""
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
    command += ["--out", str(out), "--batch-size", str(case.batch), "--steps", str(UPDATES)]
    command += ["--eval-every", "1000", "--eval-tokens", str(case.batch * case.length)]
    command += ["--sample-tokens", "0", "--quiet", *case.flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["event"] == "step"]
    start = next(row for row in rows if row["event"] == "start")
    seconds = [case.batch * case.length / row["tokens_per_second"] for row in steps[1:]]
    return (
        statistics.median(seconds),
        steps[-1]["memory_bytes"],
        start["forecast"]["base_bytes"],
        out,
    )


def given(shape: ModelConfig) -> dict[str, Any]:
    """A shape as options of a recipe."""
    values = dataclasses.asdict(shape)
    del values["preset"]
    return values


def forecast(machine: Machine, out: Path, base: float) -> Plan:
    """The forecast from the run's own recipe, uncorrected."""
    recipe = planned_recipe(str(out))
    job, _ = job_of(recipe, precision_on(machine, recipe.machine))
    return plan_run(job, dataclasses.replace(machine, base_memory=int(base)), Correction())


def main() -> None:
    """Measure the machine, make the runs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="one method")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--out", default="", help="file for the rows, as JSON lines")
    options = parser.parse_args()
    machine = calibrate(MachineConfig(), lambda done, count: None)
    print(f"{machine.name}, {machine.threads} threads, {os.cpu_count()} cores")
    print(json.dumps({k: f"{v:.3g}" for k, v in dataclasses.asdict(machine.rates["fp32"]).items()}))
    print("| run | memory, MB | forecast | error | x 4 | s/update | forecast | error |")
    print("|---|---|---|---|---|---|---|---|")
    outcomes, table = [], []
    chosen = [case for case in cases() if options.only in ("", case.method)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in chosen[options.skip :][: options.limit]:
            seconds, memory, base, out = run(case, folder)
            plan = forecast(machine, out, base)
            subprocess.run(["rm", "-r", str(out.parent)], check=True)
            times_4 = 16 * count_parameters(plan.job.shape).total
            errors = [
                math.log(plan.peak.value / memory),
                math.log(plan.update_seconds.value / seconds),
                math.log(times_4 / memory),
            ]
            table.append(errors)
            outcomes.append(
                Outcome(
                    machine.name,
                    case.method,
                    plan.update_seconds.value,
                    seconds,
                    plan.peak.value - base,
                    memory - base,
                )  # fmt: skip
            )
            label = (
                f"{case.method} {case.shape} {case.batch} x {case.length} {' '.join(case.flags)}"
            )
            print(
                f"| {label} | {memory / 1e6:,.0f} | {plan.peak.value / 1e6:,.0f} "
                f"| {math.expm1(errors[0]):+.1%} | {times_4 / 1e6:,.0f} | {seconds:.3f} "
                f"| {plan.update_seconds.value:.3f} | {math.expm1(errors[1]):+.1%} |",
                flush=True,
            )
            if options.out:
                row = {"case": dataclasses.asdict(case), "seconds": seconds, "memory": memory}
                row |= {"base": base, "parts": dict(plan.memory.parts())}
                with Path(options.out).open("a") as file:
                    file.write(json.dumps(row) + "\n")
    summary(machine, outcomes, table)


def summary(machine: Machine, outcomes: list[Outcome], table: list[list[float]]) -> None:
    """Errors of all runs, and what learning from the first five does to those after them."""
    for index, what in enumerate(("memory", "time", "parameters x 4")):
        sizes = [abs(math.expm1(errors[index])) for errors in table]
        print(f"{what}: mean {statistics.mean(sizes):.1%}, largest {max(sizes):.1%}")
    if len(outcomes) < 10:
        return
    # The order in which a user would run them is none in particular.
    mixed = random.Random(1).sample(outcomes, len(outcomes))
    for count in (0, 1, 5, 20):
        time_errors, memory_errors, inside = [], [], [0, 0]
        for one in mixed[20:]:
            past = correction(mixed[:count], one.machine, one.method, machine.spread)
            time_error = math.log(one.forecast_seconds * past.time_factor / one.seconds)
            memory_error = math.log(one.forecast_memory * past.memory_factor / one.memory)
            time_errors.append(abs(math.expm1(time_error)))
            memory_errors.append(abs(math.expm1(memory_error)))
            inside[0] += abs(time_error) <= 1.645 * (past.time_spread or machine.spread)
            inside[1] += abs(memory_error) <= 1.645 * past.memory_spread
        print(
            f"after {count} runs: time {statistics.mean(time_errors):.1%} "
            f"({inside[0]} of {len(time_errors)} inside the interval), memory above the program's "
            f"own {statistics.mean(memory_errors):.1%} ({inside[1]} inside)"
        )


if __name__ == "__main__":
    main()
