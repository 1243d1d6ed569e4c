"""Seconds from the command to the first update of `yunque demo`: python bench/demo_start.py [TIMES]

Starts the command TIMES times (3), each in a new folder, reads its log until the first `step` row
stands there, and ends it. Prints the wall time and the processor time, helpers included, of each.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 300.0  # seconds until it counts as failed


def first_step(run: Path) -> float:
    """Seconds of wall time from the start of the process to the first `step` row."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "yunque", "demo", "--out", str(run), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    log = run / "log.jsonl"
    try:
        while process.poll() is None and time.perf_counter() - began < LIMIT:
            if log.is_file() and '"event": "step"' in log.read_text(encoding="utf-8"):
                return time.perf_counter() - began
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    raise RuntimeError(f"no first update after {time.perf_counter() - began:.0f} s")


def main() -> None:
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        before = used()
        with tempfile.TemporaryDirectory() as folder:
            seconds = first_step(Path(folder) / "run")
        print(
            json.dumps(
                {"run": number + 1, "wall": round(seconds, 2), "cpu": round(used() - before, 2)}
            )
        )


def used() -> float:
    """Processor seconds of all children that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
