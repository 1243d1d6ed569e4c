"""SOURCES → FILES → DOCUMENTS: what the user named, and plain text as a stream of its parts.

Nothing here holds more than one block of a file in memory, except `read_documents`, which holds
the one document that it yields.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from yunque.config import DataConfig
from yunque.data.encodings import COMPRESSIONS, ReadNotes, read_text, suffix_of
from yunque.errors import InputError
from yunque.files import storage_error

KINDS = {
    ".txt": "text",
    ".md": "text",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
HUB_ID = re.compile(r"(hf:)?([\w.-]+/[\w.-]+)(:[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """One file, or one data set of the Hub.

    `kind`: text, json, jsonl, csv, tsv, parquet or hub; `path` is None for the last, whose `name`
    is its identity (owner/name, or owner/name:split).
    """

    name: str
    path: Path | None
    kind: str


@dataclass(frozen=True)
class Document:
    """One text of a source; `line` (1-based) is where it begins in the file `source`."""

    text: str
    source: str
    line: int


@dataclass(frozen=True)
class Part:
    """A stretch of one document; a document comes in one part or, where it is long, in several.

    `line` is where the document begins. `blank`: the document is nothing but white space (such a
    document always comes in one part).
    """

    text: str
    line: int
    first: bool
    last: bool
    blank: bool = False


def find_sources(sources: Sequence[str]) -> list[Source]:
    """What the user's words stand for, in the order given; folders and globs recursively, sorted.

    A file reached twice (by name and through its folder) is listed once. In a folder, files of
    other suffixes are left alone. `owner/name` that is no path is a data set of the Hub.

    Raises:
        InputError: no sources; a source is missing, has an unknown suffix or is no regular file; a
            folder or a glob without text files. All faults together.
    """
    if not sources:
        raise InputError("no sources given: name at least one file or folder with text or records.")
    accepted = ", ".join(KINDS) + ", each also with " + ", ".join(COMPRESSIONS)
    found: dict[Path | str, Source] = {}
    faults = []
    for source in sources:
        path = Path(source).expanduser()
        hub = HUB_ID.fullmatch(source)
        try:
            if path.is_dir():
                candidates = [item for item in path.rglob("*") if kind_of(item)]
                empty = "no text files in this folder"
            elif path.is_file() and kind_of(path):
                candidates, empty = [path], ""
            elif path.is_file():
                faults.append(
                    f"{source}: unknown kind of file {path.suffix or '(no suffix)'!r}; accepted: "
                    f"{accepted}. Plain text under another name: rename it to .txt."
                )
                continue
            elif path.exists():
                faults.append(f"{source}: neither a regular file nor a folder.")
                continue
            elif glob.has_magic(source):
                names = glob.glob(str(path), recursive=True)
                candidates = [Path(name) for name in names if kind_of(Path(name))]
                empty = "no text files match"
            elif hub and (hub.group(1) or not path.suffix):
                name = hub.group(2) + (hub.group(3) or "")
                found.setdefault(name, Source(name, None, "hub"))
                continue
            else:
                faults.append(f"{source}: no such file or folder.")
                continue
            files = sorted(item for item in candidates if item.is_file())
            if not files:
                faults.append(f"{source}: {empty} (accepted: {accepted}).")
            for item in files:
                found.setdefault(item.resolve(), Source(str(item), item, kind_of(item)))
        except OSError as error:
            raise storage_error(error, path, "read") from None
    if faults:
        raise InputError("\n".join(faults))
    return list(found.values())


def kind_of(path: Path) -> str:
    """How a file is read, by its suffix; "" where it is not."""
    return KINDS.get(suffix_of(path), "")


def read_stretches(
    path: Path, separator: str, settings: DataConfig, notes: ReadNotes
) -> Iterator[tuple[str, bool]]:
    """(text, whether the document ends behind it): the file cut at every separator."""
    buffer = ""
    for block in read_text(path, settings, notes):
        *done, buffer = (buffer + block).split(separator)
        for text in done:
            yield text, True
        # The last characters may be the beginning of a separator that ends in the next block.
        sure = len(buffer) - (len(separator) - 1)
        if sure > 0:
            yield buffer[:sure], False
            buffer = buffer[sure:]
    yield buffer, True


def read_parts(path: Path, settings: DataConfig, notes: ReadNotes) -> Iterator[Part]:
    """The documents of a file as a stream of parts; the separators themselves are not in them."""
    line = begin = 1
    lead = ""  # white space at the start of a document, held back until we know it is not blank
    inside = False
    breaks = settings.separator.count("\n")
    for text, last in read_stretches(path, settings.separator, settings, notes):
        if inside:
            yield Part(text, begin, first=False, last=last)
        else:
            lead += text
            if text.strip():
                yield Part(lead, begin, first=True, last=last)
                lead, inside = "", True
            elif last:
                yield Part(lead, begin, first=True, last=True, blank=True)
                lead = ""
        line += text.count("\n")
        if last:
            line += breaks
            begin, inside = line, False
