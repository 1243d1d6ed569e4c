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
    full = bool(request.config.getoption("--faults"))
    return lambda few, full_number: full_number if full else few


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Chance of this test alone: a single test repeats with the seed of the whole run."""
    return Random(f"{request.config.getoption('--seed')} {request.node.name}")


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what a test has counted; printed at the end of the run."""
    return lambda text: record_property("figures", text)


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL leaves what was written to either."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="yunque-faults-") as folder:
        yield Path(folder)
