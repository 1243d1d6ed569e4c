"""SIGKILL at any moment, in a save above all: the same command goes on, and nothing is lost.

A zygote that has torch and a warm optimizer forks each attempt; a fork is killed after a random
time, or as soon as a staging folder of a checkpoint appears.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from small_runs import SMALL, TUNED, assert_same_run, without_pages, write_talks, write_text

from yunque.assemble.runs import finetune, pretrain, resume
from yunque.train import checkpoint

Many = Callable[[int, int], int]
Say = Callable[[str], None]
Begin = Callable[[Path], object]


@pytest.fixture(scope="module")
def begins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Begin]:
    """Name → a function that begins the run in a folder."""
    folder = tmp_path_factory.mktemp("sources")
    text, talks = str(write_text(folder)), str(write_talks(folder))
    base = folder / "base"
    with without_pages():
        pretrain(text, base, **{**SMALL, "context_length": 64, "steps": 2, "checkpoint_every": 0})
    often: dict[str, Any] = {"checkpoint_every": 1, "steps": 20}
    return {
        "pretraining": lambda run: pretrain(text, run, **{**SMALL, **often}),
        "accumulation": lambda run: pretrain(
            text, run, **{**SMALL, **often, "micro_batch_size": 1, "optimizer": "muon"}
        ),
        "lora": lambda run: finetune(base, talks, run, **{**TUNED, **often}),
    }


def go_on(begin: Begin, run: Path) -> None:
    """What a user does: the command once, and `resume` where a run was begun."""
    if (run / "recipe.toml").exists():
        resume(run)
    else:
        begin(run)


def attempt(begin: Begin, run: Path, chance: Random, in_save: bool, usual: float) -> str:
    """Fork, kill; returns "done", "killed" or "killed inside a save"."""
    child = os.fork()
    if child == 0:  # everything of this side ends in _exit: pytest must not go on twice
        code = 1
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # not to outlive a test that is stopped
        try:
            os.dup2(os.open(run.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            with without_pages():
                go_on(begin, run)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(code)
    began = time.monotonic()
    wait = chance.uniform(0.01, usual)
    folder = run / checkpoint.FOLDER
    skipped = chance.randrange(6)
    seen: set[str] = set()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, run.with_suffix(".out").read_text()[-3000:]
            return "done"
        if in_save:
            if stages(folder) - seen:
                seen |= stages(folder)
                skipped -= 1
            if skipped < 0:
                time.sleep(chance.uniform(0, 0.004))
                break
        elif time.monotonic() - began > wait:
            break
        time.sleep(0.0005)  # the child needs the processor more
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed inside a save" if stages(folder) else "killed"


def stages(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if name.startswith(".tmp-new-")}
    except FileNotFoundError:
        return set()


def test_f01_killed_at_any_moment_and_resumed(
    begins: dict[str, Begin], quick_folder: Path, chance: Random, many: Many, figures: Say
) -> None:
    wanted = many(12, 500)
    whole: dict[str, Path] = {}
    length: dict[str, float] = {}
    for name, begin in begins.items():
        whole[name] = quick_folder / f"{name}-whole"
        began = time.monotonic()
        with without_pages():
            begin(whole[name])
        length[name] = time.monotonic() - began
    kills = inside = losses = finished = progress = 0
    number = 0

    def enough() -> bool:
        """Kills, and inside a save so many of them: how many that are is the machine's speed."""
        return kills >= wanted and (inside >= 0.3 * wanted or kills >= 5 * wanted)

    while not enough():
        name = list(begins)[number % 3]
        run = quick_folder / f"{name}-{number}" / "run"
        run.parent.mkdir()
        number += 1
        newest = 0
        while True:
            usual = 6000.0 if enough() else length[name]  # the last run comes to its end
            outcome = attempt(
                begins[name], run, chance, not enough() and chance.random() < 0.6, usual
            )
            steps = checkpoint.all_steps(run)
            if outcome == "done":
                break
            kills += 1
            inside += outcome.endswith("save")
            assert (steps[-1] if steps else 0) >= newest, "a checkpoint was lost"
            progress += (steps[-1] if steps else 0) > newest
            newest = steps[-1] if steps else 0
        losses += assert_same_run(whole[name], run)
        finished += 1
    assert inside >= 0.3 * wanted, "too few kills inside a save: nothing was proved"
    assert progress >= 0.3 * wanted, "too few kills after progress: nothing was proved"
    figures(
        f"F1   {kills} SIGKILLs ({inside} inside a save, {progress} after new checkpoints) over "
        f"{finished} runs of {', '.join(begins)}: 0 lost, {losses} losses and all final bytes equal"
    )
