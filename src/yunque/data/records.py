"""FILES → RECORDS: json, jsonl, csv, tsv and parquet as a stream, each record with file and line.

Every fault names file and line; with `on_bad` the record is left out and told of instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from yunque.config import DataConfig
from yunque.data.encodings import COMPRESSIONS, DEFAULT, OnBad, ReadNotes, decoded
from yunque.data.json_records import read_json, read_jsonl
from yunque.data.reader import Reader, Record
from yunque.data.tables import read_parquet, read_table


def read_records(
    path: Path,
    config: DataConfig = DEFAULT,
    notes: ReadNotes | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[Record]:
    """The records of a .json, .jsonl, .csv, .tsv or .parquet file, also compressed.

    Text values are normalised as [data] asks (newlines, normalise).

    Args:
        notes: what was found and done is written into it.
        on_bad: called for each record that cannot be read, which is then left out; without it
            such a record is an error.

    Raises:
        InputError: a record that cannot be read, with file, line and reason; a file that is no
            such file at all, or a record that would fill the memory, also with `on_bad`.
        StorageError: the file cannot be read.
        MissingPackageError: the package for .zst or .parquet is absent.
    """
    notes = notes if notes is not None else ReadNotes()
    reader = Reader(str(path), config, notes, on_bad)
    kind = record_kind(path)
    if kind == ".parquet":
        yield from read_parquet(path, reader)
        return
    blocks = decoded(path, config, notes, escape=on_bad is not None)
    if kind == ".jsonl":
        notes.layout = "lines"
        yield from read_jsonl(blocks, reader)
    elif kind == ".json":
        yield from read_json(blocks, reader)
    else:
        yield from read_table(blocks, reader, tabs=kind == ".tsv")


def record_kind(path: Path) -> str:
    """The suffix that says what a file holds, without that of its compression."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix
