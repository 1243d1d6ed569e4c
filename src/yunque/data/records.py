"""STRUCTURED FILES → RECORDS, as a stream: json, jsonl, csv, tsv, parquet, data sets of the Hub.

Readers are strict: what could be understood in two ways, or would be lost, is an error that names
file and line, or, with skip_bad, a record that is listed and left out.

A .json file holds a list of objects, or one object with one list of objects in it, or an object of
equally long columns.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yunque.config import DataConfig
from yunque.data.encodings import ReadNotes, read_text
from yunque.errors import InputError, MissingPackageError
from yunque.files import storage_error

RECORD_CHARACTERS = 1 << 26
DEPTH = 64
COLUMNS = 10_000


@dataclass(frozen=True)
class Record:
    """One object or row; `line` (1-based) is where it begins, the row's number in .parquet."""

    fields: dict[str, Any]
    source: str
    line: int


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used, and why."""

    source: str
    line: int
    reason: str


OnBad = Callable[[BadRecord], None]


class Reader:
    """Reads one source; where `on_bad` is given, bad records go to it instead of being raised."""

    def __init__(self, name: str, on_bad: OnBad | None) -> None:
        self.name = name
        self.on_bad = on_bad

    def bad(self, line: int, reason: str) -> None:
        """Tell of a bad record, or stop at it.

        Raises:
            InputError: bad records may not be skipped.
        """
        if self.on_bad is None:
            raise InputError(f"{self.name}:{line}: {reason} Mend it, or skip it with --skip-bad.")
        self.on_bad(BadRecord(self.name, line, reason))

    def json_lines(self, texts: Iterable[str]) -> Iterator[Record]:
        """One object a line; empty lines are passed over."""
        for line, text in lines_of(texts, self.name):
            if not text.strip():
                continue
            value = self.parsed(text, line)
            if value is not None:
                yield Record(value, self.name, line)

    def json_list(self, texts: Iterable[str]) -> Iterator[Record]:
        """The objects of a list, one at a time; an object with a list in it is read whole."""
        scanner = Elements(texts, self.name)
        first = scanner.peek()
        if first == "{":
            yield from self.json_object("".join(scanner.rest()))
            return
        if first != "[":
            got = repr(first) if first else "nothing"
            raise InputError(
                f"{self.name}:{scanner.line}: expected a list of objects, '[', got {got}. One "
                "object a line is .jsonl: rename the file."
            )
        for line, text in scanner.elements():
            value = self.parsed(text, line)
            if value is not None:
                yield Record(value, self.name, line)

    def json_object(self, text: str) -> Iterator[Record]:
        """The records of a file that is one object."""
        try:
            whole = strict_json(text)
        except ValueError as fault:
            raise InputError(f"{self.name}:{line_of(fault)}: {reason_of(fault)}") from None
        lists = {key: value for key, value in whole.items() if isinstance(value, list)}
        rows = [key for key, value in lists.items() if value and isinstance(value[0], dict)]
        if len(rows) == 1 and not ("messages" in whole or "conversations" in whole):
            for number, value in enumerate(lists[rows[0]], 1):
                if isinstance(value, dict):
                    yield Record(value, f"{self.name}[{rows[0]}]", number)
                else:
                    self.bad(number, f"expected an object, got {kind(value)}.")
        elif whole and len(lists) == len(whole) and not rows:
            sizes = {key: len(value) for key, value in lists.items()}
            if len(set(sizes.values())) > 1:
                raise InputError(
                    f"{self.name}: columns of different lengths: {sizes}. Expected equal ones."
                )
            for number in range(next(iter(sizes.values()))):
                yield Record({k: v[number] for k, v in lists.items()}, self.name, number + 1)
        else:
            yield Record(whole, self.name, 1)

    def parsed(self, text: str, line: int) -> dict[str, Any] | None:
        """One object, or None where it is bad and may be skipped."""
        if len(text) > RECORD_CHARACTERS:
            self.bad(line, f"a record of {len(text)} characters; at most {RECORD_CHARACTERS}.")
            return None
        try:
            value = strict_json(text)
        except ValueError as fault:
            self.bad(line + line_of(fault) - 1, reason_of(fault))
            return None
        if not isinstance(value, dict):
            self.bad(line, f"expected an object, got {kind(value)}.")
            return None
        return value

    def table(self, texts: Iterable[str], delimiter: str) -> Iterator[Record]:
        """The rows of a csv or tsv file below its header."""
        header: list[str] = []
        for line, row, fault in rows_of(texts, delimiter, self.name):
            if fault:
                self.bad(line, fault)
            elif not header:
                header = [name.strip() for name in row]
                self.check_header(header, line, delimiter)
            elif row in ([], [""]):
                continue
            elif len(row) != len(header):
                self.bad(line, f"{len(row)} fields, but the header has {len(header)}.")
            else:
                yield Record(dict(zip(header, row, strict=True)), self.name, line)

    def check_header(self, header: list[str], line: int, delimiter: str) -> None:
        """A header names every column once."""
        twice = next((name for name in header if header.count(name) > 1), None)
        if len(header) > COLUMNS or twice is not None or "" in header:
            what = f"the column {twice!r} twice" if twice else "a column without a name"
            if len(header) > COLUMNS:
                what = f"{len(header)} columns"
            separator = "tab" if delimiter == "\t" else "comma"
            raise InputError(
                f"{self.name}:{line}: the header has {what}. Expected one name a column, "
                f"separated by {separator}s."
            )

    def parquet(self, path: Path, notes: ReadNotes) -> Iterator[Record]:
        """The rows of a parquet file, batch after batch."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise MissingPackageError(
                f"{path}: .parquet files need a package: pip install pyarrow"
            ) from None
        try:
            notes.bytes_read += path.stat().st_size
            with pyarrow.parquet.ParquetFile(path) as file:
                number = 0
                for batch in file.iter_batches(batch_size=1024):
                    for row in batch.to_pylist():
                        number += 1
                        yield Record(row, self.name, number)
        except pyarrow.ArrowException as error:
            first = str(error).split("\n")[0]
            raise InputError(f"{path}: not a readable .parquet file: {first}") from None
        except OSError as error:
            if error.errno is None:
                raise InputError(f"{path}: not a readable .parquet file: {error}") from None
            raise storage_error(error, path, "read") from None

    def hub(self, identity: str) -> Iterator[Record]:
        """The rows of a data set of the Hub, streamed."""
        try:
            import datasets
        except ImportError:
            raise MissingPackageError(
                f"{identity}: no such file or folder; data sets of the Hub need a package: "
                'pip install "yunque[data]"'
            ) from None
        name, _, split = identity.partition(":")
        try:
            rows = datasets.load_dataset(name, split=split or "train", streaming=True)
            for number, row in enumerate(rows, 1):
                yield Record(dict(row), self.name, number)
        except Exception as error:  # the library raises dozens of kinds, networks others
            first = str(error).split("\n")[0][:200]
            raise InputError(
                f"{identity}: no such file or folder, and the data set could not be read from the "
                f"Hub: {type(error).__name__}: {first}"
            ) from None


