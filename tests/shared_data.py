"""Where the optional real-data folder is; tests that need it skip with a reason without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("YUNQUE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def shared(name: str) -> Path:
    """Path of `name` in the shared data folder; skips the calling test where it is absent."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"needs {name} of the shared data folder (set YUNQUE_TEST_DATA)")
    return path
