"""The page, the picture, the JSON: complete, closed, escaped, quick."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_run

from yunque.errors import InputError
from yunque.reports.frame import STYLE
from yunque.reports.markup import glossed
from yunque.reports.page import fifths
from yunque.reports.report import report, write

GOLDEN = Path(__file__).parents[1] / "golden" / "report_overfitting.json"
HOSTILE = '<script>alert(1)</script></pre>\x1b[31mred\x1b[0m \u202eabc =HYPERLINK("http://x.y")'


class Reader(HTMLParser):
    """Collects the scripts, the attributes, the text that is shown, and the headings."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page") / "run"
    options: dict[str, Any] = {"best": 160, "spike": 300, "exam": True, "stop": "early_stopping"}
    run = write_run(folder, samples=(HOSTILE,), **options)
    (run / "recipe.toml").write_text("# </script><b>recipe</b>\n")
    return report(run, "es").html()


@pytest.fixture(scope="module")
def parsed(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_nothing_is_loaded_from_anywhere(html: str, parsed: Reader) -> None:
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img"), tag
        assert not {"src", "href", "action", "srcset", "style", "onload"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert len(html.encode()) < 6_000_000


def test_the_policy_allows_these_scripts_only(parsed: Reader) -> None:
    (policy,) = [a["content"] for _, a in parsed.tags if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "connect-src" not in policy
    runs = [one for one in parsed.scripts if not one.startswith("{")]
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in runs]
    assert len(runs) == 2
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes


def test_strings_of_the_log_are_shown_as_text(parsed: Reader) -> None:
    shown = '<script>alert(1)</script></pre>red \ufffdabc =HYPERLINK("http://x.y")'
    assert parsed.text.count(shown) == 21
    assert "<b>bold</b>" in parsed.text
    assert "# </script><b>recipe</b>" in parsed.text
    assert "\x1b" not in parsed.text
    assert "\u202e" not in parsed.text


def test_structure_a_screen_reader_can_use(parsed: Reader) -> None:
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("h1") == 1
    assert tags.count("table") == tags.count("caption")
    known = {a["id"] for _, a in parsed.tags if "id" in a}
    named = [a["aria-labelledby"] for _, a in parsed.tags if "aria-labelledby" in a]
    assert len(named) >= 6
    assert set(named) <= known
    assert [a["lang"] for tag, a in parsed.tags if tag == "html"] == ["es"]
    pressed = {a["data-to"]: a["aria-pressed"] for _, a in parsed.tags if "data-to" in a}
    assert pressed == {"en": "false", "es": "true"}
    assert tags.count("span") > 100
    assert "It worked" in parsed.text
    assert "Funcionó" in parsed.text


def test_figures_hold_the_rows_of_the_log(parsed: Reader, tmp_path: Path) -> None:
    (data,) = [json.loads(one) for one in parsed.scripts if one.startswith("{")]
    names = [figure["id"] for figure in data["figures"]]
    of_steps = ["learning_rate", "grad_norm", "tokens_per_second"]
    assert names == ["loss", "perplexity", "exam", *of_steps]
    batch, _, held = data["figures"][0]["data"]
    assert batch["x"] == list(range(1, 401))
    assert max(batch["y"]) == batch["y"][299] > 5
    assert held["x"] == list(range(0, 401, 20))
    assert held["meta"]["x"]["tokens"] == [512 * step for step in held["x"]]
    marks = data["figures"][0]["layout"]["meta"]["marks"]
    found = [(mark["at"]["steps"], mark["text"]["es"]) for mark in marks]
    assert found == [(160, "mejor"), (400, "parada temprana")]


def test_24000_rows_in_under_5_seconds_and_extremes_are_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=24_000, every=1000, spike=17_777)
    began = time.process_time()  # of this process: other work on the machine does not count
    made = report(run)
    html = made.html()
    assert time.process_time() - began < 5
    assert made.png().startswith(b"\x89PNG\r\n")
    assert len(html.encode()) < 6_000_000
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    batch = data["figures"][0]["data"][0]
    assert len(batch["x"]) <= 2002
    assert batch["x"][batch["y"].index(max(batch["y"]))] == 17_777
    assert "2,000 of 24,000" in html


def test_write_into_the_run_folder_and_single_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stop=None)
    made = report(run)
    assert [p.name for p in write(made, run)] == ["report.html", "report.json", "report.png"]
    assert json.loads((run / "report.json").read_text()) == made.json
    assert (run / "report.html").read_text() == made.html()
    assert write(made, tmp_path / "x.png") == [tmp_path / "x.png"]
    with pytest.raises(InputError, match=r"\.html, \.json, \.md or \.png"):
        write(made, tmp_path / "x.pdf")


def test_a_file_that_is_no_log_has_its_own_report(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    made = report(tmp_path / "notes.txt")
    assert not made.is_training_log
    assert [f["id"] for f in made.json["findings"]] == ["not_a_training_log"]
    assert set(made.json["facts"].values()) == {None}
    assert made.json["verdict"]["id"] == "cannot_tell"
    assert made.png().startswith(b"\x89PNG")
    assert "not a training log" in made.summary("en")
    assert "<h1" in made.html()


def test_notebook_form_is_small_and_has_no_script(tmp_path: Path) -> None:
    shown = report(write_run(tmp_path / "run", best=160, kept=False))._repr_html_()
    assert "<b>[problem]</b> From about step" in shown
    assert "<br><i>Use a checkpoint near step 160" in shown
    assert 'alt="The curves"' in shown
    assert "data:image/png;base64," in shown
    assert "<script" not in shown
    assert len(shown) < 500_000


def test_cards_have_their_picture_and_their_exact_numbers(parsed: Reader) -> None:
    made = [a for tag, a in parsed.tags if tag == "article"]
    pictures = [a for tag, a in parsed.tags if a.get("class") == "spark"]
    assert len(made) >= 6
    assert len(made) - 1 <= len(pictures) <= len(made)  # memory is in no curve of the report
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    assert "onset_step" in parsed.text


def test_words_of_the_glossary_open_their_explanation(parsed: Reader) -> None:
    opened = {a["popovertarget"] for _, a in parsed.tags if "popovertarget" in a}
    there = {a["id"] for _, a in parsed.tags if "popover" in a}
    assert {"term-validation", "term-overfitting", "term-step", "term-loss"} <= opened <= there
    assert '<button type="button" class="term" popovertarget="term-validation">validation loss' in (
        glossed({"en": "The validation loss, the validation loss.", "es": "La pérdida."})
    )
    assert glossed({"en": "<loss> losss", "es": ""}).count("<button") == 1


def test_the_fall_by_fifths(tmp_path: Path) -> None:
    rows = "".join(f"{s},{100 - s}\n" for s in range(101))
    (tmp_path / "log.csv").write_text("step,loss\n" + rows)
    found = fifths(report(tmp_path / "log.csv").log)
    assert re.findall(r"(\d+\.0)%", found) == ["20.0", "40.0", "60.0", "80.0", "100.0"]
    assert re.findall(r"<td>(\d+)</td><td>-", found) == ["20", "40", "60", "80", "100"]


def test_exams_are_drawn_with_their_interval(parsed: Reader) -> None:
    (data,) = [json.loads(one) for one in parsed.scripts if one.startswith("{")]
    (exam,) = [figure["data"] for figure in data["figures"] if figure["id"] == "exam"]
    # 100 of 200: Wilson's interval at 95 % is 43.14 % to 56.86 %.
    at = exam[0]["y"].index(50.0)
    assert exam[0]["customdata"][at] == pytest.approx([43.136, 56.864], abs=1e-3)
    assert exam[0]["error_y"]["array"][at] == pytest.approx(6.864, abs=1e-3)


def same(got: Any, expected: Any, where: str = "report") -> None:
    """Equal but for the last bits of floating-point numbers."""
    if isinstance(expected, dict):
        assert set(got) == set(expected), where
        for key in expected:
            same(got[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), where
        for i, (one, other) in enumerate(zip(got, expected, strict=True)):
            same(one, other, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, rel=1e-9), where
    else:
        assert got == expected, where


def test_golden_report(tmp_path: Path) -> None:
    """The whole JSON of one run; `python tests/reports/test_report_page.py` writes it anew."""
    run = write_run(tmp_path / "run", best=160, spike=300, exam=True, stop="early_stopping")
    got = report(run).json
    assert got["source"].pop("path") == str(run / "log.jsonl")
    assert len(got["source"].pop("sha256")) == 64
    same(json.loads(json.dumps(got)), json.loads(GOLDEN.read_text()))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"best": 160, "spike": 300, "exam": True}
        made = report(write_run(Path(folder) / "run", stop="early_stopping", **options)).json
    del made["source"]["path"], made["source"]["sha256"]
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")
