"""Runs side by side: what differed, what it changed, and what chance explains."""

from __future__ import annotations

import json
import math
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_report_words import english, spanish

from yunque.cli import main
from yunque.errors import InputError
from yunque.reports.compare import Comparison, compare
from yunque.reports.compare_page import html, markdown, terminal, to_json, write
from yunque.reports.report import report
from yunque.runlog import RunLog

RECIPE = """sources = ["a.txt"]
[data]
val = 0.1
[optim]
learning_rate = {rate}
[train]
steps = 200
[machine]
seed = {seed}
"""
HOSTILE = '<script>alert(1)</script>\u202e|=HYPERLINK("x")'


def write_run(
    folder: Path,
    shift: float = 0.0,
    seed: int = 1,
    rate: float = 0.001,
    right: str = "",
    speed: float = 1000.0,
    recipe: str | None = None,
    val: bool = True,
) -> Path:
    """A run whose validation loss lies `shift` above 1 + 2·exp(-step/40), with noise of 0.004.

    `right`: one character a question, 1 for a right answer.
    """
    random_ = random.Random(f"{seed} {shift}")
    folder.mkdir(parents=True)
    text = RECIPE.format(rate=rate, seed=seed) if recipe is None else recipe
    (folder / "recipe.toml").write_text(text)

    def common(step: int) -> dict[str, Any]:
        return {"step": step, "epoch": step / 100, "tokens_seen": 8 * step, "seconds": 0.5 * step}

    with RunLog(folder / "log.jsonl") as log:
        log.write("start", **common(0), format="yunque-log-1", run=folder.name)
        for step in range(201):
            level = 1 + 2 * math.exp(-step / 40)
            log.write(
                "step",
                **common(step),
                train_loss=level + random_.gauss(0, 0.02),
                learning_rate=rate,
                tokens_per_second=speed + random_.gauss(0, 10),
            )
            if step % 10 == 0:
                held = level + shift + random_.gauss(0, 0.004) if val else None
                log.write("eval", **common(step), train_loss=level, val_loss=held)
        if right:
            log.write("exam", **common(200), right=right.count("1"), total=len(right), kinds={})
        log.write("stop", **common(200), reason="steps")
    if right:
        (folder / "exam").mkdir()
        rows = [
            {"question": f"{i} + 1?", "key": str(i + 1), "check": "number", "right": mark == "1"}
            for i, mark in enumerate(right)
        ]
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "exam" / "step-00000200.jsonl").write_text(lines + "\n")
    return folder


def side_by_side(*folders: Path) -> Comparison:
    return compare([report(folder) for folder in folders])


def verdicts(made: Comparison) -> dict[str, str]:
    return {one.id: one.verdict for one in made.claims}


def test_what_differs_is_named_and_what_is_equal_is_left_out(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", rate=0.003)
    made = side_by_side(a, b)
    assert made.differences == {"optim.learning_rate": [0.001, 0.003]}
    assert made.from_recipes
    assert "optim.learning_rate" in terminal(made, "en")
    same = side_by_side(a, write_run(tmp_path / "c"))
    assert same.differences == {}
    assert "equal in every key" in terminal(same, "en")


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.1, "higher"), (-0.1, "lower"), (0.004, "within_noise")]
)
def test_a_difference_counts_only_beyond_the_noise(
    tmp_path: Path, shift: float, expected: str
) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", shift=shift, rate=0.003)
    made = side_by_side(a, b)
    (one,) = [c for c in made.claims if c.id == "val"]
    assert one.verdict == expected
    # Four standard deviations of the difference of two points, each with a noise of 0.004.
    assert one.numbers["limit"] == pytest.approx(4 * math.hypot(0.004, 0.004), rel=0.6)
    assert one.numbers["value"] == one.evidence[0]["value"]
    assert one.numbers["base"] == one.evidence[1]["value"]
    assert [e["run"] for e in one.evidence] == ["b", "a"]


def test_chance_calls_few_equal_runs_different(tmp_path: Path) -> None:
    """45 comparisons of runs that differ in nothing but the draw of their noise."""
    runs = [report(write_run(tmp_path / str(i), shift=1e-9 * i)) for i in range(10)]
    found = [verdicts(compare([a, b]))["val"] for i, a in enumerate(runs) for b in runs[i + 1 :]]
    assert found == ["within_noise"] * 45


