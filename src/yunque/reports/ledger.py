"""RUN/ledger.json → a value that the page can trust, or where it is damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yunque.words.ledger import UNITS, WORDS

EXAMPLES = 3
"""Records shown token by token."""
LIMIT_BYTES = 20_000_000
TOKENS = 2000
"""Tokens of an example at most."""


@dataclass(frozen=True)
class Ledger:
    """Equations by unit, sources, and a few records token by token."""

    accounts: Mapping[str, Mapping[str, int]]
    """Unit → what was read, where it went, and `error`: the difference, recomputed."""
    sources: tuple[Mapping[str, Any], ...]
    examples: tuple[Mapping[str, Any], ...]
    left_aside: Mapping[str, int]
    """Ending → files of folders that were not read."""


class Damage(ValueError):
    """What the ledger should hold and does not; its text is the place."""


def read_ledger(file: Path) -> tuple[Ledger | None, str]:
    """(ledger, "") or (None, the place of the damage); (None, "") where there is no such file."""
    if not file.is_file():
        return None, ""
    try:
        if file.stat().st_size > LIMIT_BYTES:
            raise Damage("size")
        found = json.loads(file.read_bytes().decode("utf-8"))
        return ledger_of(found), ""
    except Damage as damage:
        return None, str(damage)
    except (ValueError, RecursionError):
        return None, "JSON"
    except OSError as error:
        return None, type(error).__name__


def ledger_of(found: object) -> Ledger:
    """A ledger as it was written, its equations worked out anew.

    Raises:
        Damage: it is not one, at the place that the error names.
    """
    if not isinstance(found, dict):
        raise Damage("JSON")
    accounts = {unit: account(unit, found[unit]) for unit in UNITS if unit in found}
    if not accounts:
        raise Damage(", ".join(UNITS))
    sources = [source(i, one) for i, one in enumerate(listed(found, "sources"))]
    examples = [example(i, one) for i, one in enumerate(listed(found, "examples")[:EXAMPLES])]
    aside = found.get("left_aside", {})
    if not isinstance(aside, dict) or not all(type(n) is int and n > 0 for n in aside.values()):
        raise Damage("left_aside")
    return Ledger(accounts, tuple(sources), tuple(examples), aside)


def account(unit: str, found: object) -> dict[str, int]:
    """One equation: what was read and its parts."""
    if not isinstance(found, dict) or "read" not in found:
        raise Damage(f"{unit}.read")
    for name, count in found.items():
        if type(count) is not int or (count < 0 and name != "error"):
            raise Damage(f"{unit}.{name}")
        if name != "error" and f"ledger.{name}" not in WORDS:
            raise Damage(f"{unit}.{name}")
    parts = sum(n for name, n in found.items() if name not in ("read", "error"))
    return {**found, "error": found["read"] - parts}


def listed(found: dict[str, Any], name: str) -> list[Any]:
    """A list of the ledger, empty where it is absent."""
    value = found.get(name, [])
    if not isinstance(value, list):
        raise Damage(name)
    return value


def source(number: int, found: object) -> dict[str, Any]:
    """One source; a count that is absent is None."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise Damage(f"sources[{number}].name")
    counts = {name: found.get(name) for name in ("documents", "tokens", "with_loss")}
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < 0):
            raise Damage(f"sources[{number}].{name}")
    return {"name": found["name"], "encoding": str(found.get("encoding", "")), **counts}


def example(number: int, found: object) -> dict[str, Any]:
    """One record: where it stands, its split, its tokens and which of them carry loss."""
    place = f"examples[{number}]"
    if not isinstance(found, dict) or not isinstance(found.get("tokens"), list):
        raise Damage(f"{place}.tokens")
    for name in ("source", "line", "left_out"):
        if type(found.get(name)) is not int or found[name] < 0:
            raise Damage(f"{place}.{name}")
    if type(found.get("record", 0)) is not int or found.get("record", 0) < 0:
        raise Damage(f"{place}.record")
    if found.get("split") not in ("train", "val", "test"):
        raise Damage(f"{place}.split")
    for token in found["tokens"]:
        if not isinstance(token, list) or len(token) != 2 or not isinstance(token[0], str):
            raise Damage(f"{place}.tokens")
    more = max(0, len(found["tokens"]) - TOKENS)
    return {**found, "tokens": found["tokens"][:TOKENS], "left_out": found["left_out"] + more}
