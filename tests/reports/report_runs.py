"""Synthetic runs with known truth, written as our own run log writes them."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from yunque.runlog import RunLog


def loss_at(step: int, steps: int) -> float:
    """Training loss: 4.0 at the start, falling towards 0.8."""
    return 0.8 + 3.2 * math.exp(-6 * step / steps)


def write_run(
    folder: Path,
    steps: int = 400,
    every: int = 20,
    best: int | None = None,
    noise: float = 0.05,
    stop: str | None = "steps",
    val: bool = True,
    exam: bool = False,
    samples: tuple[str, ...] = (),
    passes: float = 2.0,
    spike: int | None = None,
    nan: int | None = None,
    kept: bool = True,
    **start: Any,
) -> Path:
    """Write RUN/log.jsonl; the validation loss is lowest at `best`, then rises 0.002 a step.

    The validation loss has a fifth of the noise of a training batch, and no noise at `best`.
    """
    random_ = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    if kept:
        (folder / "best").mkdir(exist_ok=True)

    def common(step: int) -> dict[str, Any]:
        epoch = round(passes * step / steps, 4)
        return {"step": step, "epoch": epoch, "tokens_seen": 512 * step, "seconds": 0.5 * step}

    with RunLog(folder / "log.jsonl") as log:
        log.write(
            "start",
            **common(0),
            format="yunque-log-1",
            run="synthetic",
            **{"parameters": 12345, **start},
        )
        for step in range(steps + 1):
            if step:
                loss = loss_at(step - 1, steps) + random_.gauss(0, noise)
                loss = loss + 5.0 if step == spike else math.nan if step == nan else loss
                log.write(
                    "step",
                    **common(step),
                    train_loss=loss,
                    learning_rate=1e-3 * (1 - step / (steps + 1)),
                    grad_norm=1.0 + 0.1 * random_.random(),
                    tokens_per_second=1000.0 + random_.random(),
                    memory_bytes=2_000_000_000 + step,
                )
            if step % every == 0:
                loss = loss_at(step, steps)
                rise = 0.002 * max(0, step - best) if best is not None else 0.0
                low = loss_at(min(step, best if best is not None else step), steps)
                held = low + 0.3 + rise + (0 if step == best else abs(random_.gauss(0, noise / 5)))
                log.write("eval", **common(step), train_loss=loss, val_loss=held if val else None)
                for text in samples:
                    log.write("sample", **common(step), prompt="", text=text)
                if exam:
                    right = round(100 * step / steps)
                    kinds = {"addition": [right, 100], "<b>bold</b>": [right, 100]}
                    log.write("exam", **common(step), right=2 * right, total=200, kinds=kinds)
        if stop is not None:
            log.write("stop", **common(steps), reason=stop)
    return folder