def test_other_data_is_not_compared(tmp_path: Path) -> None:
    other = RECIPE.format(rate=0.001, seed=1).replace("a.txt", "b.txt")
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", shift=-0.5, recipe=other)
    made = side_by_side(a, b)
    assert verdicts(made)["val"] == "not_comparable"
    assert made.summary["en"].startswith("Which of these runs made the better model cannot be told")


def test_prepared_data_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", shift=-0.5)
    for folder, fingerprint in ((a, "one"), (b, "two")):
        (folder / "data").mkdir()
        (folder / "data" / "data.json").write_text(json.dumps({"fingerprint": fingerprint}))
    assert verdicts(side_by_side(a, b))["val"] == "not_comparable"
    (b / "data" / "data.json").write_text('{"fingerprint": "one"}')
    assert verdicts(side_by_side(a, b))["val"] == "lower"


def test_logs_without_a_recipe_say_what_is_not_known(tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 0.3)):
        random_ = random.Random(name)
        rows = ["step,train_loss,val_loss,learning_rate"]
        for step in range(0, 200, 5):
            loss = 1 + 2 * math.exp(-step / 40) + random_.gauss(0, 0.01)
            rows.append(f"{step},{loss},{loss + shift},{0.001 + shift}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    made = side_by_side(tmp_path / "a.csv", tmp_path / "b.csv")
    assert made.names == ("a", "b")
    assert not made.from_recipes
    assert made.differences == {"learning_rate (peak)": [0.001, 0.3]}
    (one,) = [c for c in made.claims if c.id == "val"]
    assert one.verdict == "higher"
    assert "only if both were measured on the same text" in one.text["en"]
    assert {u["id"] for u in made.unknown} == {"seed", "exam", "settings"}


@pytest.mark.parametrize(
    ("before", "after", "expected", "p_value"),
    [
        ("0" * 10 + "1" * 10, "1" * 20, "better", 2 / 2**10),
        ("1" * 20, "0" * 10 + "1" * 10, "worse", 2 / 2**10),
        ("0000011111", "1111100000", "within_noise", 1.0),
    ],
)
def test_exams_are_paired_question_by_question(
    tmp_path: Path, before: str, after: str, expected: str, p_value: float
) -> None:
    made = side_by_side(
        write_run(tmp_path / "a", right=before), write_run(tmp_path / "b", right=after, rate=0.1)
    )
    (one,) = [c for c in made.claims if c.id == "exam"]
    assert one.verdict == expected
    assert one.numbers["p_value"] == p_value
    pairs = list(zip(before, after, strict=True))
    assert one.numbers["gained"] == pairs.count(("0", "1"))
    assert one.numbers["lost"] == pairs.count(("1", "0"))


def test_other_questions_are_not_paired(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", right="0" * 20)
    b = write_run(tmp_path / "b", right="1" * 19)
    assert verdicts(side_by_side(a, b))["exam"] == "not_comparable"
    (b / "exam" / "step-00000200.jsonl").write_text("{broken\n")
    assert verdicts(side_by_side(a, b))["exam"] == "not_comparable"


def test_the_level_is_divided_by_the_number_of_comparisons(tmp_path: Path) -> None:
    """6 gained of 6 changes: p = 0.031, which counts alone but not as one of three."""
    folders = [write_run(tmp_path / "a", right="0" * 20)]
    folders += [write_run(tmp_path / str(i), right="1" * 6 + "0" * 14) for i in range(3)]
    assert verdicts(side_by_side(*folders[:2]))["exam"] == "better"
    made = side_by_side(*folders)
    assert {c.verdict for c in made.claims if c.id == "exam"} == {"within_noise"}


def test_seeds_widen_what_chance_explains(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", shift=0.1, seed=2)
    c = write_run(tmp_path / "c", shift=0.15, rate=0.003)
    alone = side_by_side(a, c)
    assert verdicts(alone)["val"] == "higher"
    assert "seed" in {u["id"] for u in alone.unknown}
    made = side_by_side(a, b, c)
    ours, theirs = [x for x in made.claims if x.id == "val"]
    assert "Only the seed differs" in ours.text["en"]
    # Two values 0.1 apart: s = 0.1/√2, one degree of freedom, t = 12.7; a difference: √2·s·t.
    lows = [made.measures["best_val_loss"][i].value for i in (0, 1)]
    assert theirs.numbers["limit"] == pytest.approx(12.706 * abs(lows[1] - lows[0]), rel=1e-6)
    assert theirs.verdict == "within_noise"
    assert "seed" not in {u["id"] for u in made.unknown}


def test_speed(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a")
    assert verdicts(side_by_side(a, write_run(tmp_path / "b", speed=1200)))["speed"] == "faster"
    assert verdicts(side_by_side(a, write_run(tmp_path / "c", speed=800)))["speed"] == "slower"
    same = verdicts(side_by_side(a, write_run(tmp_path / "d", speed=1003)))["speed"]
    assert same == "within_noise"


def test_the_best_and_those_that_cannot_be_told_from_it(tmp_path: Path) -> None:
    made = side_by_side(
        write_run(tmp_path / "a", shift=0.2),
        write_run(tmp_path / "b"),
        write_run(tmp_path / "c", shift=0.003),
    )
    low = made.measures["best_val_loss"]
    best = min("bc", key=lambda name: low["abc".index(name)].value)
    tied = "c" if best == "b" else "b"
    assert made.summary["en"].startswith(f"Lowest validation loss: {best}, ")
    assert f"Not above it beyond the noise: {tied}." in made.summary["en"]
    assert "Above it beyond the noise: a." in made.summary["en"]


def test_both_languages_hold_the_same_numbers(tmp_path: Path) -> None:
    made = side_by_side(
        write_run(tmp_path / "a", right="0101010101", val=False),
        write_run(tmp_path / "b", right="1111111111", val=False, rate=0.01),
        write_run(tmp_path / "c", shift=0.5),
    )
    texts = [one.text for one in made.claims] + [one["text"] for one in made.unknown]
    assert len(texts) >= 6
    for text in (*texts, made.summary):
        assert english(text["en"]) == spanish(text["es"]), text
    assert english(terminal(made, "en")) == spanish(terminal(made, "es"))


class Reader(HTMLParser):
    """Checks that what opens closes, and keeps the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"] and data.startswith("{"):
            self.data = data
        elif self.open[-1:] not in (["script"], ["style"]):
            self.text += data


def test_page_json_and_markdown(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "")
    folders = (write_run(tmp_path / "x" / name), write_run(tmp_path / "y" / name, shift=0.5))
    made = side_by_side(*folders)
    shown = name.replace("\u202e", "\ufffd")
    assert [n.replace("\u202e", "\ufffd") for n in made.names] == [f"x/{shown}", f"y/{shown}"]
    page = html(made, "es")
    parsed = Reader()
    parsed.feed(page)
    assert parsed.open == []
    assert f"x/{shown}" in parsed.text
    assert "\u202e" not in page
    assert "<script>alert" not in page
    assert len(page.encode()) < 6_000_000
    drawn = {one["id"]: one["data"] for one in json.loads(parsed.data)["figures"]}
    assert list(drawn) == ["loss", "learning_rate", "tokens_per_second"]
    assert len(drawn["loss"]) == 4
    assert [t["meta"]["role"] for t in drawn["loss"]] == ["run0", "run0", "run1", "run1"]
    again = json.loads(json.dumps(to_json(made), allow_nan=False))
    assert [run["name"] for run in again["runs"]] == list(made.names)
    assert [one["id"] for one in again["claims"]] == ["val", "speed"]
    assert "<script>" not in markdown(made, "en")
    assert "\\|\\=HYPERLINK" in markdown(made, "en")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (str(write_run(tmp_path / n, shift=s)) for n, s in (("a", 0.0), ("b", 0.5)))
    page = tmp_path / "page.html"
    assert main(["report", "--compare", a, b, "--out", str(page), "--lang", "en", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["claims"][0]["verdict"] == "higher"
    assert page.stat().st_size > 1_000_000
    assert main(["report", a, "--compare", b, "--lang", "es"]) == 0
    assert capsys.readouterr().out.startswith("COMPARACIÓN DE EJECUCIONES")
    assert sorted(p.name for p in Path(a).iterdir()) == ["log.jsonl", "recipe.toml"]
    assert main(["report", "--compare", a]) == 2
    assert "expected 2 to 20" in capsys.readouterr().err
    assert main(["report"]) == 2
    (tmp_path / "notes.txt").write_text("hello")
    assert main(["report", "--compare", a, str(tmp_path / "notes.txt")]) == 2
    assert "not a training log" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"\.html, \.json or \.md"):
        write(side_by_side(Path(a), Path(b)), tmp_path / "x.png", "en")
