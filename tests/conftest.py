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
    parser.addoption("--faults", action="store_true", help="every fault as often as promised")
    parser.addoption("--seed", default="1", help="seed of the faults that are drawn by chance")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The figures of the fault tests, from this run itself."""
    done = [
        f"{text}"
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name == "figures" and report.when == "call" and report.passed
    ]
    if done:
        terminalreporter.section(f"faults, seed {config.getoption('--seed')}")
        for line in sorted(done):
            terminalreporter.write_line(line)
