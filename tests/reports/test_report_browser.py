"""The page in a real browser: no complaint, no request, zoom and hover, both themes, 360 px."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_browser import Browser
from report_runs import write_run
from tuned_runs import LEDGER, write_tuned

from yunque.reports import watch
from yunque.reports.compare import compare
from yunque.reports.compare_page import write as write_comparison
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


@pytest.mark.parametrize(("width", "dark"), [(1200, True), (360, False)])
def test_the_comparison_is_shown_without_a_complaint(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    bad = "<img src=x onerror=alert(1)>\u202e"
    runs = [
        report(write_run(tmp_path / f"{bad}{name}", best=best, exam=True))
        for name, best in (("a", 160), ("b", 300))
    ]
    page = write_comparison(compare(runs), tmp_path / "page.html", "es")
    browser.open(page, width, dark)
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('.main-svg').length") >= 5
    assert browser.value("document.querySelectorAll('img').length") == 0
    assert "<img src=x onerror=alert(1)>" in browser.value("document.body.innerText")
    for button in ("[data-to=en]", "[data-axis=hours]", "[data-toggle=log]"):
        browser.value(f"document.querySelector('{button}').click()")
    assert browser.value("document.title").startswith("Comparación")
    assert browser.value("document.documentElement.lang") == "en"
    assert browser.value("document.getElementById('plot-loss').data.length") == 4
    assert browser.complaints() == []


def test_the_watched_page_renews_itself(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REST", 0.0)
    run = write_run(tmp_path / "run", exam=True)
    whole = (run / "log.jsonl").read_bytes()
    rows = whole.splitlines(keepends=True)
    (run / "log.jsonl").write_bytes(b"".join(rows[:150]))
    with watch.server(run, lambda: report(run), "en") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            browser.open(url, 1200, False)
            browser.value("document.querySelector('article details').open = true")
            browser.value("document.querySelector('[data-to=es]').click()")
            shown = "Math.max(...document.getElementById('plot-loss').data[0].x)"
            assert browser.value(shown) < 150
            browser.value("Plotly.relayout('plot-loss', {'xaxis.range': [10, 20]}) && undefined")
            (run / "log.jsonl").write_bytes(whole)
            end = time.monotonic() + 20
            while browser.value(shown) != 400:
                assert time.monotonic() < end, "the page does not renew itself"
                time.sleep(0.2)
            assert browser.value("document.documentElement.lang") == "es"
            place = "document.getElementById('plot-loss')._fullLayout.xaxis.range.join()"
            assert browser.value(place) == "10,20"
            assert browser.value("document.querySelector('article details').open")
            live = browser.value("document.getElementById('live').innerText")
            assert live.startswith("La ejecución ha terminado")
            assert [c for c in browser.complaints() if not c.startswith(url)] == []
        finally:
            server.shutdown()
            thread.join()