def read_records(
    kind: str,
    name: str,
    path: Path | None,
    settings: DataConfig,
    notes: ReadNotes,
    on_bad: OnBad | None = None,
) -> Iterator[Record]:
    """The records of a source, in order.

    Args:
        kind: json, jsonl, csv, tsv, parquet or hub.
        name: what messages call the source; the identity of a data set of the Hub.
        on_bad: called for each record that is left out. None: the first one is an error.

    Raises:
        InputError: a bad record, or a file that is not of its kind.
        StorageError: the file cannot be read.
    """
    reader = Reader(name, on_bad)
    if kind == "hub":
        yield from reader.hub(name)
        return
    assert path is not None
    if kind == "parquet":
        yield from reader.parquet(path, notes)
        return
    texts = read_text(path, settings, notes)
    if kind == "jsonl":
        yield from reader.json_lines(texts)
    elif kind == "json":
        yield from reader.json_list(texts)
    else:
        yield from reader.table(texts, "," if kind == "csv" else "\t")


def lines_of(texts: Iterable[str], name: str) -> Iterator[tuple[int, str]]:
    """(number, line) of a text in blocks; the last one may lack its line end."""
    held: list[str] = []
    size, number = 0, 1
    for text in texts:
        *whole, rest = text.split("\n")
        for line in whole:
            held.append(line)
            yield number, "".join(held)
            number += 1
            held, size = [], 0
        held.append(rest)
        size += len(rest)
        if size > RECORD_CHARACTERS:
            raise InputError(
                f"{name}:{number}: a line of more than {RECORD_CHARACTERS} characters; this is no "
                "file of one record a line."
            )
    if size:
        yield number, "".join(held)


