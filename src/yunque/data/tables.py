"""CSV, TSV, PARQUET → RECORDS: a row is a record, its fields under the names of the columns."""

from __future__ import annotations

import contextlib
import csv
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from yunque.data.encodings import (
    COMPRESSIONS,
    Damaged,
    ReadNotes,
    byte_blocks,
    byte_fault,
    utf8_size,
)
from yunque.data.reader import (
    MAX_BLANK,
    RECORD_CHARACTERS,
    Fault,
    Reader,
    Record,
    lines_of,
    text_size,
)
from yunque.errors import InputError, MissingPackageError, StorageError
from yunque.files import storage_error

PARQUET_ROWS = 256
ROW_LINES = 50_000  # a field of more lines is a forgotten quote
HEADER_CHARACTERS = 80  # a longer first field is data, not the name of a column
DELIMITERS = ",;\t|"  # the first of them that parts the first row
SEPARATOR_LINE = re.compile(r"sep=([^\w\s\"]|\t)\r?\n?")  # how Excel is told of another one
NUMBER = re.compile(r"[-+]?[\d.,]*\d[\d.,]*(?:[eE][-+]?\d+)?")


class Feed:
    """Lines for a table reader, which remembers those of the present row."""

    def __init__(self, lines: Iterator[tuple[str, int]]) -> None:
        self.lines = lines
        self.again: deque[tuple[str, int]] = deque()
        self.taken: list[tuple[str, int]] = []
        self.length = 0

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> str:
        item = self.again.popleft() if self.again else next(self.lines)
        self.taken.append(item)
        self.length += len(item[0])
        if self.length > RECORD_CHARACTERS:
            raise Fault(f"a row of more than {RECORD_CHARACTERS >> 20} MB; is a quote missing?")
        if len(self.taken) > ROW_LINES:
            raise Fault(f"a quote that opens here is not closed in {ROW_LINES:,} lines")
        return item[0]

    def next_row(self) -> None:
        """Forget the lines of the present row."""
        self.taken, self.length = [], 0

    def only_first(self) -> tuple[str, int]:
        """The first line of the present row; its others will be read again."""
        first, *others = self.taken
        self.again.extendleft(reversed(others))
        return first


def read_table(blocks: Iterable[str], reader: Reader, tabs: bool) -> Iterator[Record]:
    """The rows of a csv or tsv file, quoted as RFC 4180 says, as texts under column names."""
    feed = Feed(lines_of(blocks, reader))
    # One limit for all of Python; the largest record is ours to bound.
    csv.field_size_limit(max(csv.field_size_limit(), RECORD_CHARACTERS))
    reader.notes.layout = "table"
    delimiter = delimiter_of(feed, reader, tabs)
    reader.notes.delimiter = delimiter
    names: list[str] = []
    blank: list[int] = []  # lines; not a fault at the end of the file
    rows = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.next_row()
        try:
            row = next(rows)
        except StopIteration:
            break
        except (csv.Error, Fault) as error:
            line, number = feed.only_first()
            if not names:
                raise InputError(
                    f"{reader.source}:{number}: {table_fault(error)} in the first row. Mend it."
                ) from None
            text = line.rstrip("\r\n")
            reader.structure(len(line) - len(text))
            reader.bad(table_fault(error), number, text)
            rows = csv.reader(feed, delimiter=delimiter, strict=True)
            continue
        line, number = feed.taken[0]
        if len(feed.taken) > 1:
            line = "".join(text for text, _ in feed.taken)
        text = line.rstrip("\r\n")
        reader.structure(len(line) - len(text))
        if not row:
            if len(blank) < MAX_BLANK:
                blank.append(number)
            else:
                reader.bad("a blank line, expected a row", number)
            continue
        for at in blank:
            reader.bad("a blank line, expected a row", at)
        blank = []
        if not names:
            names = column_names(row, reader, number)
            if reader.notes.header:
                reader.structure(utf8_size(text))
                continue
        fault = byte_fault(text, reader.notes.encoding)
        if not fault and "\0" in text:
            fault = "a zero byte"
        if not fault and len(row) != len(names):
            expected = f"{len(names)} ({', '.join(names)[:80]})"
            fault = f"{len(row)} fields, expected {expected}; a field with {delimiter!r} or a line "
            fault += "break in it must stand in quotes"
        if fault:
            reader.bad(fault, number, text)
            continue
        fields = dict(zip(names, row, strict=True))
        record = reader.record(fields, text, number, utf8_size(text))
        if record:
            yield record


