"""The story of 53 examples: its pieces, and at a small size all of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def story() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "story.py"
    spec = importlib.util.spec_from_file_location("bench_story", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_signs_and_words(story: ModuleType, tmp_path: Path) -> None:
    signs = story.sums("train", 60, 1, story.in_signs)
    words = story.sums("train", 60, 1, lambda problem: not story.in_signs(problem))
    assert len(signs) == len(words) == 60
    assert {problem.kind for problem in signs} == {problem.kind for problem in words}
    for problem in words:
        # The same sums, and no sign between two numbers tells which.
        assert not any(f" {sign} " in problem.question for sign in "+-×x÷/"), problem.question
    assert story.sums("train", 60, 1, story.in_signs) == signs
    exam = story.exam(tmp_path / "exam.jsonl", [signs[0], words[0]])
    rows = [json.loads(line) for line in exam.read_text(encoding="utf-8").splitlines()]
    assert [row["kind"] for row in rows] == ["signs", "words"]
    assert rows[1]["answer"] == str(words[0].answer)


def test_no_example_answers_the_exam(story: ModuleType) -> None:
    asked = {problem.question for problem in story.sums("exam", 90, 1, lambda problem: True)}
    learnt = story.sums("train", 3200, 2, lambda problem: not story.in_signs(problem))
    assert asked.isdisjoint(problem.question for problem in learnt)


def test_a_line_of_the_table(story: ModuleType) -> None:
    told = story.Told(
        name="(a)",
        examples=53,
        losses=(5.25, 0.0016),
        validation=None,
        base=(57, 90),
        end=(30, 90),
        kept=(57, 90),
        verdict="worse",
        p_value=0.0004,
        reason="early_stopping",
        updates=60,
        planned=400,
        seconds=61.2,
        warned=("cli.many_passes",),
        worse_at=(20, 25.4),
    )
    assert told.saved == pytest.approx(0.85)
    line = story.line(told)
    assert line.count("|") == story.HEADING.count("|") == story.RULE.count("|")
    for part in ("57/90 (53–73 %)", "5.250 → 0.0016", "update 20, 25 s", "85 %", "many_passes"):
        assert part in line


def test_a_story_that_comes_out_otherwise_is_a_fault(story: ModuleType) -> None:
    def one(name: str, verdict: str, reason: str = "steps", kept: int = 57) -> Any:
        marks = {"base": (57, 90), "end": (40, 90), "kept": (kept, 90)}
        return story.Told(
            name=name, examples=53, losses=(5.0, 0.1), validation=None, **marks, verdict=verdict,
            p_value=0.01, reason=reason, updates=9, planned=90, seconds=1.0, warned=(),
            worse_at=None,
        )  # fmt: skip

    stopped = one("(a')", "worse", "early_stopping")
    right = [one("(a)", "worse"), stopped, one("(b)", "no different"), one("(c)", "better")]
    assert story.faults(right) == []
    wrong = [
        one("(a)", "no different"),
        one("(a')", "worse", "early_stopping", kept=50),
        one("(b)", "worse"),
        one("(c)", "no different"),
    ]
    found = story.faults(wrong)
    assert [fault.split(":")[0] for fault in found] == ["(a)", "(a')", "(c)"]
    assert "called no different, must be better" in found[2]
    assert len(story.faults([right[0], one("(a')", "worse"), *right[2:]])) == 1


@pytest.mark.slow
def test_the_whole_story_small(story: ModuleType, tmp_path: Path) -> None:
    """(a) is called worse than its base, and watching the exam stops it before its end."""
    size = story.Size(
        conversations=8000, base_steps=400, signs=48, words=12, passes=80.0, enough=60
    )
    as_told, watched, ours, more = story.story(tmp_path, size, 1, lambda told: None)
    assert as_told.base == watched.base == ours.base == more.base
    assert as_told.base[0] >= 15
    assert (as_told.verdict, as_told.reason) == ("worse", "steps")
    assert as_told.losses[1] < 0.1 < as_told.losses[0]
    assert {"cli.many_passes", "cli.high_rate", "cli.no_val"} <= set(as_told.warned)
    assert as_told.worse_at is not None
    assert as_told.worse_at[0] < as_told.updates == as_told.planned
    assert watched.reason == "early_stopping"
    assert watched.updates < watched.planned
    assert watched.kept[0] >= watched.base[0]  # best/ is never worse than the base
    assert not any(name.startswith("cli.") for name in ours.warned)
    assert ours.verdict != "worse"
