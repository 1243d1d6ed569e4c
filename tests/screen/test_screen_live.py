"""The live panel: its size, its numbers, its manners."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from yunque import runlog
from yunque.screen import LiveScreen
from yunque.screen.replay import replay

HOSTILE = "[bold]x[/bold] \x1b[31mred\x1b[0m \u202eevil\x07 \x9b2J" + "w" * 5000 + "\n[/]\nend"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def console(width: int = 100, height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height)


def run_log(steps: int = 200, text: str = " de la Mancha") -> list[runlog.Row]:
    """A run of 0.2 s a step, an evaluation of 3 s every 20 steps; best validation at step 100."""
    rows: list[runlog.Row] = []
    seconds = 0.0

    def add(event: str, **values: object) -> None:
        rows.append(runlog.Row(len(rows) + 1, event, values))

    add("start", step=0, steps=steps, run=text, parameters=12345, device="cpu", batch_size=32)
    for step in range(steps + 1):
        loss = 1.0 + 3.0 * math.exp(-step / 20)
        if step:
            seconds += 0.2
            add(
                "step",
                step=step,
                epoch=step / 40,
                seconds=seconds,
                train_loss=loss,
                learning_rate=9.8e-4,
                grad_norm=0.81,
                tokens_per_second=12345.6,
                memory_bytes=900_000_000,
            )
        if step % 20 == 0:
            seconds += 3.0
            val = 2.0 + abs(step - 100) / 100
            add("eval", step=step, seconds=seconds, train_loss=loss, val_loss=val)
            add("sample", step=step, prompt="En un lugar", text=text)
            add("exam", step=step, right=45, total=60, kinds={text[:20]: [20, 20], "sub": [25, 40]})
    add("warning", step=steps, id="x", text=text)
    add("checkpoint", step=steps, path=text)
    return rows


def shown(screen: LiveScreen, target: Console) -> list[str]:
    """The lines of the present frame, as plain text."""
    with target.capture() as captured:
        target.print(screen.frame(target))
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).splitlines()


@pytest.mark.parametrize("lang", ["en", "es"])
@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("height", [18, 40])
@pytest.mark.parametrize("text", [" de la Mancha", HOSTILE])
def test_the_panel_fits_its_terminal(lang: str, width: int, height: int, text: str) -> None:
    screen = LiveScreen(console(width, height), lang, Clock())
    replay(run_log(text=text), screen)
    lines = shown(screen, console(width, height))
    screen.close()
    assert {cell_len(line) for line in lines} == {width}
    assert len(lines) < height
    assert lines[-1].startswith("╰")


def test_the_numbers_of_the_panel() -> None:
    screen = LiveScreen(console(), "en", Clock())
    replay(run_log(), screen, fraction=0.6)
    text = "\n".join(shown(screen, console(120, 40)))
    screen.close()
    # At step 120: 80 steps of 0.2 s and the evaluations at 140 … 200, four of 3 s: 28 s.
    for expected in (
        "60%  step 120/200  epoch 3.00",
        "validation loss  2.200",
        "best validation  2.000 (step 100)",
        "perplexity       9.0",  # exp(2.2)
        "learning rate    9.8e-04",
        "gradient norm    0.81",
        "tokens/s         12,346",
        "memory           900 MB",
        "elapsed          45 s",  # 120 · 0.2 + 7 · 3
        "time left        28 s",
        "(last 1.007)",  # 1 + 3·exp(−6)
        "12,345 parameters · 200 steps · batch 32 · cpu",
        "sample at step 120",
        "exam 45/60 (75%)",
    ):
        assert expected in text, text


def test_spanish_panel() -> None:
    screen = LiveScreen(console(), "es", Clock())
    replay(run_log(), screen, fraction=0.6)
    text = "\n".join(shown(screen, console(120, 40)))
    screen.close()
    for expected in (
        "60\u00a0%  paso 120/200  época 3,00",
        "mejor validación   2,000 (paso 100)",
        "tokens/s           12\u00a0346",
        "tiempo restante    28 s",
        "examen 45/60 (75\u00a0%)",
    ):
        assert expected in text, text


def test_nothing_foreign_steers_the_terminal() -> None:
    """Only rich's own codes are in the output: colours, cursor movements, the cursor's hiding."""
    target = console()
    screen = LiveScreen(target, "en", Clock())
    screen.phase(HOSTILE)
    replay(run_log(text=HOSTILE), screen)
    screen.stop(HOSTILE, {"run": HOSTILE})
    output = target.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]x[/bold] ␛[31mred␛[0m \ufffdevil␇ \ufffd2J" in output
    rest = re.sub(r"\x1b\[(?:[0-9;]*m|\?25[lh]|1A|2K)|\r|\n", "", output)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", rest)
    assert "\x1b[31mred" not in output


def test_at_most_four_redraws_a_second() -> None:
    clock, target = Clock(), console()
    screen = LiveScreen(target, "en", clock)
    drawn = 0
    redraw = screen._redraw

    def counted() -> None:
        nonlocal drawn
        drawn += 1
        redraw()

    screen._redraw = counted  # type: ignore[method-assign]
    for step in range(1, 1001):  # ten seconds, 100 steps a second
        clock.now = step / 100
        screen.step({"step": step, "steps": 1000, "train_loss": 1.0, "seconds": clock.now})
    screen.close()
    assert 38 <= drawn <= 40


def test_slow_drawing_draws_less() -> None:
    """A redraw of 0.1 s may take 2 % of the time: one in five seconds, so two in ten."""
    clock, target = Clock(), console()
    screen = LiveScreen(target, "en", clock)
    drawn = 0

    def slow() -> None:
        nonlocal drawn
        drawn += 1
        clock.now += 0.1

    screen._redraw = slow  # type: ignore[method-assign]
    while clock.now < 9.9:
        clock.now += 0.01
        screen.step({"step": 1, "steps": 1000})
    assert drawn == 2


def test_a_warning_stays_above_the_panel() -> None:
    target = console()
    screen = LiveScreen(target, "en", Clock())
    screen.start({"steps": 10})
    screen.warning("a long story " * 20)
    screen.close()
    output = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", target.file.getvalue())  # type: ignore[attr-defined]
    assert "warning: " + "a long story " * 7 in output.replace("\r", "")


def test_closing_restores_the_terminal_and_standard_error() -> None:
    target, before = console(), sys.stderr
    screen = LiveScreen(target, "en", Clock())
    screen.start({"steps": 10})
    assert target.file.getvalue().count("\x1b[?25l") == 1  # type: ignore[attr-defined]
    screen.close()
    screen.close()
    screen.step({"step": 1})
    output = target.file.getvalue()  # type: ignore[attr-defined]
    assert output.count("\x1b[?25h") == 1
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
    assert sys.stderr is before


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "RuntimeError('x')"])
def test_an_exception_that_nobody_catches_restores_the_cursor(error: str) -> None:
    code = (
        "import sys\nfrom rich.console import Console\nfrom yunque.screen import LiveScreen\n"
        "screen = LiveScreen(Console(file=sys.stdout, force_terminal=True), 'en')\n"
        f"screen.start({{'steps': 3}})\nraise {error}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode != 0
    assert done.stdout.rindex(b"\x1b[?25h") > done.stdout.rindex(b"\x1b[?25l")


def test_a_lost_terminal_does_not_end_the_run() -> None:
    class Lost(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    before = sys.stderr
    screen = LiveScreen(Console(file=Lost(), force_terminal=True, width=80, height=24), "en")
    replay(run_log(), screen)
    screen.stop("steps", {})
    assert sys.stderr is before


def test_the_screen_module_does_not_import_rich() -> None:
    code = "import sys, yunque.screen, yunque.screen.replay; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_the_replay_stops_where_asked_and_finds_the_best() -> None:
    calls: list[tuple[str, int, bool]] = []

    class Witness(LiveScreen):
        def step(self, row: object) -> None:
            calls.append(("step", row["step"], False))  # type: ignore[index]

        def evaluation(self, row: object, best: bool) -> None:
            calls.append(("eval", row["step"], best))  # type: ignore[index]

    screen = Witness(console(), "en", Clock())
    replay(run_log(), screen, fraction=0.7)
    screen.close()
    assert [s for kind, s, _ in calls if kind == "step"] == list(range(1, 141))
    assert [s for _, s, best in calls if best] == [0, 20, 40, 60, 80, 100]
    calls.clear()
    losses = enumerate((3.0, 2.0, 2.5, None, 1.0))
    rows = [
        runlog.Row(1, "eval", {"step": s, "train_loss": x, "val_loss": None}) for s, x in losses
    ]
    replay(rows, screen)
    assert [s for _, s, best in calls if best] == [0, 1, 4]


def test_the_picture_of_the_terminal_points_nowhere() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "pictures"))
    try:
        import make_pictures
    finally:
        sys.path.pop(0)
    for lang, words in (("en", "training loss"), ("es", "pérdida (entren.)")):
        svg = make_pictures.terminal_svg(run_log(), lang)
        assert re.findall(r"https?://[^\"\s]*", svg) == ["http://www.w3.org/2000/svg"]
        assert re.findall(r"url\((?!#)", svg) == []
        assert "@import" not in svg
        assert words.replace(" ", "&#160;") in svg
        assert svg == make_pictures.terminal_svg(run_log(), lang)