def table_fault(error: Exception) -> str:
    """What the table reader found, in our words."""
    text = str(error)
    if "unexpected end of data" in text:
        return "a quote that opens in this row is never closed"
    if "expected after" in text:
        return "a quote inside a quoted field; write it twice"
    if "new-line character" in text:
        return "a lone carriage return; save the file with LF or CRLF line ends"
    return text


def delimiter_of(feed: Feed, reader: Reader, tabs: bool) -> str:
    """What a first line `sep=X` says; else tab in a .tsv, in a .csv what the first row has."""
    first = next(iter(feed), "")
    said = SEPARATOR_LINE.fullmatch(first)
    if said:
        reader.structure(utf8_size(first))
        return said[1]
    feed.again.extend(feed.taken)
    if tabs:
        return "\t"
    return next((found for found in DELIMITERS if fields_in(first, found) > 1), DELIMITERS[0])


def fields_in(line: str, delimiter: str) -> int:
    """How many fields a first line has, 0 where it is none."""
    try:
        return max((len(row) for row in csv.reader([line], delimiter=delimiter)), default=0)
    except csv.Error:
        return 0


def column_names(row: list[str], reader: Reader, line: int) -> list[str]:
    """The names of the columns: the first row, or 1, 2, 3… where it is data; noted in `header`.

    Raises:
        InputError: two columns of one name.
    """
    names = [name.strip() for name in row]
    asked = reader.config.header
    likely = all(
        len(name) <= HEADER_CHARACTERS and "\n" not in name and not NUMBER.fullmatch(name)
        for name in names
    ) and any(names)
    reader.notes.header = asked == "yes" or (asked == "auto" and likely)
    if not reader.notes.header:
        return [str(number) for number in range(1, len(row) + 1)]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise InputError(
            f"{reader.source}:{line}: two columns are called {twice[0]!r}. Give each column its "
            "own name, or give --header no if the first row is data."
        )
    return names


def read_parquet(path: Path, reader: Reader) -> Iterator[Record]:
    """The rows of a parquet file, a few hundred at a time.

    The columns are packed, so `structure_bytes` is what the file holds besides the texts, and
    less than nothing where packing saved more than structure took.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingPackageError(
            f'{path}: reading .parquet files needs the package pyarrow: pip install "pyarrow>=17"'
        ) from None
    notes = reader.notes
    notes.layout = "parquet"
    row = 0
    with unpacked(path, notes) as handle:
        try:
            table = parquet.ParquetFile(handle)
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                for at in range(batch.num_rows):
                    row += 1
                    try:
                        (fields,) = batch.slice(at, 1).to_pylist()
                    except UnicodeDecodeError as error:
                        reader.bad(f"text that is not UTF-8 ({error.reason})", row)
                        continue
                    except (ValueError, OverflowError) as error:
                        if isinstance(error, pyarrow.ArrowException):
                            raise
                        reader.bad(f"a date that Python does not know ({error})", row)
                        continue
                    size = text_size(fields)
                    notes.text_bytes += size
                    record = reader.record(fields, "", row, size)
                    if record:
                        yield record
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise storage_error(error, path, "read") from None
            raise InputError(
                f"{path}:{row + 1}: not readable as parquet ({error}). Expected a whole parquet "
                "file; write it anew."
            ) from None
    notes.structure_bytes = notes.bytes_read - notes.text_bytes - notes.bad_bytes


@contextlib.contextmanager
def unpacked(path: Path, notes: ReadNotes) -> Iterator[IO[bytes]]:
    """The file opened for reading anywhere in it; where compressed, unpacked on disk first."""
    try:
        if path.suffix.lower() not in COMPRESSIONS:
            notes.bytes_read = path.stat().st_size
            with path.open("rb") as handle:
                yield handle
            return
        with tempfile.TemporaryFile() as handle:
            try:
                for block in byte_blocks(path, notes):
                    handle.write(block)
            except Damaged as fault:
                raise InputError(f"{path}:1: {fault}. Expected a whole compressed file.") from None
            handle.seek(0)
            yield handle
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, path, "unpack") from None
