"""The arithmetic of memory against what a process really takes, on the CPU."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from yunque.config import AdaptConfig, ModelConfig, OptimConfig
from yunque.memory import Work, estimate
from yunque.model.presets import PRESETS

WITHIN = 0.20
"""Of the measured peak. The heap of a process and the kernels' buffers are part of it."""

MEASURE = """
import json, re, sys
import torch
from yunque.adapt.lora import apply_method
from yunque.batch import Batch
from yunque.config import AdaptConfig, ModelConfig, OptimConfig
from yunque.model.decoder import Decoder
from yunque.runtime import Runtime
from yunque.train.optim import Optimizers
from yunque.train.step import update
from yunque.weights.families import module_names

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

asked = json.loads(sys.argv[1])
torch.set_num_threads(1)

def trained(shape, adapt, work):
    model = Decoder(shape, seed=0)
    apply_method(model, adapt, 1, module_names(shape))
    model.checkpointing = work["checkpointing"]
    optimizers = Optimizers(model.train(), OptimConfig())
    where, rows = Runtime(torch.device("cpu"), "fp32"), work["rows"]
    ids = torch.randint(shape.vocab_size, (rows, work["length"]))
    for step in range(2):
        update(step, lambda *_: Batch(ids, ids), model, model.head, optimizers,
               torch.amp.GradScaler("cpu", enabled=False), where, batch_size=rows,
               micro_batch_size=rows, clip_norm=1.0, seed=1)
    return model, optimizers

shape, adapt = ModelConfig(**asked["shape"]), AdaptConfig(**asked["adapt"])
small = dict(num_layers=1, num_heads=1, num_kv_heads=1, hidden_size=64, intermediate_size=64)
trained(ModelConfig(**{**asked["shape"], **small, "head_dim": 0, "vocab_size": 64}), adapt,
        {**asked["work"], "rows": 1, "length": 16})  # what is imported and allocated once
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
kept = trained(shape, adapt, asked["work"])
print(memory("VmHWM") - before)
"""

LLAMA = dataclasses.replace(
    PRESETS["llama-135m"], num_layers=8, hidden_size=512, num_heads=8, num_kv_heads=4,
    intermediate_size=1408, vocab_size=8192, context_length=512,
)  # fmt: skip
GPT2 = dataclasses.replace(
    PRESETS["gpt2-124m"], num_layers=6, hidden_size=512, num_heads=8, vocab_size=16384,
    dropout=0.0,
)  # fmt: skip
PHI = dataclasses.replace(
    PRESETS["phi-1.4b"], num_layers=6, hidden_size=640, num_heads=10, vocab_size=8192,
    intermediate_size=2560, context_length=512, dropout=0.0,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is measured through Linux's /proc"
)
@pytest.mark.parametrize(
    ("name", "shape", "method", "rows", "length", "checkpointing"),
    [
        ("llama full", LLAMA, "full", 8, 256, False),
        ("llama lora", LLAMA, "lora", 8, 256, False),
        ("llama lora checkpointed", LLAMA, "lora", 16, 256, True),
        ("gpt2 full checkpointed", GPT2, "full", 8, 256, True),
        ("gpt2 lora", GPT2, "lora", 8, 256, False),
        ("phi lora", PHI, "lora", 8, 256, False),
    ],
)
def test_the_estimate_against_the_measured_peak(
    name: str, shape: ModelConfig, method: str, rows: int, length: int, checkpointing: bool
) -> None:
    shape = shape.resolved(0)
    adapt = AdaptConfig(method=method)  # type: ignore[arg-type]
    work = Work(adapt.method, 4, 4, rows, length, checkpointing)
    asked = {
        "shape": dataclasses.asdict(shape),
        "adapt": {"method": method},
        "work": dataclasses.asdict(work),
    }
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(asked)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = int(done.stdout)
    parts = estimate(shape, work, adapt, OptimConfig())
    error = parts.total / measured - 1
    shown = {part: f"{size / 1e6:.0f}" for part, size in parts.to_json().items()}
    print(f"{name}: measured {measured / 1e6:.0f} MB, estimated {shown}, {error:+.1%}")
    assert abs(error) < WITHIN
