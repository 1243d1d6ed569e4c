"""What is known of this machine, kept between runs: its rates and what past forecasts came to.

Two small JSON files in the user's cache folder, the only place outside a run that Yunque keeps
anything of its own in. Losing them costs a measurement of some seconds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from yunque import files
from yunque.errors import InputError, StorageError
from yunque.forecast.history import KEPT, Outcome, from_json
from yunque.forecast.machine import Machine

FORMAT = 3
"""Raised with the arithmetic of forecasts: outcomes of the old would correct the new wrongly."""


def folder() -> Path:
    """Where it is kept."""
    return Path.home() / ".cache" / "yunque"


def read(name: str) -> Any:
    """A file of the store; None where it is missing, broken or of another form."""
    try:
        value = files.read_json(folder() / name)
    except (InputError, StorageError):
        return None
    return value if isinstance(value, dict) and value.get("format") == FORMAT else None


def kept_machine(key: str) -> Machine | None:
    """This machine as it was measured for `key` (device, precision, threads, PyTorch)."""
    found = (read("machines.json") or {}).get("machines", {}).get(key)
    if found is None:
        return None
    try:
        return Machine.from_json(found)
    except (KeyError, TypeError):
        return None


def keep_machine(key: str, machine: Machine) -> None:
    """Keep what was measured; where the cache cannot be written, it is measured again next time."""
    known = (read("machines.json") or {}).get("machines", {})
    write("machines.json", {"format": FORMAT, "machines": {**known, key: machine.to_json()}})


def outcomes() -> list[Outcome]:
    """What past forecasts came to, oldest first."""
    return from_json((read("outcomes.json") or {}).get("outcomes", []))


def add_outcome(outcome: Outcome) -> None:
    """Keep one more outcome, and of all the newest."""
    rows = [dataclasses.asdict(one) for one in [*outcomes(), outcome][-KEPT:]]
    write("outcomes.json", {"format": FORMAT, "outcomes": rows})


def write(name: str, value: dict[str, Any]) -> None:
    """Write a file of the store. A store that cannot be written is no fault of the run."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        files.write_json(folder() / name, value)
    except (OSError, StorageError):
        return
