"""Fine-tuning runs with exams against the base, written as our own run log writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yunque.runlog import RunLog

TOTAL = 100
STEPS = 160
EVERY = 20


def paired_p(lost: int, gained: int) -> float:
    """The exact two-sided p-value of McNemar's test, by adding up the binomial tail."""
    n, k = lost + gained, min(lost, gained)
    tail = sum(math.factorial(n) / math.factorial(i) / math.factorial(n - i) for i in range(k + 1))
    return min(1.0, 2 * tail / 2**n)


def verdict(lost: int, gained: int) -> str:
    """The verdict at 5 %."""
    if paired_p(lost, gained) >= 0.05:
        return "no different"
    return "better" if gained > lost else "worse"


def write_tuned(
    folder: Path,
    changes: Sequence[tuple[int, int]],
    base: int = 40,
    val: Sequence[float] | None = None,
    general: Sequence[float] | None = None,
    watch: str = "loss",
    ledger: dict[str, Any] | None = None,
) -> Path:
    """Write RUN with an exam at step 0 and then one for each (lost, gained) of `changes`.

    Args:
        base: right answers of TOTAL at step 0.
        val: validation losses from step 0 on; None: falling from 2.0 by 0.1 an evaluation.
        general: losses on the general text from step 0 on; None: not measured.
    """
    (folder / "best").mkdir(parents=True)
    (folder / "recipe.toml").write_text(f'[train]\nwatch = "{watch}"\n')
    if ledger is not None:
        (folder / "ledger.json").write_text(json.dumps(ledger))
    losses = val or [2.0 - 0.1 * i for i in range(len(changes) + 1)]
    end = EVERY * len(changes)

    def common(step: int) -> dict[str, Any]:
        epoch = round(2 * step / end, 4)
        return {"step": step, "epoch": epoch, "tokens_seen": 512 * step, "seconds": 0.5 * step}

    with RunLog(folder / "log.jsonl") as log:
        log.write("start", **common(0), format="yunque-log-1", run="tuned", examples=53)
        for step in range(end + 1):
            train = 2.2 - 1.2 * step / end + 0.05 * math.sin(7 * step)
            if step:
                log.write("step", **common(step), train_loss=train, learning_rate=1e-4)
            if step % EVERY:
                continue
            at = step // EVERY
            row: dict[str, Any] = {"train_loss": train, "val_loss": losses[at]}
            if general is not None:
                row["general_loss"] = general[at]
            log.write("eval", **common(step), **row)
            lost, gained = changes[at - 1] if step else (0, 0)
            right = base + gained - lost
            row = {"right": right, "total": TOTAL, "kinds": {"addition": [right, TOTAL]}}
            if step:
                p_value = paired_p(lost, gained)
                row |= {"lost": lost, "gained": gained, "p_value": p_value}
                row["verdict"] = verdict(lost, gained)
            log.write("exam", **common(step), **row)
        log.write("stop", **common(end), reason="steps")
    return folder


LEDGER: dict[str, Any] = {
    "documents": {"read": 60, "train": 53, "val": 5, "duplicate": 2, "blank": 0, "bad": 0},
    "tokens": {"read": 15105, "trained": 3361, "masked": 10292, "first": 113, "held_out": 1339},
    "epoch": {"read": 14080, "trained": 3361, "masked": 10292, "padding": 427, "error": 0},
    "sources": [
        {
            "name": "maths/<b>tutor</b>.jsonl",
            "encoding": "utf-8",
            "documents": 60,
            "tokens": 15105,
            "with_loss": 3361,
        }
    ],
    "examples": [
        {
            "source": 0,
            "line": 7,
            "split": "train",
            "tokens": [["<|user|>", 0], ["4+4", 0], ["?", 0], ["<|assistant|>", 0], [" 8", 1]],
            "left_out": 12345,
        },
        {"source": 0, "line": 9, "split": "val", "tokens": [["Hola", 0], ["</script>", 1]]}
        | {"left_out": 0},
    ],
}
"""A ledger whose equations close."""
