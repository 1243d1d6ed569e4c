"""Every command of both READMEs runs, in order, in an empty folder with a text of one's own."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from yunque import cli

ROOT = Path(__file__).parents[1]
TEXT = "\n".join(
    f"En la fragua número {n} suena el yunque {n * 7 % 31} veces, y nadie cuenta las chispas."
    for n in range(160)
)
LOG = {
    "log_history": [
        {"step": 10 * n, "epoch": n / 4, "loss": 3.0 / n, "learning_rate": 1e-4}
        for n in range(1, 30)
    ]
}
QUICK = ["--steps", "2", "--eval-every", "2", "--context-length", "16", "--sample-tokens", "4"]
QUICK += ["--hidden-size", "16", "--num-heads", "2", "--num-layers", "1", "--batch-size", "2"]


def blocks(name: str, language: str) -> list[str]:
    """Content of the fenced blocks of a README in a language ("" for commands)."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[list[str]]:
    """The yunque commands of a README, those in running text included."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [line for block in blocks(name, "") for line in block.splitlines()]
    lines += [" ".join(span.split()) for span in re.findall(r"`(yunque [^`]+)`", text)]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("yunque ")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, made once for both READMEs: its command has no words of a language."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    assert cli.main(["demo", "--steps", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", ["README.md", "README.es.md"])
def test_every_command_runs(
    name: str,
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo, "runs/demo")
    for text in ("my-text.txt", "other-text.txt", "mi-texto.txt", "otro-texto.txt"):
        Path(text).write_text(TEXT, encoding="utf-8")
    talks = [{"question": f"¿Cuánto es {n} + 1?", "answer": f"{n + 1}"} for n in range(40)]
    lines = "\n".join(json.dumps(talk) for talk in talks)
    Path("chats.jsonl").write_text(lines, encoding="utf-8")
    Path("trainer_state.json").write_text(json.dumps(LOG), encoding="utf-8")
    ran = 0
    for words in commands(name):
        extra: list[str] = []
        if words[0] == "demo":
            assert words[1:] == []
            continue
        if words[0] == "pretrain" and "--help" not in words and "--recipe" not in words:
            extra = QUICK
        elif words[0] == "finetune":
            extra = ["--steps", "2", "--eval-every", "2", "--rank", "2"]
        elif words[0] in ("generate", "chat"):
            monkeypatch.setattr("sys.stdin", io.StringIO("¿Cuánto es 2 + 2?\n"))
            extra = ["--max-new-tokens", "3"]
        try:
            code = cli.main([*words, *extra])
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
        assert code == 0, (words, capsys.readouterr().err[-2000:])
        ran += 1
    assert ran >= 14
    for made in ("runs/demo/report.html", "report.html"):
        assert Path(made).stat().st_size > 10_000


@pytest.mark.parametrize("name", ["README.md", "README.es.md"])
def test_the_python_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("my-text.txt", "mi-texto.txt"):
        Path(text).write_text(TEXT, encoding="utf-8")
    (example,) = blocks(name, "python")
    small = "hidden_size=16, num_heads=2, num_layers=1, context_length=16, batch_size=2, steps=2"
    quick = example.replace("steps=40", small).replace("max_new_tokens=40", "max_new_tokens=4")
    exec(compile(quick, name, "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[-1]) > 1


@pytest.mark.parametrize("name", ["README.md", "README.es.md"])
def test_the_forecast_that_is_shown_is_what_the_command_prints(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no runs of one's own correct it
    [shown] = [block for block in blocks(name, "") if block.startswith("yunque plan --base")]
    command, _, output = shown.partition("\n\n")
    language = [] if "--lang" in command else ["--lang", "en"]
    assert cli.main([*shlex.split(command)[1:], *language]) == 0
    assert capsys.readouterr().out == output


def test_both_readmes_have_the_same_shape() -> None:
    """Same headings, blocks, pictures and bullet points in the same order."""

    def shape(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return re.findall(r"^(#+ |```\w*|- \*\*|!\[)", text, re.MULTILINE)

    assert shape("README.md") == shape("README.es.md")
    verbs = [[words[0] for words in commands(name)] for name in ("README.md", "README.es.md")]
    assert verbs[0] == verbs[1]


@pytest.mark.parametrize("name", ["README.md", "README.es.md"])
def test_every_file_that_a_readme_names_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).is_file(), target


def test_make_is_on_the_first_lines() -> None:
    for name in ("README.md", "README.es.md"):
        head = (ROOT / name).read_text(encoding="utf-8").splitlines()[:8]
        assert any(line.startswith("make demo") for line in head)
        assert any(line.startswith("make test") for line in head)
