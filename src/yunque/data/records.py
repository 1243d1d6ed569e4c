"""One row of a source, with the place that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """One object of a json file or one row of a table; `line` (1-based) is where it begins."""

    fields: dict[str, Any]
    source: str
    line: int
