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
from yunque.config import MachineConfig, ModelConfig
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
    for shape, batch, length in [("3m", 16, 256), ("12m", 8, 512), ("60m", 2, 512), ("124m", 2, 256)]:
        yield Case("pretrain", shape, batch, length, checkpointing)
    for shape, batch, length in [("1m", 16, 128), ("6m", 8, 128), ("30m", 4, 128), ("60m", 2, 128)]:
        yield Case("pretrain", shape, batch, length, ("--optimizer", "muon"))
    for shape, batch, length in [("3m", 16, 128), ("30m", 8, 128), ("60m", 4, 256)]:
        yield Case("pretrain", shape, batch, length, ("--micro-batch-size", "2"))
    for shape, batch, length in [("1m", 16, 256), ("6m", 8, 256), ("30m", 4, 256), ("124m", 1, 128)]:
        yield Case("pretrain", shape, batch, length, ("--dropout", "0.1"))
    yield Case("pretrain", "12m", 8, 256, ("--average-decay", "0.98"))
    yield Case("pretrain", "30m", 4, 256, ("--optimizer", "sgd", "--learning-rate", "0.01"))
    for shape, batch, length in [("6m", 8, 256), ("30m", 4, 128), ("60m", 2, 256), ("124m", 1, 128)]:
        yield Case("full", shape, batch, length)
    for shape, batch, length in [
        ("6m", 8, 256), ("12m", 8, 128), ("30m", 4, 256), ("60m", 4, 128), ("124m", 2, 256),
        ("124m", 4, 128), ("350m", 1, 256), ("350m", 2, 64), ("1b", 1, 64),
    ]:  # fmt: skip
        yield Case("lora", shape, batch, length)
    for shape, batch, length in [("30m", 8, 256), ("124m", 2, 256), ("350m", 2, 256), ("1b", 1, 128)]:
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
        tokenizer = train_tokenizer("char", [text_of(folder).read_text()[:10_000]])
        shape = shape_of(case.shape, 1024).resolved(0)
        save_folder(Decoder(shape), path, tokenizer.save, {"eos_token_id": 0})
    return path


def run(case: Case, folder: Path) -> tuple[float, float, float, Path]:
    """(median seconds of an update, peak bytes, bytes before the model, the run's folder)."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    command = [sys.executable, "-m", "yunque.cli"]
    if case.method == "pretrain":
        shape = dataclasses.asdict(shape_of(case.shape, case.length))
        command += ["pretrain", str(text_of(folder)), "--tokenizer", "char"]
        for name, value in shape.items():
            if isinstance(value, bool):
                command += [f"--{name.replace('_', '-')}", str(value)]
            elif name not in ("preset", "dropout") and value != getattr(ModelConfig(), name):
                command += [f"--{name.replace('_', '-')}", str(value)]
        if "--dropout" not in case.flags:
            command += ["--dropout", "0"]
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
    return statistics.median(seconds), steps[-1]["memory_bytes"], start["base_memory"], out
