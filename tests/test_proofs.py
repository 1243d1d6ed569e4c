"""The longer proofs, run by `make proofs`: the demo reaches its aim; memory ignores the corpus."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

LINE = "En la fragua suena el yunque, y nadie cuenta las chispas que se apagan en el suelo.\n"
SMALL = ["--context-length", "64", "--hidden-size", "32", "--num-heads", "2", "--num-layers", "2"]


def run(*words: str) -> tuple[dict[str, Any], float]:
    """The JSON answer of a verb in a process of its own, and that process's peak memory in MB."""
    code = (
        "import resource, sys, yunque.cli\n"
        "code = yunque.cli.main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--json", "--quiet"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), float(done.stderr.split()[-1])


@pytest.mark.slow
def test_the_demo_learns_sums_it_never_saw(tmp_path: Path) -> None:
    """At least 90 % of two-digit additions and subtractions, in Spanish and English."""
    done, _ = run("demo", "--out", str(tmp_path / "demo"))
    kinds = done["exam"]["kinds"]
    print(f"demo: {done['seconds']:.0f} s, exam {kinds}, validation loss {done['best_loss']:.4f}")
    for kind in ("addition", "subtraction"):
        right, total = kinds[kind]
        assert right >= 0.9 * total, kinds


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """1 MB against 500 MB of text: preparing and training."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    peaks: dict[str, list[float]] = {"prepare": [], "pretrain": []}
    for size in (1_000_000, 500_000_000):
        text, tokens = tmp_path / f"{size}.txt", tmp_path / f"tokens-{size}"
        # In parts: the peak of a process that starts another counts as that of the other, too.
        part = LINE.encode("utf-8") * 10_000
        with text.open("wb") as handle:
            for _ in range(max(1, size // len(part))):
                handle.write(part)
        facts, peak = run("prepare", str(text), "--out", str(tokens), "--tokenizer", "byte")
        peaks["prepare"].append(peak)
        print(
            f"prepare {size / 1e6:.0f} MB: {facts['megabytes_per_second']:.1f} MB/s, {peak:.0f} MB"
        )
        _, peak = run(
            *("pretrain", str(tokens), "--out", str(tmp_path / f"run-{size}"), *SMALL),
            *("--steps", "20", "--eval-every", "10", "--batch-size", "8", "--sample-tokens", "0"),
        )
        peaks["pretrain"].append(peak)
        print(f"pretrain {size / 1e6:.0f} MB: {peak:.0f} MB")
        text.unlink()
    for verb, (small, large) in peaks.items():
        assert large < small + 100, (verb, small, large)


@pytest.mark.slow
def test_another_process_prepares_the_data_of_the_demo(tmp_path: Path) -> None:
    from yunque.assemble.demo import RECIPE, preparing
    from yunque.assemble.tutor import prepare_tutor

    with preparing(tmp_path, "en"):
        pass  # there is a run already: nothing is prepared
    assert not (tmp_path / "data").exists()
    with preparing(tmp_path / "run", "en"):
        pass
    assert prepare_tutor(RECIPE.data, tmp_path / "run" / "data").facts["reused"]


@pytest.mark.slow
def test_the_demo_begins_at_once(tmp_path: Path) -> None:
    """Seconds from the command to the first update; 30 of them are too many on any machine.

    The data is that of a process of its own, which the run only opens.
    """
    folder = tmp_path / "demo"
    began = time.perf_counter()
    command = [sys.executable, "-m", "yunque", "demo", "--out", str(folder), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    log = folder / "log.jsonl"
    try:
        while process.poll() is None and time.perf_counter() - began < 120:
            if log.is_file() and '"event": "step"' in log.read_text(encoding="utf-8"):
                break
            time.sleep(0.01)
        seconds = time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
    print(f"first update of the demo after {seconds:.1f} s")
    assert '"event": "step"' in log.read_text(encoding="utf-8")
    assert seconds < 30
    assert (folder / "data" / "ledger.html").is_file()
    facts = json.loads((folder / "data" / "data.json").read_text(encoding="utf-8"))["facts"]
    assert facts["splits"]["train"]["documents"] == 40_000
