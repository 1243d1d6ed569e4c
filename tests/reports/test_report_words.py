"""Spanish and English say the same: placeholders, and every number of every sentence."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest
from report_runs import write_run
from shared_data import ROOT
from tuned_runs import write_tuned

from yunque.reports.report import report
from yunque.words.report import WORDS, Written, counted_in, tell

NUMBER = re.compile(r"\d+(?:[.,\u00a0]\d+)*")


def english(text: str) -> list[str]:
    """The numbers of an English text, bare."""
    return sorted(n.replace(",", "") for n in NUMBER.findall(text))


def spanish(text: str) -> list[str]:
    """The numbers of a Spanish text, in English form."""
    return sorted(n.replace("\u00a0", "").replace(",", ".") for n in NUMBER.findall(text))


@pytest.mark.parametrize("key", sorted(WORDS))
def test_both_sentences_use_the_same_placeholders(key: str) -> None:
    en, es = ([(n, f) for _, n, f, _ in Formatter().parse(t) if n] for t in WORDS[key])
    assert set(en) == set(es)


def test_every_number_stands_in_both_languages(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "over", best=160, spike=300, exam=True),
        write_run(tmp_path / "lost", best=160, kept=False),
        write_run(tmp_path / "many", val=False, passes=12345.5, nan=9),
        write_run(tmp_path / "short", steps=3),
        write_tuned(tmp_path / "worse", [(6, 8)] * 5 + [(30, 5)] * 3, general=[1.0] * 8 + [1.5]),
        write_tuned(tmp_path / "base", [(9, 8)] * 8, watch="exam", general=[1.0] * 9),
        write_tuned(tmp_path / "better", [(0, 9)] * 8, val=[1.0 + i / 9 for i in range(9)]),
        *sorted((ROOT / "logs").glob("*.trainer_state.json")),
    ]
    texts = 0
    for run in runs:
        made = report(run)
        found = made.analysis.findings
        pairs = [
            made.analysis.verdict["text"],
            *[f.text for f in found],
            *[f.advice for f in found],
        ]
        pairs += [one["text"] for one in made.analysis.unknown]
        for pair in pairs:
            assert english(pair["en"]) == spanish(pair["es"]), pair
        assert english(made.summary("en")) == spanish(made.summary("es"))
        texts += len(pairs)
    assert texts >= 40


@pytest.mark.parametrize(
    ("value", "kind", "en", "es"),
    [
        (12345, "n", "12,345", "12\u00a0345"),
        (975, "n", "975", "975"),
        (134.206, "loss", "134.21", "134,21"),
        (80032.423, "loss", "80,032", "80\u00a0032"),
        (-0.001174, "loss", "\u22120.001174", "\u22120,001174"),
        (32.5567, "hours", "32.56 h", "32,56 h"),
        (0.004, "hours", "14 s", "14 s"),
        (0.0556, "loss", "0.0556", "0,0556"),
        (2.6955, "loss", "2.696", "2,696"),
        (0.00012, "loss", "0.000120", "0,000120"),
        (37.5, "x", "37.50", "37,50"),
        (250.0, "x", "250", "250"),
        (0.75, "pct", "75%", "75\u00a0%"),
        (7384.0, "time", "2 h 3 min", "2 h 3 min"),
        (2.4e9, "gb", "2.4 GB", "2,4 GB"),
        (None, "loss", "-", "-"),
        ("best/", "", "best/", "best/"),
    ],
)
def test_numbers_are_written_as_each_language_does(
    value: object, kind: str, en: str, es: str
) -> None:
    assert format(Written(value, "en"), kind) == en
    assert format(Written(value, "es"), kind) == es


GENDER = re.compile(r"\b(el|del|al|un|los|ese|este|esos|primer|primeros|último) (fila|época)s?\b")


def test_a_log_without_steps_speaks_of_what_it_counts() -> None:
    """No sentence of a finding, a verdict or a label keeps a step, and the articles agree."""
    kept = ("report.term.", "report.log_inc", "report.fact.steps", "report.unknown.", "report.not_")
    for key, (en, es) in WORDS.items():
        if key.startswith(kept) or key.endswith(".advice"):
            continue
        for counted in ("epochs", "rows", "examples"):
            told = counted_in({"en": en, "es": es}, counted)
            assert not re.search(r"\bsteps?\b|\ba (epoch|example)", told["en"]), told["en"]
            assert not re.search(r"\bpasos?\b", told["es"]), told["es"]
            assert not GENDER.search(told["es"]), told["es"]


def test_steps_as_epochs_rows_and_examples() -> None:
    text = {"en": "Step 3: a step of 12 steps.", "es": "El paso 3: un paso, del primer paso."}
    assert counted_in(text, "epochs") == {
        "en": "Epoch 3: an epoch of 12 epochs.",
        "es": "La época 3: una época, de la primera época.",
    }
    assert counted_in(text, "examples")["es"] == "El ejemplo 3: un ejemplo, del primer ejemplo."
    advice = tell("report.overfitting.lost.advice", step=3)
    assert counted_in(advice, "rows", numbered=True)["es"].startswith(
        "Usa un punto de control cercano a la fila 3 si lo hay"
    )
    assert counted_in(text, "") == text
    best = {"en": "Best step: 3, the last at step 5", "es": "Mejor paso: 3, el último en el paso 5"}
    assert counted_in(best, "epochs")["en"] == "Best epoch: 3, the last at epoch 5"
    assert counted_in(best, "rows") == {
        "en": "Best: row 3, the last at row 5",
        "es": "Lo mejor: fila 3, el último en la fila 5",
    }
