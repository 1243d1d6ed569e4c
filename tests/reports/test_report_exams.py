"""Exams against the base, forgetting, the ledger: in findings, verdict and page."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_checker import check, check_page, shown, tokens
from report_runs import write_run
from tuned_runs import LEDGER, paired_p, write_tuned

from yunque.exam import wilson
from yunque.reports.report import Report, report

BETTER = [(6, 8), (5, 12), (4, 18), (4, 25), (3, 30), (3, 32), (3, 34), (3, 35)]
SAME = [(6, 8)] * 8
WORSE = [(6, 8)] * 5 + [(30, 5)] * 3
RISING = [1.5 + 0.1 * i for i in range(9)]
FALLING = [2.0 - 0.1 * i for i in range(9)]
FORGETS = [3.0, 3.0, 3.01, 3.02, 3.1, 3.2, 3.3, 3.4, 3.5]
RUNS: dict[str, dict[str, Any]] = {
    "better": {"changes": BETTER, "general": FORGETS, "ledger": LEDGER},
    "same": {"changes": SAME, "general": [3.0] * 8 + [3.04]},
    "worse": {"changes": WORSE, "general": FORGETS[::-1]},
    "base_by_exam": {"changes": [(9, 8)] * 5 + [(30, 5)] * 3, "watch": "exam"},
    "no_gain": {"changes": [(9, 8)] * 8, "watch": "exam"},
    "base_by_loss": {"changes": [(9, 8)] * 8, "val": RISING, "general": FORGETS},
    "early": {"changes": BETTER[::-1], "watch": "exam", "general": FORGETS},
    "ties": {"changes": [(0, 0), (5, 5), (0, 5), (0, 6), (1, 7), (1, 8), (4, 0), (0, 1)]},
}


def made(tmp_path: Path, name: str) -> Report:
    return report(write_tuned(tmp_path / name, **RUNS[name]))


@pytest.mark.parametrize("name", RUNS)
def test_every_number_is_recomputed_from_the_log(tmp_path: Path, name: str) -> None:
    found = made(tmp_path, name)
    path = tmp_path / name / "log.jsonl"
    for faults, compared in (
        check(path, json.loads(json.dumps(found.json))),
        check_page(path, found.html()),
    ):
        assert faults == []
        assert compared >= 40


def test_the_checker_finds_what_is_wrong_on_the_page(tmp_path: Path) -> None:
    found, path = made(tmp_path, "better").html(), tmp_path / "better" / "log.jsonl"
    for right, wrong in (
        ("6.7e-08", "6.8e-08"),
        ("<td>72/100</td>", "<td>73/100</td>"),
        ('<span lang="es">mejor</span>', '<span lang="es">peor</span>'),
        ("a 3,500 (paso", "a 3,510 (paso"),
        ("160 (best/)", "160"),
    ):
        assert right in found
        assert check_page(path, found.replace(right, wrong))[0], wrong


def test_an_exam_better_than_the_base(tmp_path: Path) -> None:
    found = made(tmp_path, "better")
    assert found.analysis.finding("worse_than_base") is None
    text = found.analysis.verdict["text"]
    assert (
        "Exam: better than the base. Right before training: 40 of 100; at step 160: 72 "
        in (text["en"])
    )
    assert "Examen: mejor que el modelo base." in text["es"]
    assert "p = 6.7e-08" in text["en"]
    assert "p = 6,7e-08" in text["es"]


def test_an_exam_no_different_from_the_base(tmp_path: Path) -> None:
    found = made(tmp_path, "same")
    assert found.analysis.finding("worse_than_base") is None
    assert "Exam: no different from the base" in found.analysis.verdict["text"]["en"]
    assert (
        "(gained 8, lost 6; exact paired test, p = 0.791)" in found.analysis.verdict["text"]["en"]
    )


def test_an_exam_worse_than_the_base(tmp_path: Path) -> None:
    found = made(tmp_path, "worse")
    worse = found.analysis.finding("worse_than_base")
    assert worse is not None
    assert worse.severity == "problem"
    wanted = {"first_right": 40, "last_right": 15, "lost": 30, "gained": 5}
    assert {key: worse.numbers[key] for key in wanted} == wanted
    assert worse.numbers["p_value"] == pytest.approx(paired_p(30, 5), rel=1e-12)
    fields = ["right", "right", "total", "lost", "gained", "p_value", "verdict"]
    assert [one["field"] for one in worse.evidence] == fields
    assert worse.text["en"].endswith("best/ holds the model of step 160: 15 of 100 right.")
    assert found.analysis.verdict["id"] == "did_not_learn"
    best = found.analysis.finding("best_step")
    assert best is not None
    assert "Use the model" not in best.advice["en"]


def test_a_change_that_only_the_paired_test_can_see(tmp_path: Path) -> None:
    """Seven lost and none gained is sure in pairs; two proportions apart could not tell."""
    changes = [(0, 0)] * 7 + [(7, 0)]
    found = report(write_tuned(tmp_path / "run", changes))
    worse = found.analysis.finding("worse_than_base")
    assert worse is not None
    assert worse.numbers["p_value"] == 2 / 2**7
    rows = (tmp_path / "run" / "log.jsonl").read_text()
    plain = re.sub(r', "lost": .*?(?=}\n)', "", rows)
    (tmp_path / "run" / "log.jsonl").write_text(plain)
    assert report(tmp_path / "run").analysis.finding("worse_than_base") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("base_by_exam", "best/ is the base, as it was before training: 40 of 100 right."),
        (
            "no_gain",
            "no later exam (8 of them) had more right answers than its 40 of 100. The best",
        ),
        ("base_by_loss", "no later evaluation (8 of them) had a lower validation loss than its"),
    ],
)
def test_best_is_the_base(tmp_path: Path, name: str, words: str) -> None:
    found = made(tmp_path, name)
    worse = found.analysis.finding("worse_than_base")
    assert worse is not None
    assert worse.severity == "problem"
    assert words in worse.text["en"]
    assert "best/ es el modelo base" in worse.text["es"]
    expected = "overfitted" if name == "base_by_loss" else "did_not_learn"
    assert found.analysis.verdict["id"] == expected


def test_best_is_not_the_base_while_a_run_goes_on(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path / "run", [(9, 8)] * 8, watch="exam")
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(lines[:-1]))
    worse = report(folder).analysis.finding("worse_than_base")
    assert worse is not None
    assert worse.severity == "warning"


def test_best_was_chosen_by_the_exam(tmp_path: Path) -> None:
    found = made(tmp_path, "early")
    best = found.analysis.finding("best_step")
    assert best is not None
    assert best.numbers["step"] == 160
    assert best.numbers["kept_step"] == 20
    assert "holds the model of step 160" not in best.text["en"]
    assert "that of step 20: it was chosen by the exam" in best.text["en"]
    assert (
        "best/ holds the model of step 20: 72 of 100 right."
        in (found.analysis.verdict["text"]["en"])
    )


@pytest.mark.parametrize(
    "change",
    [
        {"lost": 31},
        {"p_value": 2.0},
        {"p_value": "0.00001"},
        {"verdict": "better"},
        {"verdict": ["worse"]},
        {"gained": -5},
        {"gained": True},
    ],
)
def test_a_comparison_that_cannot_be_is_not_believed(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """The plain figures, 40 and 15 of 100, still decide."""
    folder = write_tuned(tmp_path / "run", WORSE)
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-2])["event"] == "exam"
    lines[-2] = json.dumps({**json.loads(lines[-2]), **change})
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    found = report(folder)
    worse = found.analysis.finding("worse_than_base")
    assert worse is not None
    assert "lost" not in worse.numbers
    assert (worse.numbers["first_right"], worse.numbers["last_right"]) == (40, 15)
    assert "paired" not in found.analysis.verdict["text"]["en"]


def test_wilson_intervals_of_the_literature() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for right, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (3.5, "rose from 3.000 (step 0) to 3.500 (step 160), by 0.50 nats"),
        (3.049, "less than 0.05 nats per token, too little to judge"),
        (2.94, "fell from 3.000 (step 0) to 2.940 (step 160), by 0.06 nats"),
    ],
)
def test_forgetting(tmp_path: Path, last: float, words: str) -> None:
    general = [3.0] * 8 + [last]
    found = report(write_tuned(tmp_path / "run", SAME, general=general))
    for text in (found.summary("en"), shown(found.html(), "report-forgetting", "en")):
        assert words in text


def test_no_word_on_forgetting_where_it_was_not_measured(tmp_path: Path) -> None:
    found = report(write_run(tmp_path / "run", exam=True))
    assert "report-forgetting" not in found.html()
    assert "forget" not in found.summary("en").lower()


def test_the_curves_of_exams_and_of_the_general_text(tmp_path: Path) -> None:
    html = made(tmp_path, "better").html()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    figures = {one["id"]: one["data"] for one in json.loads(data)["figures"]}
    (line,) = figures["exam"]
    assert line["x"] == list(range(0, 161, 20))
    assert line["y"] == [40, 42, 47, 54, 61, 67, 69, 71, 72]
    assert figures["general_loss"][0]["y"] == FORGETS


def test_many_exams_show_the_best_and_the_kept(tmp_path: Path) -> None:
    changes = [(5, 5)] * 100
    changes[36] = (0, 30)
    html = report(write_tuned(tmp_path / "run", changes, val=[1.0] * 101, watch="exam")).html()
    text = shown(html, "report-exam", "en")
    assert "740 (best/) | 70/100" in text
    assert re.search(r"Exams shown: 4[01] of 101", text)


def test_the_ledger_in_the_page(tmp_path: Path) -> None:
    html = made(tmp_path, "better").html()
    english, spanish = (shown(html, "report-ledger", lang) for lang in ("en", "es"))
    assert "documents: read 60 = training 53 + validation 5 + dropped copies 2\n" in english
    assert "tokens: leídos 15\u00a0105 = entrenados 3361 + sin pérdida 10\u00a0292 +" in spanish
    assert "difference" not in english
    assert "maths/<b>tutor</b>.jsonl | utf-8 | 60 | 15,105 | 3,361 |" in english
    assert "… 12\u00a0345 tokens más" in spanish
    assert '<mark><span class="t"> 8</span></mark>' in html
    assert '<mark><span class="t">&lt;/script&gt;</span></mark>' in html
    assert '<mark><span class="t">4+4</span></mark>' not in html
    assert tokens(english, "en") == tokens(spanish, "es")
    assert html.count("<table") == html.count("<caption>")


def test_an_equation_that_does_not_close_says_so(tmp_path: Path) -> None:
    ledger = {**LEDGER, "tokens": {**LEDGER["tokens"], "trained": 3000, "error": 0}}
    html = report(write_tuned(tmp_path / "run", SAME, ledger=ledger)).html()
    assert "(difference 361)" in shown(html, "report-ledger", "en")


DAMAGED: dict[str, Any] = {
    "JSON": "{",
    "documents, bytes, tokens, epoch": {"text": {"files": 0}},
    "epoch.read": {**LEDGER, "epoch": {"windows": 18898, "tokens_trained": 2418944}},
    "tokens.masked": {**LEDGER, "tokens": {"read": 5, "masked": "5"}},
    "tokens.trained": {**LEDGER, "tokens": {"read": 5, "trained": -5}},
    "tokens.stolen": {**LEDGER, "tokens": {"read": 5, "stolen": 5}},
    "sources": {**LEDGER, "sources": {}},
    "sources[0].name": {**LEDGER, "sources": [{}]},
    "sources[0].tokens": {**LEDGER, "sources": [{"name": "x", "tokens": [1]}]},
    "examples[0].tokens": {**LEDGER, "examples": [{**LEDGER["examples"][0], "tokens": [1]}]},
    "examples[0].split": {**LEDGER, "examples": [{**LEDGER["examples"][0], "split": "<b>"}]},
    "examples[0].source": {**LEDGER, "examples": [{**LEDGER["examples"][0], "source": -1}]},
}


@pytest.mark.parametrize("place", DAMAGED)
def test_a_damaged_ledger_is_one_line(tmp_path: Path, place: str) -> None:
    folder = write_tuned(tmp_path / "run", SAME)
    whole, found = report(folder), copy.deepcopy(DAMAGED[place])
    text = found if isinstance(found, str) else json.dumps(found)
    (folder / "ledger.json").write_text(text)
    made = report(folder)
    lines = shown(made.html(), "report-ledger", "en").splitlines()
    assert lines[1:] == [
        "ledger.json stands beside the log, but it is damaged or of another kind "
        f"(at: {place}), and is left out here."
    ]
    assert made.json == whole.json
    assert "report-ledger" not in whole.html()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 100_000, b"null", b"1e999", b""])
def test_a_ledger_of_any_bytes_breaks_nothing(tmp_path: Path, content: bytes) -> None:
    folder = write_tuned(tmp_path / "run", SAME)
    (folder / "ledger.json").write_bytes(content)
    assert "(at: JSON)" in shown(report(folder).html(), "report-ledger", "en")
