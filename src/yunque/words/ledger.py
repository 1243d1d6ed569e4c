"""The ledger in words: its equations, and what the page and the terminal say around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yunque.words.writing import number

WORDS: dict[str, tuple[str, str]] = {
    "ledger.title": ("Where every token went", "A dónde ha ido cada token"),
    "ledger.documents": ("documents", "documentos"),
    "ledger.bytes": ("bytes of text", "bytes de texto"),
    "ledger.tokens": ("tokens", "tokens"),
    "ledger.epoch": ("places of an epoch", "posiciones de una época"),
    "ledger.read": ("read", "leídos"),
    "ledger.train": ("training", "entrenamiento"),
    "ledger.val": ("validation", "validación"),
    "ledger.test": ("test", "prueba"),
    "ledger.train_val": (
        "split over training and validation",
        "repartidos entre entrenamiento y validación",
    ),
    "ledger.train_test": (
        "split over training and test",
        "repartidos entre entrenamiento y prueba",
    ),
    "ledger.val_test": (
        "split over validation and test",
        "repartidos entre validación y prueba",
    ),
    "ledger.duplicate": ("dropped copies", "copias descartadas"),
    "ledger.blank": ("blank", "en blanco"),
    "ledger.bad": ("unreadable", "ilegibles"),
    "ledger.separators": ("separators", "separadores"),
    "ledger.trained": ("trained", "entrenados"),
    "ledger.with_loss": ("with loss", "con pérdida"),
    "ledger.masked": ("without loss", "sin pérdida"),
    "ledger.first": ("first of a document", "primeros de un documento"),
    "ledger.unused": ("left over in an epoch", "sobrantes de una época"),
    "ledger.truncated": ("cut off", "cortados"),
    "ledger.held_out": ("held out", "reservados"),
    "ledger.padding": ("padding", "relleno"),
    "ledger.left_aside": (
        "{count:,} {count:|file|files} in the folders left aside, of another kind: {names}.",
        "{count:,} {count:|archivo|archivos} de las carpetas sin leer, por ser de otro tipo: "
        "{names}.",
    ),
    "ledger.difference": ("difference {n}", "diferencia {n}"),
    "ledger.sources": ("Sources", "Fuentes"),
    "ledger.source": ("source", "fuente"),
    "ledger.encoding": ("encoding", "codificación"),
    "ledger.kind": ("kind", "tipo"),
    "ledger.examples": (
        "As the model sees it: it learns to write the marked tokens and only reads the others",
        "Así lo ve el modelo: aprende a escribir los tokens marcados y los demás solo los lee",
    ),
    "ledger.example": ("{place} ({split})", "{place} ({split})"),
    "ledger.record": ("{place}, record {n}", "{place}, registro {n}"),
    "ledger.left_out": ("… {n} more tokens", "… {n} tokens más"),
    "ledger.doubts": ("Look at this", "Mira esto"),
    "ledger.nothing": ("Nothing to remark.", "Nada que señalar."),
}

NAMED = 8  # kinds of files that were not read
UNITS = ("documents", "bytes", "tokens", "epoch")


def equation(unit: str, account: Mapping[str, Any], lang: str) -> str:
    """`tokens: read 120 = trained 100 + held out 20`; parts of 0 are left out."""
    from yunque.words import say

    parts = {name: n for name, n in account.items() if name not in ("read", "error") and n}
    terms = [f"{say(f'ledger.{name}', lang)} {number(n, lang)}" for name, n in parts.items()]
    right = " + ".join(terms)
    read = f"{say('ledger.read', lang)} " if unit != "epoch" else ""
    line = f"{say(f'ledger.{unit}', lang)}: {read}{number(account['read'], lang)} = {right or '0'}"
    if account.get("error"):
        line += f" ({say('ledger.difference', lang, n=number(account['error'], lang))})"
    return line


def example_place(example: Mapping[str, Any], names: Sequence[str], lang: str) -> str:
    """`chats.jsonl:12`, with the record where others share that line; of no file, `:12` alone."""
    from yunque.words import say

    source = example["source"]
    place = f"{names[source] if source < len(names) else ''}:{example['line']}"
    record = example.get("record", 0)
    return say("ledger.record", lang, place=place, n=number(record, lang)) if record else place


def left_aside(endings: Mapping[str, int], lang: str) -> list[str]:
    """What of the folders was not read, as one line; none where there is nothing to tell."""
    from yunque.words import say

    if not endings:
        return []
    names = [f"{name} ({number(n, lang)})" for name, n in endings.items()]
    shown = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return [say("ledger.left_aside", lang, count=sum(endings.values()), names=shown)]


def equations(ledger: Mapping[str, Any], lang: str) -> list[str]:
    """Every equation that a ledger holds, in order."""
    return [equation(unit, ledger[unit], lang) for unit in UNITS if unit in ledger]