class Elements:
    """The elements of a JSON list, found by their brackets and quotes, without reading it whole."""

    TOKENS = re.compile(r'["\[\]{},]')
    STRING = re.compile(r'"|\\.', re.DOTALL)

    def __init__(self, texts: Iterable[str], name: str) -> None:
        self._texts = iter(texts)
        self._buffer = ""
        self._name = name
        self.line = 1

    def peek(self) -> str:
        """The first character that is not white space; "" where there is none."""
        while True:
            start = len(self._buffer) - len(self._buffer.lstrip())
            if start < len(self._buffer):
                self.line += self._buffer.count("\n", 0, start)
                self._buffer = self._buffer[start:]
                return self._buffer[0]
            if not self._more():
                return ""

    def rest(self) -> Iterator[str]:
        """Everything from here on, up to the limit of a record."""
        size = 0
        yield self._buffer
        for text in self._texts:
            size += len(text)
            if size > RECORD_CHARACTERS:
                raise InputError(
                    f"{self._name}: one object of more than {RECORD_CHARACTERS} characters; write "
                    "it as a list of objects, or as .jsonl."
                )
            yield text

    def elements(self) -> Iterator[tuple[int, str]]:
        """(line, text) of each element of the list that begins here."""
        start = place = 1  # of this element and of the search, in the buffer
        depth, in_string = 0, False
        line = self.line  # of `start`
        while True:
            match = (self.STRING if in_string else self.TOKENS).search(self._buffer, place)
            if match is None:
                # A backslash at the end of a block waits for what it escapes.
                waits = in_string and self._buffer.endswith("\\")
                place = max(place, len(self._buffer) - waits) - start
                self._buffer, start = self._buffer[start:], 0
                if len(self._buffer) > RECORD_CHARACTERS:
                    raise InputError(
                        f"{self._name}:{line}: a record of more than {RECORD_CHARACTERS} "
                        "characters."
                    )
                if not self._more():
                    raise InputError(
                        f"{self._name}:{line}: the file ends inside this record or before the "
                        "list's ']'. It is cut short: get it again."
                    )
                continue
            place, found = match.end(), match.group()
            if in_string:
                in_string = found != '"'
            elif found == '"':
                in_string = True
            elif found in "[{":
                depth += 1
            elif found in "]}" and depth:
                depth -= 1
            elif found == "}":
                raise InputError(f"{self._name}:{line}: '}}' without its '{{'.")
            elif depth == 0:  # a comma or the list's end
                text = self._buffer[start : place - 1]
                lead = len(text) - len(text.lstrip())
                first = line + text.count("\n", 0, lead)
                line += text.count("\n")
                start = place
                if text.strip():
                    yield first, text.strip()
                elif found == ",":
                    raise InputError(f"{self._name}:{first}: a comma without a record before it.")
                if found == "]":
                    self._buffer, self.line = self._buffer[place:], line
                    if extra := self.peek():
                        raise InputError(
                            f"{self._name}:{self.line}: {extra!r} behind the end of the list."
                        )
                    return

    def _more(self) -> bool:
        text = next(self._texts, None)
        if text is None:
            return False
        self._buffer += text
        return True


