"""Stopped at any step and resumed, whatever the recipe: equal in everything that is kept."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from small_runs import (
    SMALL,
    TUNED,
    StopAt,
    assert_same_run,
    rows,
    without_pages,
    write_talks,
    write_text,
)

from yunque.assemble import exams
from yunque.assemble.runs import finetune, pretrain, resume
from yunque.train import step as steps

Many = Callable[[int, int], int]
Say = Callable[[str], None]
STEPS = 20
TWENTY: dict[str, Any] = {"steps": STEPS, "checkpoint_every": 7, "eval_every": 6}
RECIPES: dict[str, dict[str, Any]] = {
    "dropout": {"attention_dropout": 0.1},
    "accumulation": {"micro_batch_size": 1},
    "muon": {"optimizer": "muon"},
    "8-bit optimizer": {"optimizer": "adamw8bit"},
    "evaluation at every step": {"eval_every": 1, "sample_tokens": 4},
    "over epochs": {"batch_size": 16, "steps": 0, "epochs": 3.3},
    "early stopping": {
        "early_stopping": True,
        "patience": 7,
        "min_change": 0.9,
        "eval_every": 3,
        "steps": 30,
    },
    "average of weights": {"average_decay": 0.9},
    "packing": {"tuned": True, "method": "full"},
    "lora": {"tuned": True, "lora_dropout": 0.2},
    "qlora, 8 bits": {"tuned": True, "method": "qlora", "quantize_bits": 8},
    "exam": {"tuned": True, "exam": "exam.jsonl", "watch": "exam"},
}
EVENTS = ("start", "step", "eval", "sample", "exam", "stop")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    text = write_text(folder)
    write_talks(folder)
    exam = '{"question": "¿1 + 1?", "answer": "2"}\n{"question": "¿2 + 3?", "answer": "5"}\n'
    (folder / "exam.jsonl").write_text(exam, encoding="utf-8")
    base = {**SMALL, "context_length": 64, "steps": 2, "checkpoint_every": 0}
    with without_pages():
        pretrain(str(text), folder / "base", **base)
    return folder


def begin(sources: Path, run: Path, recipe: dict[str, Any], screen: Any = None) -> None:
    own = {key: value for key, value in recipe.items() if key != "tuned"}
    if "exam" in own:
        own["exam"] = str(sources / own["exam"])
    if recipe.get("tuned"):
        talks, base = str(sources / "talks.jsonl"), sources / "base"
        finetune(base, talks, run, screen=screen, **{**TUNED, **TWENTY, **own})
    else:
        text = str(sources / "text.txt")
        pretrain(text, run, screen=screen, **{**SMALL, **TWENTY, **own})


@pytest.mark.parametrize("name", RECIPES)
def test_f02_stopped_at_a_step_and_resumed(
    name: str, sources: Path, tmp_path: Path, chance: Random, many: Many, figures: Say
) -> None:
    if "8" in name and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("needs bitsandbytes: pip install 'yunque[quant]'")
    recipe = RECIPES[name]
    ids: list[str] = []
    original = steps.count_tokens

    def noting(targets: Any) -> Any:
        ids.append(hashlib.sha256(targets.numpy().tobytes()).hexdigest())
        return original(targets)

    with without_pages(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "count_tokens", noting)
        patch.setattr(os, "fsync", lambda handle: None)
        # A model that knows nothing writes to the limit, 512 tokens.
        patch.setattr(exams, "sit_exam", functools.partial(exams.sit_exam, max_new_tokens=8))
        begin(sources, tmp_path / "whole", recipe)
        wanted, last = list(ids), len(rows(tmp_path / "whole", "step"))
        assert len(set(wanted)) > 1
        assert last >= STEPS
        places = range(1, last + 1)
        if last > (few := many(1, STEPS)):
            places = sorted(chance.sample(places, few))
        losses = 0
        for at in places:
            ids.clear()
            run = tmp_path / f"stopped-{at}"
            with pytest.MonkeyPatch.context() as inner:
                begin(sources, run, recipe, StopAt(at, inner))
            assert len(rows(run, "step")) == at
            resume(run)
            assert ids == wanted
            losses += assert_same_run(tmp_path / "whole", run)
    figures(
        f"F2   {name}: stopped at {len(places)} of {last} steps: {losses} losses and learning "
        f"rates, {len(wanted) * len(places)} batches and all files equal"
    )
