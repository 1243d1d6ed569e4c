"""Resumed with something changed: what goes on, what is said of it, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from small_runs import SMALL, assert_same_run, rows, without_pages, write_text

from yunque.assemble import runs
from yunque.assemble.resumption import (
    RULE_OF,
    RULES,
    Change,
    flat,
    level,
    recipe_changes,
    refuse,
    settings,
)
from yunque.assemble.runs import pretrain, resume
from yunque.config import Recipe, flat_names, to_tree
from yunque.errors import InputError
from yunque.screen import SilentScreen

Say = Callable[[str], None]
RUN: dict[str, Any] = {**SMALL, "steps": 8, "checkpoint_every": 3}
OTHER: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: not value,
    int: lambda value: value + 1,
    float: lambda value: value / 2 + 0.125,
    str: lambda value: value + "x",
    tuple: lambda value: (*value, "x"),
    list: lambda value: [*value, "x"],
}


def test_f30_every_key_of_a_recipe_has_one_rule(figures: Say) -> None:
    keys = [*flat_names(), "base", "exam", "sources"]
    assert sorted(name for names in RULES.values() for name in names) == sorted(keys)
    before = to_tree(Recipe())
    promised = {"exact": 0, "reproducible": 0, "continued": 0, "refused": 0}
    for name, value in flat(Recipe()).items():
        tree = json.loads(json.dumps(before))
        home = tree[flat_names()[name]] if name in flat_names() else tree
        if isinstance(value, str) and name in flat_names():
            kinds = dataclasses.fields(type(getattr(Recipe(), flat_names()[name])))
            home[name] = another_choice(next(f for f in kinds if f.name == name), value)
        else:
            home[name] = OTHER[type(value)](value)
        (change,) = recipe_changes(tree, Recipe())
        assert (change.name, change.now, change.rule) == (name, value, RULE_OF[name])
        refused = {
            way: raised([change], *given)
            for way, given in {
                "edited": ((), False),
                "set": ((name,), False),
                "forced": ((), True),
            }.items()
        }
        wanted = {
            "exact": set(),
            "reproducible": set(),
            "continued": {"edited"},
            "forced": {"edited", "set"},
            "fixed": {"edited", "set", "forced"},
        }[change.rule]
        assert {way for way, no in refused.items() if no} == wanted, name
        promised["refused" if change.rule == "fixed" else level([change], [])] += 1
    figures(f"F30  {len(keys)} keys of a recipe changed: {promised}")


def another_choice(field: Any, value: str) -> str:
    from typing import get_args

    from yunque import config

    choices = get_args(getattr(config, str(field.type), str))
    return next((one for one in choices if one != value), value + "x")


def raised(changes: list[Change], chosen: tuple[str, ...], force: bool) -> bool:
    """Whether such changes are refused; a refusal must name the first."""
    try:
        refuse(changes, chosen, force, "run")
    except InputError as error:
        return changes[0].name in str(error)
    return False


def test_f30_the_level_is_that_of_the_worst() -> None:
    exact, free = Change("memory", "", "1GB", "exact"), Change("threads", 1, 2, "reproducible")
    other = Change("clip_norm", 1.0, 2.0, "continued")
    assert level([], []) == "exact" == level([exact], [])
    assert level([], ["torch: 2.13 → 2.14"]) == "reproducible" == level([exact, free], [])
    assert level([exact, other, free], []) == "continued"


def test_f30_settings_are_toml_or_text() -> None:
    given = ["steps=40", "learning_rate = 1e-4", "early_stopping=false", "lang=es", "exam=a.jsonl"]
    assert settings(given) == {
        "steps": 40,
        "learning_rate": 1e-4,
        "early_stopping": False,
        "lang": "es",
        "exam": "a.jsonl",
    }
    with pytest.raises(InputError, match="--set 'steps': expected key=value"):
        settings(["steps"])


class Told(SilentScreen):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, text: str) -> None:
        self.lines.append(text)


class StopAt(Told):
    def __init__(self, at: int, patch: pytest.MonkeyPatch):
        super().__init__()
        self.at, self.made = at, runs.Interrupt()
        patch.setattr(runs, "Interrupt", lambda: self.made)

    def step(self, row: Any) -> None:
        if row["step"] == self.at:
            self.made.signal = 2


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    text = write_text(folder)
    with without_pages(), pytest.MonkeyPatch.context() as patch:
        pretrain(str(text), folder / "run", screen=StopAt(5, patch), **RUN)
    with without_pages():
        pretrain(str(text), folder / "whole", **RUN)
    return folder


def go_on(stopped: Path, run: Path, **named: Any) -> str:
    """Resume a copy; returns the sentence about what is promised."""
    if not run.exists():
        shutil.copytree(stopped / "run", run)
    screen = Told()
    with without_pages():
        resume(run, screen=screen, **named)
    (line,) = [line for line in screen.lines if line.startswith(("Resumed", "Continued"))]
    return line


def edit(run: Path, old: str, new: str) -> None:
    path = run / "recipe.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_f30_nothing_changed_or_nothing_that_counts(
    stopped: Path, tmp_path: Path, chance: Random
) -> None:
    line = go_on(stopped, tmp_path / "run")
    assert line.startswith("Resumed exactly")
    assert assert_same_run(stopped / "whole", tmp_path / "run") == 8
    shutil.copytree(stopped / "run", tmp_path / "edited")
    edit(tmp_path / "edited", "checkpoint_every = 3", "checkpoint_every = 2")
    assert go_on(stopped, tmp_path / "edited").startswith("Resumed exactly")
    assert rows(tmp_path / "edited", "step", "eval") == rows(stopped / "whole", "step", "eval")


def test_f30_not_exact_is_said(stopped: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped / "run", run)
    edit(run, "micro_batch_size = 0", "micro_batch_size = 2")
    path = run / "environment.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(facts), encoding="utf-8")
    line = go_on(stopped, run)
    assert line.startswith("Resumed reproducibly")
    assert "micro_batch_size: 0 → 2" in line
    assert f"torch: 1.0 → {torch.__version__}" in line
    (row,) = [row for row in rows(run, "warning") if row["id"] == "changed"]
    assert row["level"] == "reproducible"
    assert row["step"] == 5
    ours, theirs = rows(run, "step"), rows(stopped / "whole", "step")
    assert ours[:5] == theirs[:5]
    assert [row["learning_rate"] for row in ours] == [row["learning_rate"] for row in theirs]
    sessions = json.loads(path.read_text(encoding="utf-8"))["resumed"]
    assert sessions[-1]["level"] == "reproducible"


def test_f30_another_experiment_only_when_asked_for(stopped: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped / "run", run)
    edit(run, "steps = 8", "steps = 10")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"steps: 8 → 10: .* --set steps=10"):
        go_on(stopped, run)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before
    line = go_on(stopped, run, settings={"steps": 10})
    assert line.startswith("Continued")
    assert "steps: 8 → 10" in line
    assert len(rows(run, "step")) == 10
    # A finished run can be made longer; from its last checkpoint the recipe is as it was left.
    assert "steps: 10 → 12" in go_on(stopped, run, settings={"steps": 12})
    assert len(rows(run, "step")) == 12
    assert "steps = 12" in (run / "recipe.toml").read_text(encoding="utf-8")


def test_f30_what_the_run_rests_on(stopped: Path, tmp_path: Path) -> None:
    for number, (old, new, wanted) in enumerate(
        [
            ("seed = 1", "seed = 2", "give --force"),
            ("hidden_size = 16", "hidden_size = 32", "have the shape that it gave"),
            ("val = 0.1", "val = 0.2", "prepared already"),
        ]
    ):
        run = tmp_path / str(number)
        shutil.copytree(stopped / "run", run)
        edit(run, old, new)
        with pytest.raises(InputError, match=wanted):
            go_on(stopped, run)
        if "force" not in wanted:
            with pytest.raises(InputError, match=wanted):
                go_on(stopped, run, force=True)
        else:
            assert go_on(stopped, run, force=True).startswith("Continued")
    run = tmp_path / "data"
    shutil.copytree(stopped / "run", run)
    path = run / "data" / "data.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["facts"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(InputError, match=r"data: '.{12}' → '0{12}': .* --force"):
        go_on(stopped, run)
    assert "data: " in go_on(stopped, run, force=True)
