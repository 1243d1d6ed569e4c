"""Faults, few or many: `make faults` runs them all; each prints its figures and its seed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest


@pytest.fixture
def many(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """(few, many) → how often a fault is tried in this run."""
    share = float(request.config.getoption("--faults"))
    return lambda few, promised: max(few, round(promised * share))


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Chance of this test alone: a single test repeats with the seed of the whole run."""
    return Random(f"{request.config.getoption('--seed')} {request.node.name}")


def processor_seconds() -> float:
    """Processor time of this process and of the children that it waited for."""
    return sum(os.times()[:4])


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what a test has counted; printed at the end of the run with what it took."""
    began = processor_seconds()

    def say(text: str) -> None:
        record_property("figures", text)
        record_property("processor", processor_seconds() - began)

    return say


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL leaves what was written to either."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="yunque-faults-") as folder:
        yield Path(folder)
