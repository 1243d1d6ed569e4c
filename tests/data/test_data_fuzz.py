"""Broken files by the thousand: named or listed. `make faults` reads 20,000 of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from broken_sources import fuzz

from yunque.data import encodings


@pytest.mark.parametrize("seed", [1, 2])
def test_broken_files_are_named_or_listed(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "BLOCK_BYTES", [1 << 17, 50][seed % 2])
    ends = fuzz(tmp_path, seed, 1200)
    print(f"seed {seed}: {ends}")
    assert sum(ends.values()) == 2400
    assert min(ends.values()) > 200, ends
