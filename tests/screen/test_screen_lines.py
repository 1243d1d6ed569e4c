"""The line screen says exactly this."""

from __future__ import annotations

import io
import re

import pytest

from yunque.screen import LineScreen, LiveScreen, SilentScreen, make_screen
from yunque.words.explain import WORDS as EXPLAIN
from yunque.words.screen import WORDS as SCREEN

ROW = {
    "epoch": 1.3,
    "tokens_seen": 1,
    "train_loss": 2.1044,
    "learning_rate": 9.8e-4,
    "grad_norm": 0.812,
    "tokens_per_second": 8123.4,
    "memory_bytes": 9e8,
    "steps": 2000,
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(lang: str, stream: io.TextIOBase, clock: Clock) -> None:
    """Steps 118 … 121 of 2000, 0.1 s each, with a jump of the clock before step 120."""
    screen = LineScreen(stream, lang, clock)  # type: ignore[arg-type]
    screen.phase("Preparing corpus.txt")
    screen.progress("Reading", 0.25)
    screen.progress("Reading", 0.5)
    screen.progress("Reading", 1.0)
    screen.start(
        {
            "run": "runs/a",
            "parameters": {"token_embedding": 20000, "<own>": 12345678, "total": 12365678},
            "tokens": {"train": 135000, "val": 15000},
            "steps": 2000,
            "batch_size": 32,
            "context_length": 256,
            "device": "cpu",
            "precision": "fp32",
        }
    )
    for step in (118, 119, 120, 121):
        clock.now += 5.0 if step == 120 else 0.1
        screen.step({**ROW, "step": step, "seconds": 0.1 * step})
    screen.evaluation({"step": 121, "seconds": 13.0, "train_loss": 2.05, "val_loss": 2.11}, True)
    screen.evaluation({"step": 122, "seconds": 14.0, "train_loss": 2.05, "val_loss": None}, False)
    screen.sample("Ana", " va\n\x1b[2Jal [red]río\u202e")
    screen.exam(
        {"step": 122, "right": 45, "total": 60, "kinds": {"add": [20, 20], "sub": [25, 40]}}
    )
    screen.warning("low memory\n[bold]")
    screen.checkpoint("runs/a/checkpoints/step-00000122")
    screen.stop(
        "early_stopping", {"best_step": 121, "best_loss": 2.11, "validated": True, "run": "runs/a"}
    )
    screen.close()
    screen.warning("after the end")


def test_lines_in_english() -> None:
    stream = io.StringIO()
    run("en", stream, Clock())
    assert stream.getvalue().splitlines() == [
        "Preparing corpus.txt",
        "Reading 25%",
        "Reading 100%",
        "run runs/a",
        "12,365,678 parameters (token embedding 20,000, <own> 12,345,678)"
        " | 135,000 training tokens, 15,000 validation"
        " | 2,000 steps | batch 32 | context 256 | cpu | fp32",
        "step 118/2000 epoch 1.3 loss 2.104 lr 9.8e-04 grad 0.81 8,123 tokens/s 900 MB left -",
        "step 120/2000 epoch 1.3 loss 2.104 lr 9.8e-04 grad 0.81 8,123 tokens/s 900 MB left 3m 8s",
        "eval step 121: train 2.050 validation 2.110 (best) perplexity 8.2",
        "eval step 122: train 2.050 perplexity 7.8",
        'sample after "Ana":  va↵␛[2Jal [red]río\ufffd',
        "exam step 122: 45/60 (75%): add 20/20, sub 25/40",
        "warning: low memory↵[bold]",
        "checkpoint runs/a/checkpoints/step-00000122",
        "Stopped: the validation loss no longer improves. "
        "Best validation loss 2.110 at step 121. Run folder: runs/a",
    ]
    assert "\r" not in stream.getvalue()


def test_spanish_lines_have_the_same_numbers() -> None:
    texts = {}
    for lang in ("en", "es"):
        stream = io.StringIO()
        run(lang, stream, Clock())
        texts[lang] = stream.getvalue()
    assert (
        "paso 120/2000 época 1,3 pérdida 2,104 tasa 9,8e-04 grad 0,81 8123 tokens/s" in texts["es"]
    )
    assert "12 365 678 parámetros" in texts["es"]
    assert "muestra tras «Ana»:" in texts["es"]

    def digits(text: str) -> list[str]:
        return re.findall(r"\d+", re.sub(r"(?<=\d)[ ,.](?=\d)", "", text))

    assert digits(texts["en"]) == digits(texts["es"])
    assert len(digits(texts["en"])) > 40


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_other_encodings_do_not_crash(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    run("es", stream, Clock())
    lines = raw.getvalue().decode(encoding).splitlines()
    expected = "paso 120/2000 epoca" if encoding == "ascii" else "paso 120/2000 época"
    assert any(line.startswith(expected) for line in lines)
    assert "?[2Jal [red]" in "\n".join(lines)


def test_an_evaluation_shows_one_line_of_its_sample_and_one_of_its_exam() -> None:
    stream = io.StringIO()
    screen = LineScreen(stream, "es", Clock())
    screen.sample("x" * 60 + "¿Cuánto es?", "uno\n" * 100)
    kinds = {"addition": [1, 2], "number": [0, 1], "mine": [0, 1]}
    screen.exam({"step": 7, "right": 1, "total": 4, "kinds": kinds})
    assert stream.getvalue().splitlines() == [
        f"muestra tras «…{'x' * 29}¿Cuánto es?»: {'uno↵' * 40}…",
        "examen paso 7: 1/4 (25 %): suma 1/2, número 0/1, mine 0/1",
    ]


def test_the_last_step_is_always_written() -> None:
    stream = io.StringIO()
    screen = LineScreen(stream, "en", Clock())
    for step in (1, 2, 3):
        screen.step({"step": step, "steps": 3})
    assert stream.getvalue().splitlines() == [
        "step 1/3 epoch - loss - lr - grad - - tokens/s - left -",
        "step 3/3 epoch - loss - lr - grad - - tokens/s - left -",
    ]


def test_a_broken_stream_does_not_end_the_run() -> None:
    class Broken(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            Broken.writes += 1
            raise BrokenPipeError

    screen = LineScreen(Broken(), "en")
    screen.phase("one")
    screen.phase("two")
    assert Broken.writes == 1


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_the_screen_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def made(encoding: str, **options: bool) -> object:
        return make_screen("en", Terminal(io.BytesIO(), encoding=encoding), **options)

    assert isinstance(made("utf-8"), LiveScreen)
    assert isinstance(made("ascii"), LineScreen)
    assert isinstance(made("utf-8", quiet=True), SilentScreen)
    assert isinstance(make_screen("en", io.StringIO()), LineScreen)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(made("utf-8"), LineScreen)


@pytest.mark.parametrize("words", [SCREEN, EXPLAIN])
def test_both_languages_have_the_same_placeholders(words: dict[str, tuple[str, str]]) -> None:
    assert words
    for key, (english, spanish) in words.items():
        found = [sorted(set(re.findall(r"{(\w+)}", text))) for text in (english, spanish)]
        assert found[0] == found[1], key


@pytest.mark.parametrize(
    ("reason", "english", "spanish"),
    [
        ("steps", "Stopped: all steps done.", "Fin: todos los pasos hechos."),
        ("interrupted", "interrupted, the state is saved", "interrumpida, con el estado guardado"),
        ("non_finite", "the loss is no longer finite", "la pérdida ya no es finita"),
        ("best\x1b[0m", "Stopped: best␛[0m.", "Fin: best␛[0m."),
    ],
)
def test_reasons_to_stop(reason: str, english: str, spanish: str) -> None:
    for lang, expected in (("en", english), ("es", spanish)):
        stream = io.StringIO()
        LineScreen(stream, lang).stop(reason, {"best_step": 3, "best_loss": 1.5})
        assert expected in stream.getvalue()
        loss = {"en": "training loss 1.500 at step 3", "es": "entrenamiento: 1,500, en el paso 3"}
        assert loss[lang] in stream.getvalue()
