from __future__ import annotations
from dataclasses import dataclass
from typing import Any
@dataclass(frozen=True)
class Record:
    fields: dict[str, Any]
    source: str
    line: int
