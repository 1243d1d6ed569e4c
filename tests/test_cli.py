"""The command from outside: help, exit codes, JSON, messages that name the nearest thing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from yunque import cli, verbs
from yunque.runlog import read

TEXT = "\n".join(f"línea {n}: el herrero golpea {n * 13 % 17} veces" for n in range(200))
SMALL = [
    *("--tokenizer", "char", "--context-length", "16", "--hidden-size", "16", "--num-heads", "2"),
    *("--num-layers", "1", "--batch-size", "2", "--steps", "4", "--eval-every", "2"),
    *("--sample-tokens", "4", "--threads", "1", "--lang", "en"),
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(*words: str) -> int:
    try:
        return cli.main(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The one JSON object that a verb prints on standard output."""
    capsys.readouterr()
    assert run(*words, "--json", "--quiet") == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    value: dict[str, Any] = json.loads(out)
    return value


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, yunque.cli; yunque.cli.main(['--help']);"
        "print([m for m in ('torch', 'numpy', 'transformers', 'tyro', 'rich') if m in sys.modules])"
    )
    times = []
    for _ in range(3):
        # Of the processor, so that what else the machine does is not counted.
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        after = os.times()
        used = after.children_user + after.children_system
        times.append(used - before.children_user - before.children_system)
        assert done.stdout.splitlines()[-1] == "[]"
    assert min(times) < 0.5, times


def test_python_m_yunque_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "yunque", "explian"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Did you mean 'explain'?" in done.stderr


