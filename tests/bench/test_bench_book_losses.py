"""The losses of the book's job on both paths, at a small size: resumable, and near each other."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.slow
def test_both_paths_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    book_losses, measure = (importlib.import_module(n) for n in ("book_losses", "measure"))
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    chance = random.Random(1)
    words = [f"{a}{b}" for a in ("yun", "mar", "hie", "for") for b in ("que", "tillo", "rro", "ja")]
    text = tmp_path / "text.txt"
    text.write_text(" ".join(chance.choice(words) for _ in range(6000)), encoding="utf-8")
    work = book_losses.Work(text, 90, layers=2, width=96, vocabulary=512, context=32)
    book_losses.compare(work, 3, "2:fast")
    assert [(row["seed"], row["path"]) for row in book_losses.done(work)] == [(2, "fast")]
    book_losses.compare(work, 3, "")
    rows = book_losses.done(work)
    assert len(rows) == 6, "what was there is not done again"
    table = (tmp_path / "results" / "book-losses.md").read_text(encoding="utf-8")
    assert "held out: fast - usual" in table
    assert (tmp_path / "results" / "book-losses.png").stat().st_size > 10_000
    ends = {(row["seed"], row["path"]): sum(row["losses"][-10:]) / 10 for row in rows}
    usual = [ends[seed, "usual"] for seed in (1, 2, 3)]
    assert max(usual) < rows[0]["losses"][0] - 1.0, "it learns"
    for seed in (1, 2, 3):
        assert 0 < abs(ends[seed, "fast"] - ends[seed, "usual"]) < max(usual) - min(usual)
