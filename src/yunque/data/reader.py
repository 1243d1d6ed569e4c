"""What all record readers share: the record, the fault, and how a bad record is told of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from yunque.config import DataConfig
from yunque.data.encodings import (
    ESCAPED,
    OnBad,
    ReadNotes,
    bad_record,
    left_out,
    normalised,
    too_long,
    utf8_size,
    with_line_ends,
)
from yunque.errors import InputError

RECORD_CHARACTERS = 1 << 26
MAX_DEPTH = 64
MAX_BLANK = 1000  # so many blank lines may end a file


@dataclass(frozen=True)
class Record:
    """One object of a list or row of a table.

    `line` (1-based) is where it begins in `source`; in parquet, Hub data sets and JSON
    columns it is the row.
    `size`: its bytes as it stands in the file, in UTF-8 (parquet: of its texts; 0 for a row of
    JSON columns).
    `number` (1-based): which record of the file it is, where others stand in the same line; else 0.
    """

    fields: dict[str, Any]
    source: str
    line: int
    size: int = 0
    number: int = 0

    @property
    def where(self) -> str:
        """File and line for a message, and which record where the line does not tell."""
        return f"{self.source}:{self.line}{': ' * bool(self.number)}{record_named(self.number)}"


class Fault(Exception):
    """Why a text is no record; the caller knows file and line."""


@dataclass(frozen=True)
class Reader:
    """What every reader needs to make records and to tell of faults."""

    source: str
    config: DataConfig
    notes: ReadNotes
    on_bad: OnBad | None

    def record(
        self, fields: Any, text: str, line: int, size: int, number: int = 0
    ) -> Record | None:
        """A record of cleaned fields, or None where they were bad and left out."""
        try:
            if not isinstance(fields, dict):
                raise Fault(f"{named(fields)}, expected an object with named fields")
            fields = self.clean(fields, 0)
        except Fault as fault:
            self.bad(str(fault), line, text, size, number)
            return None
        self.notes.records += 1
        return Record(fields, self.source, line, size, number)

    def bad(
        self, reason: str, line: int, content: str = "", size: int | None = None, number: int = 0
    ) -> None:
        """Leave a record out and tell of it, or refuse to go on.

        Args:
            size: bytes that are left out; those of `content` where it is not given.
            number: as in `Record`.
        """
        if number:
            reason = f"{record_named(number)}: {reason}"
        if self.on_bad is None:
            raise InputError(
                f"{self.source}:{line}: {reason}. Mend it, or leave such records out (and have "
                "them listed) with --skip-bad."
            )
        bad = bad_record(self.source, line, reason, content, size)
        self.notes.text_bytes -= bad.size
        left_out(bad, self.notes, self.on_bad)

    def structure(self, size: int) -> None:
        """Count bytes that stand between records."""
        self.notes.structure_bytes += size
        self.notes.text_bytes -= size

    def clean(self, value: Any, depth: int) -> Any:
        """The value with its texts normalised.

        Raises:
            Fault: half a surrogate pair, or nested too deeply.
        """
        if isinstance(value, str):
            if not value.isascii() and ESCAPED.search(value):
                raise Fault("half a surrogate pair (\\ud800 to \\udfff), which is no character")
            if "\r" in value:
                value = with_line_ends(value, self.config.newlines == "lf", self.notes)
            return normalised(value, self.notes) if self.config.normalise == "nfc" else value
        if isinstance(value, (dict, list)) and depth >= MAX_DEPTH:
            raise Fault(f"nested more than {MAX_DEPTH} deep")
        if isinstance(value, list):
            return [self.clean(item, depth + 1) for item in value]
        if isinstance(value, dict):
            for key in value:
                if isinstance(key, str) and not key.isascii() and ESCAPED.search(key):
                    raise Fault("half a surrogate pair in the name of a field")
            return {key: self.clean(item, depth + 1) for key, item in value.items()}
        return value


def record_named(number: int) -> str:
    """ "record 42", or "" where the line tells which one it is."""
    return f"record {number:,}" if number else ""


def text_size(value: Any) -> int:
    """UTF-8 bytes of all texts in a value."""
    if isinstance(value, str):
        return utf8_size(value)
    if isinstance(value, dict):
        return sum(map(text_size, value.values()))
    if isinstance(value, list):
        return sum(map(text_size, value))
    return 0


def named(value: Any) -> str:
    """What kind of JSON value this is, in words."""
    names: dict[type, str] = {
        str: "a text",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def lines_of(blocks: Iterable[str], reader: Reader) -> Iterator[tuple[str, int]]:
    """(line with its line feed, number), none longer than RECORD_CHARACTERS and a block.

    Only LF ends a line: U+2028 and the like may stand in a JSON text.
    """
    held: list[str] = []
    length, number = 0, 1
    for block in blocks:
        first, *others = block.split("\n")
        held.append(first)
        length += len(first)
        for following in others:
            yield "".join(held) + "\n", number
            number += 1
            held, length = [following], len(following)
        if length > RECORD_CHARACTERS:
            raise InputError(too_long(reader.source, number, RECORD_CHARACTERS, "a line"))
    last = "".join(held)
    if last:
        yield last, number