def test_the_report_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    log = tmp_path / "trainer_state.json"
    rows = [{"step": n, "epoch": n / 9, "loss": 3 / n} for n in range(1, 40)]
    log.write_text(json.dumps({"log_history": rows}), encoding="utf-8")
    code = (
        f"import sys, yunque.cli; code = yunque.cli.main(['report', {str(log)!r}, '--quiet']);"
        "print(code, [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_the_overview_names_every_verb_in_both_languages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tuple(verbs.VERBS) == cli.VERBS
    for lang in ("en", "es"):
        assert run("--help", "--lang", lang) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {verb} " in out for verb in cli.VERBS)
    assert "tasa" not in out
    assert "entrena" in out
    for words in (["--lang", "es"], ["--lang=es"]):
        assert run(*words) == 0
        assert capsys.readouterr().out == out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb_reads_like_documentation(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb, "--help") == 0
    out = capsys.readouterr().out
    assert "For example:" in out
    assert out.count(f"\n  yunque {verb}") >= 1  # an example stands on a line of its own
    assert f"yunque {verb}" in out
    for flag in ("--json", "--lang", "--quiet", "--debug"):
        assert flag in out


def test_unknown_verbs_flags_presets_and_languages_name_the_nearest(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    cases = [
        (["pretrian"], "'pretrain'"),
        (["pretrain", str(text), "--out", out, "--learning-rat", "1"], "--learning-rate"),
        (["pretrain", str(text), "--out", out, "--preset", "nan"], "'nano'"),
        (["pretrain", str(text), "--out", out, "--tokenizer", "chr"], "char"),
        (["demo", "--lang", "fr"], "unknown language 'fr'"),
    ]
    for words, hint in cases:
        assert run(*words) == 2, words
        assert hint in capsys.readouterr().err, words
    assert not Path(out).exists() or not list(Path(out).glob("log.jsonl"))


def test_bad_input_is_a_message_with_exit_code_2_and_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.toml").write_text("[train]\nsteps = \n")
    (tmp_path / "latin.txt").write_bytes("año".encode("latin-1"))
    out = str(tmp_path / "run")
    cases = [
        ["pretrain", str(tmp_path / "none.txt"), "--out", out],
        ["pretrain", str(tmp_path / "latin.txt"), "--out", out],
        ["pretrain", "x.txt", "--recipe", str(tmp_path / "broken.toml"), "--out", out],
        ["pretrain", "x.txt", "--recipe", str(tmp_path / "none.toml"), "--out", out],
        ["pretrain"],
        ["prepare", "--out", out],
        ["resume", str(tmp_path)],
        ["generate", str(tmp_path)],
        ["evaluate", str(tmp_path / "none"), "x.txt"],
        ["report", str(tmp_path / "none")],
    ]
    for words in cases:
        assert run(*words) == 2, words
        err = capsys.readouterr().err
        assert err.startswith("yunque: "), (words, err)
        assert "Traceback" not in err
    assert run("report", str(tmp_path / "none"), "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 2


def test_every_verb_answers_in_json(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path
) -> None:
    tokens, folder = str(tmp_path / "tokens"), str(tmp_path / "run")
    facts = answer(capsys, "prepare", str(text), "--out", tokens, "--tokenizer", "char")
    assert facts["characters"] == len(TEXT)
    assert sum(facts["tokens"].values()) == len(TEXT)
    again = answer(capsys, "prepare", str(text), "--out", tokens, "--tokenizer", "char")
    assert again["reused"] is True
    done = answer(capsys, "pretrain", tokens, "--out", folder, *SMALL)
    assert (done["reason"], done["steps"]) == ("steps", 4)
    assert answer(capsys, "resume", folder)["steps"] == 4
    made = answer(
        capsys, "generate", folder, "--prompt", "el", "--max-new-tokens", "5", "--samples", "2"
    )
    assert set(made) == {"prompt", "texts", "token_ids", "tokens_per_second"}
    assert len(made["texts"]) == len(made["token_ids"]) == 2
    assert all(len(ids) <= 5 for ids in made["token_ids"])
    score = answer(capsys, "evaluate", folder, str(text))
    assert set(score) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes", "exam"}
    assert score["tokens"] == len(TEXT) - 1
    assert score["bytes"] == len(TEXT.encode("utf-8")) - 1
    told = answer(capsys, "explain", folder, "--text", "el yunque")
    assert len(told["tokens"]) == 9
    assert told["tokens"][0]["probability"] is None
    report = answer(capsys, "report", folder)
    assert {"source", "facts", "verdict", "stages", "stop", "findings", "unknown"} <= set(report)
    assert report["facts"]["steps"] == 4
    checks = answer(capsys, "doctor")["checks"]
    assert {"python", "torch"} <= {check["id"] for check in checks}


def test_a_file_that_is_no_log_is_told_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], text: Path
) -> None:
    assert run("report", str(text), "--json") == 2
    value = json.loads(capsys.readouterr().out)
    assert [finding["id"] for finding in value["findings"]] == ["not_a_training_log"]


def test_greedy_is_temperature_zero_and_seeds_repeat(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path
) -> None:
    folder = str(tmp_path / "run")
    answer(capsys, "pretrain", str(text), "--out", folder, *SMALL)
    ask = ("generate", folder, "--prompt", "el", "--max-new-tokens", "8")
    greedy = [
        answer(capsys, *ask, "--temperature", "0", "--seed", seed)["token_ids"] for seed in "12"
    ]
    assert greedy[0] == greedy[1]
    sampled = [answer(capsys, *ask, "--seed", seed)["token_ids"] for seed in "112"]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_exactly(
    text: Path, tmp_path: Path, number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    long = [*SMALL, "--steps", "160", "--eval-every", "80"]
    words = [sys.executable, "-m", "yunque.cli", "pretrain", str(text), "--out", str(folder), *long]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count('"event": "step"') >= 5):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"yunque resume {folder}" in out
    assert "Traceback" not in err
    assert run("resume", str(folder), "--quiet") == 0
    assert run("pretrain", str(text), "--out", str(whole), *long, "--quiet") == 0
    capsys.readouterr()

    def losses(path: Path) -> list[tuple[int, float]]:
        rows = [row.values for row in read(path / "log.jsonl") if row.event == "step"]
        return [(row["step"], row["train_loss"]) for row in rows]

    assert losses(folder) == losses(whole)
    best = "best/model.safetensors"
    assert (folder / best).read_bytes() == (whole / best).read_bytes()


def test_a_second_run_in_the_same_folder_is_refused(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    assert run("pretrain", str(text), "--out", folder, *SMALL, "--quiet") == 0
    assert run("pretrain", str(text), "--out", folder, *SMALL, "--quiet") == 2
    assert "holds a run already" in capsys.readouterr().err


def test_recipe_then_flags(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('[train]\nsteps = 3\n[model]\npreset = "gpt2-124m"\nhidden_size = 24\n')
    parsed = verbs.parse(
        "pretrain", ["a.txt", "--recipe", str(recipe), "--steps", "7", "--num-heads", "3"]
    )
    assert parsed.train.steps == 7
    assert (parsed.model.hidden_size, parsed.model.num_heads) == (24, 3)
    assert (parsed.model.positions, parsed.model.num_layers) == ("learned", 12)
    assert parsed.sources == ("a.txt",)


def test_fit_is_short_for_all_the_memory_that_there_is() -> None:
    from yunque.errors import InputError
    from yunque.verbs import parse

    assert parse("pretrain", ["a.txt", "--out", "o", "--fit"]).machine.memory == "auto"
    assert parse("plan", ["--fit", "--batch-size", "2"]).machine.memory == "auto"
    with pytest.raises(InputError, match="short for --memory auto"):
        parse("plan", ["--fit", "--memory", "4GB"])


def test_shares_may_be_given_in_per_cent() -> None:
    from yunque.verbs import parse

    data = parse("prepare", ["a.txt", "--out", "o", "--val", "10%", "--test=2.5%"]).data
    assert (data.val, data.test) == (0.1, 0.025)
    assert parse("prepare", ["10%", "--out", "o", "--val", "0.2"]).sources == ("10%",)
