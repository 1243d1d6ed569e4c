"""The page in a real browser: no complaint, no request, zoom and hover, both themes, 360 px."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_browser import Browser
from report_runs import write_run
from tuned_runs import LEDGER, write_tuned

from yunque.reports.report import report, write

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
HOSTILE = '<script>document.title="hacked"</script>\x1b[31m\u202e=HYPERLINK("http://x.y")'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("needs chromium on the PATH")
    with Browser(CHROMIUM) as one:
        yield one


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    run = write_run(folder / "run", best=160, spike=300, exam=True, samples=(HOSTILE,))
    (page,) = write(report(run, "es"), folder / "page.html")
    return page


@pytest.mark.parametrize(
    ("width", "dark"), [(1200, False), (1200, True), (360, False), (360, True)]
)
def test_shown_without_a_complaint(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 28)" if dark else "rgb(251, 251, 249)")
    assert browser.value("document.querySelectorAll('.main-svg').length") >= 5
    assert browser.value("document.title").startswith("Informe")
    for button in ("[data-to=en]", "[data-axis=epochs]", "[data-toggle=log]", "[data-to=es]"):
        browser.value(f"document.querySelector('{button}').click()")
    assert browser.value("document.documentElement.lang") == "es"
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [1200, 360])
def test_exams_and_ledger_are_shown_without_a_complaint(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    general = [3.0, 3.1, 3.2, 3.3]
    run = write_tuned(tmp_path / "run", [(1, 9)] * 3, general=general, ledger=LEDGER)
    (page,) = write(report(run, "en"), tmp_path / "page.html")
    browser.open(page, width, False)
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('mark').length") == 2
    ground = browser.value("getComputedStyle(document.querySelector('mark')).backgroundColor")
    assert ground == "rgb(200, 239, 207)"
    assert browser.complaints() == []


def test_hover_and_zoom(browser: Browser, page: Path) -> None:
    browser.open(page, 1200, False)
    place = "document.getElementById('plot-loss')"
    box = json.loads(
        browser.value(f"JSON.stringify({place}.querySelector('.nsewdrag').getBoundingClientRect())")
    )
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    browser.mouse("mouseMoved", x - 5, y)
    browser.mouse("mouseMoved", x, y)
    shown = f"{place}.querySelector('.hoverlayer').textContent"
    assert any("validación" in str(browser.value(shown)) for _ in range(20))
    before = browser.value(f"{place}._fullLayout.xaxis.range.join()")
    browser.mouse("mousePressed", x, y)
    browser.mouse("mouseMoved", x + 80, y)
    browser.mouse("mouseMoved", x + 160, y)
    browser.mouse("mouseReleased", x + 160, y)
    after = [browser.value(f"{place}._fullLayout.xaxis.range.join()") for _ in range(20)]
    assert after[-1] != before
    assert browser.complaints() == []


def test_a_foreign_log_with_hostile_names(browser: Browser, tmp_path: Path) -> None:
    bad = '<img src=x onerror=alert(1)>\u202e=HYPERLINK("http://x.y")'
    rows = [
        {"step": s, f"eval_{bad}_loss": 2 - s / 100 if s < 50 else s / 30, "loss": 2 - s / 110}
        for s in range(0, 200, 5)
    ]
    log = tmp_path / f"{bad.replace('/', '')}.jsonl"
    log.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (page,) = write(report(log, "en"), tmp_path / "page.html")
    browser.open(page, 360, False)
    assert browser.value("document.querySelectorAll('img').length") == 0
    assert "<img src=x onerror=alert(1)>" in browser.value("document.body.innerText")
    assert "\u202e" not in browser.value("document.documentElement.outerHTML")
    assert browser.complaints() == []