def rows_of(
    texts: Iterable[str], delimiter: str, name: str
) -> Iterator[tuple[int, list[str], str]]:
    """(line where it begins, fields, fault) of each row; one of fields and fault is empty."""
    begun = 1
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for _, line in lines_of(texts, name):
            read += 1
            if read - begun > 10_000:
                raise InputError(
                    f"{name}:{begun}: a quoted field that goes on for 10,000 lines: its closing "
                    "quote is missing."
                )
            yield line + "\n"

    csv.field_size_limit(RECORD_CHARACTERS)
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        begun = read + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begun, [], f"not a row of {'csv' if delimiter == ',' else 'tsv'}: {error}."
            continue
        nul = any("\0" in cell for cell in row)
        yield begun, [] if nul else row, "a zero byte in the row." if nul else ""


def strict_json(text: str) -> Any:
    """JSON without NaN, Infinity, numbers beyond a float, keys that come twice, lone surrogates or
    nesting deeper than `DEPTH`.

    Raises:
        ValueError: with the reason; a json.JSONDecodeError has the place.
    """
    if "\\ud" in text or "\\uD" in text:
        check_surrogates(text)
    if deepest(text) > DEPTH:
        raise ValueError(f"nested deeper than {DEPTH} levels.")
    try:
        return json.loads(
            text,
            parse_constant=refuse_constant,
            parse_float=finite_float,
            parse_int=bounded_int,
            object_pairs_hook=single_keys,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH} levels.") from None


def deepest(text: str) -> int:
    """An upper bound of the nesting: brackets open at once, those in strings too where many."""
    if text.count("[") + text.count("{") <= DEPTH:
        return 0
    depth = most = 0
    in_string = False
    for token in re.findall(r'\\.|["\[\]{}]', text):
        if token == '"':
            in_string = not in_string
        elif in_string:
            continue
        elif token in "[{":
            depth += 1
            most = max(most, depth)
        elif token in "]}":
            depth -= 1
    return most


def check_surrogates(text: str) -> None:
    """Half of a surrogate pair is no character and cannot be written as UTF-8.

    Raises:
        ValueError: there is one.
    """
    for match in re.finditer(r"(?<!\\)(?:\\\\)*((?:\\u[0-9a-fA-F]{4})+)", text):
        units = [int(unit, 16) for unit in match.group(1).split("\\u")[1:]]
        try:
            b"".join(unit.to_bytes(2, "little") for unit in units).decode("utf-16-le")
        except UnicodeDecodeError:
            raise ValueError("half a surrogate pair (\\uD800 to \\uDFFF alone).") from None


def refuse_constant(name: str) -> Any:
    """NaN, Infinity and -Infinity are no JSON."""
    raise ValueError(f"{name} is no JSON number; write null or leave it out.")


def finite_float(text: str) -> float:
    """A number that a float can hold."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large for a float.")
    return value


def bounded_int(text: str) -> int:
    """A whole number of at most 100 digits."""
    if len(text) > 100:
        raise ValueError(f"a number of {len(text)} digits.")
    return int(text)


def single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} comes twice in one object.")
    return made


def line_of(fault: ValueError) -> int:
    """The line of a fault within its text, 1 where it is not known."""
    return fault.lineno if isinstance(fault, json.JSONDecodeError) else 1


def reason_of(fault: ValueError) -> str:
    """Why a text is no JSON."""
    if isinstance(fault, json.JSONDecodeError):
        return f"not JSON: {fault.msg} (column {fault.colno})."
    return str(fault)


def kind(value: Any) -> str:
    """What a JSON value is, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
