"""Test settings: quiet, single-threaded arithmetic, no network."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# What is kept of this machine between runs (forecast/store.py) is not the tests' to change.
os.environ["HOME"] = tempfile.mkdtemp(prefix="yunque-tests-")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "faults"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        nargs="?",
        const=1.0,
        default=0.0,
        type=float,
        metavar="SHARE",
        help="every fault as often as promised, or so large a share of that",
    )
    parser.addoption("--seed", default="1", help="seed of the faults that are drawn by chance")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The figures of the fault tests, from this run itself, and what each of them took."""
    done = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            told = dict(getattr(report, "user_properties", ()))
            if "figures" in told and report.when == "call" and report.passed:
                seconds = f"{report.duration:7.1f} s {told['processor']:7.1f} s"
                done.append((told["figures"], seconds, report.duration))
    if not done:
        return
    terminalreporter.section(f"faults, seed {config.getoption('--seed')}")
    terminalreporter.write_line("  clock   processor")
    for text, seconds, _ in sorted(done):
        terminalreporter.write_line(f"{seconds}  {text}")
    terminalreporter.write_line(f"{sum(took for *_, took in done):7.1f} s in all")
