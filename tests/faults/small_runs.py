"""Tiny runs for the faults: pretraining, accumulation, LoRA; what must be equal between two."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from yunque.assemble import runs
from yunque.runlog import read
from yunque.screen import SilentScreen

LINES = [
    "el yunque suena y el martillo canta",
    "quien canta sus males espanta",
    "a hierro frío no se le saca forma",
    "hierro que no se usa, el orín lo toma",
]
SMALL: dict[str, Any] = {
    "tokenizer": "char",
    "context_length": 16,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_size": 16,
    "dropout": 0.2,
    "batch_size": 4,
    "steps": 12,
    "eval_every": 4,
    "early_stopping": False,
    "checkpoint_every": 2,
    "checkpoint_minutes": 0.0,
    "sample_tokens": 0,
    "warmup_steps": 3,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
}
TUNED: dict[str, Any] = {
    "steps": 12,
    "epochs": 0.0,
    "eval_every": 4,
    "batch_size": 4,
    "early_stopping": False,
    "checkpoint_every": 2,
    "checkpoint_minutes": 0.0,
    "learning_rate": 1e-2,
    "rank": 2,
    "sample_tokens": 0,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
}


def write_text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("\n".join(LINES * 12), encoding="utf-8")
    return path


def write_talks(folder: Path) -> Path:
    path = folder / "talks.jsonl"
    talks = [
        [
            {"role": "user", "content": f"¿{n} + 1?"},
            {"role": "assistant", "content": f"Son {n + 1}."},
        ]
        for n in range(40)
    ]
    lines = [json.dumps({"messages": talk}, ensure_ascii=False) for talk in talks]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@contextmanager
def without_pages() -> Iterator[None]:
    """Pictures of a report take longer than all the rest of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write", lambda *_: [])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


TIMED = ("seconds", "tokens_per_second", "memory_bytes", "run", "base_memory", "forecast")


def rows(run: Path, *events: str) -> list[dict[str, Any]]:
    """Rows of some events without what the clock and the memory say."""
    return [
        {key: value for key, value in row.values.items() if key not in TIMED}
        for row in read(run / "log.jsonl")
        if row.event in events
    ]


def kept_bytes(run: Path) -> dict[str, bytes]:
    """Name → bytes of all that a finished run must have left alike, however often it was stopped.

    Left out: the report, the log and the environment, which tell of time, and a checkpoint's
    state and manifest, which hold the seconds; their other values are compared as values.
    """
    told = re.compile(r"report\.|log\.jsonl|environment\.json|\.lock|state\.json|manifest\.json")
    last = sorted((run / "checkpoints").iterdir())[-1].name
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir() or told.match(path.name) or ".tmp-" in name:
            continue
        if name.startswith("checkpoints/") and last not in name:
            continue  # a stop leaves one at another step
        found[name] = path.read_bytes()
        if path.name == "data.json":
            values = json.loads(found[name])
            for timed in ("seconds", "megabytes_per_second"):
                values["facts"].pop(timed, None)
            found[name] = json.dumps(values).encode()
    state = json.loads((run / "checkpoints" / last / "state.json").read_text(encoding="utf-8"))
    state["state"].pop("seconds")
    state.pop("log_bytes")
    found["state"] = json.dumps(state, sort_keys=True).encode()
    return found


def assert_same_run(one: Path, other: Path) -> int:
    """Losses, learning rates and final bytes are equal; returns how many losses were compared."""
    for event in ("start", "step", "eval", "sample", "exam", "stop"):
        ours, theirs = rows(one, event), rows(other, event)
        assert ours == theirs, event
    ours, theirs = kept_bytes(one), kept_bytes(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name] == theirs[name], name
    return len(rows(one, "step"))


class StopAt(SilentScreen):
    """Asks for a stop after so many updates, as Ctrl-C would."""

    def __init__(self, at: int, patch: pytest.MonkeyPatch):
        self.at, self.made = at, runs.Interrupt()
        patch.setattr(runs, "Interrupt", lambda: self.made)

    def step(self, row: Any) -> None:
        if row["step"] == self.at:
            self.made.signal = 2
