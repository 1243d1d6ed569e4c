"""The table of faults names tests that exist, and every fault has one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_fault_has_tests_that_exist() -> None:
    table = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| F(\d+) \|(.*)\|$", table, re.MULTILINE)
    assert [int(number) for number, _ in lines] == list(range(1, 34))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for number, line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named, f"F{number} names no test"
        assert set(named) <= there, f"F{number}: {set(named) - there} is not there"
