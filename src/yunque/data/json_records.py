"""JSON → RECORDS: strictly, as a stream.

A `.json` file may hold
- a list of objects, read item by item;
- objects one behind another (JSON lines under another name);
- one object: a record itself, or the only list of objects in it (`{"data": [{…}, …]}`), or
  columns of equal length (`{"question": ["…"], "answer": ["…"]}`). Such an object must fit into
  RECORD_CHARACTERS.

What Python alone would let pass (NaN, 1e999, a key twice, half a surrogate pair) is a fault.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from yunque.data.encodings import byte_fault, too_long, utf8_size
from yunque.data.reader import (
    MAX_BLANK,
    MAX_DEPTH,
    RECORD_CHARACTERS,
    Fault,
    Reader,
    Record,
    lines_of,
)
from yunque.errors import InputError

CONVERSATION_KEYS = {"messages", "conversations", "conversation"}
"""A list under one of these is one conversation, not a list of records."""

# What can be passed over inside a value without counting brackets: plain characters, whole strings,
# and lists and objects with no other inside. Possessive, so that nothing is tried again and again.
FLAT = r'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")'
SKIP = re.compile(rf"(?:{FLAT}|[\[{{]{FLAT}*+[\]}}])*+", re.DOTALL)
OPENING = re.compile(r"[\[{]++")
SCALAR = re.compile(r'"(?:[^"\\]++|\\.)*+"?+|[^ \t\r\n,\[\]{}"]++|[\]}]', re.DOTALL)
SPACE = re.compile(r"[ \t\r\n]*+")


@dataclass(frozen=True)
class Raw:
    """The text of a record before it is parsed; `cut`: the file ended inside it.

    `number`: as in `Record`.
    """

    text: str
    line: int
    cut: bool = False
    number: int = 0


def no_constant(text: str) -> NoReturn:
    raise Fault(f"{text}, which JSON does not know; write null or leave the field out")


def finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Fault(f"the number {text[:40]} is too large to be held")
    return value


def integer(text: str) -> int:
    if len(text) > 1000:
        raise Fault(f"a whole number of {len(text):,} digits")
    return int(text)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Fault(f"the field {key[:80]!r} stands twice in one object")
            seen.add(key)
    return fields


STRICT = json.JSONDecoder(
    object_pairs_hook=unique, parse_constant=no_constant, parse_float=finite, parse_int=integer
)


def strict_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        Fault: anything that is not JSON, a number that overflows, a key twice in one object.
    """
    try:
        return STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise Fault(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise Fault(f"nested more than {MAX_DEPTH} deep") from None


def parsed(raw: Raw, reader: Reader) -> Record | None:
    """The record of one JSON text, or None where it was bad and left out."""
    fault = byte_fault(raw.text, reader.notes.encoding)
    if not fault:
        try:
            fields = strict_json(raw.text)
        except Fault as error:
            fault = str(error)
            if raw.cut:
                fault = f"the file is cut off inside this record ({fault})"
    if fault:
        reader.bad(fault, raw.line, raw.text, number=raw.number)
        return None
    return reader.record(fields, raw.text, raw.line, utf8_size(raw.text), raw.number)


def without_blank_end(
    lines: Iterable[tuple[str, int]], reader: Reader
) -> Iterator[tuple[str, int]]:
    """The lines without the blank ones at the end; blank lines elsewhere are bad records."""
    blank: list[tuple[str, int]] = []
    for line, number in lines:
        if line.strip(" \t\r\n"):
            for text, at in blank:
                reader.bad("a blank line, expected a record", at, text)
            blank = []
            yield line, number
        elif len(blank) < MAX_BLANK:
            blank.append((line, number))
        else:
            reader.bad("a blank line, expected a record", number, line)
    reader.structure(sum(utf8_size(text) for text, _ in blank))


def read_jsonl(blocks: Iterable[str], reader: Reader) -> Iterator[Record]:
    """One object a line.

    Raises:
        InputError: it is written over several lines, as in a .json file.
    """
    for line, number in without_blank_end(lines_of(blocks, reader), reader):
        text = line.rstrip("\r\n")
        if number == 1 and text.strip() in ("{", "["):
            raise InputError(
                f"{reader.source}:1: the first record goes over several lines, but .jsonl has one "
                "record a line. Rename the file to .json, where it may."
            )
        reader.structure(len(line) - len(text))
        record = parsed(Raw(text, number, cut=not line.endswith("\n")), reader)
        if record:
            yield record


class Cursor:
    """A place in a stream of JSON text, with its line; holds one value at a time.

    `count` is told of the bytes that are passed over between values.
    """

    def __init__(
        self, blocks: Iterable[str], source: str, count: Callable[[int], None], line: int = 1
    ) -> None:
        self.blocks = iter(blocks)
        self.source = source
        self.count = count
        self.text = ""
        self.at = 0
        self.line = line

    def more(self) -> bool:
        """Read on, about as much again as is held, so that all scanning stays linear."""
        pieces = [self.text[self.at :]]
        wanted, got = min(max(1, len(pieces[0])), RECORD_CHARACTERS // 8 + 1), 0
        while got < wanted and (block := next(self.blocks, None)) is not None:
            pieces.append(block)
            got += len(block)
        self.text, self.at = "".join(pieces), 0
        return got > 0

    def take(self, end: int) -> str:
        """The text up to `end`, which is then behind us."""
        taken = self.text[self.at : end]
        self.line += taken.count("\n")
        self.at = end
        return taken

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            assert space is not None
            self.count(len(self.take(space.end())))
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def skip(self) -> None:
        """Go behind one character of structure."""
        self.count(utf8_size(self.take(self.at + 1)))

    def value(self) -> Raw:
        """The next value up to its last bracket; what is inside is not looked at."""
        line, depth, end = self.line, 0, self.at
        nested = self.text[end] in "[{"
        if nested:
            depth, end = 1, end + 1
        while True:
            found = (SKIP if nested else SCALAR).match(self.text, end)
            assert found is not None, self.text[end : end + 20]
            end = found.end()
            if not nested and end < len(self.text):
                return Raw(self.take(end), line)
            if end == len(self.text) or self.text[end] == '"':
                # The buffer ends here, or inside a string that begins here.
                held = end - self.at
                if len(self.text) - self.at > RECORD_CHARACTERS:
                    raise InputError(too_long(self.source, line, RECORD_CHARACTERS, "a record"))
                if not self.more():
                    return Raw(self.take(len(self.text)), line, cut=True)
                end = self.at + held if nested else self.at
            elif opening := OPENING.match(self.text, end):
                depth += opening.end() - end
                end = opening.end()
            else:
                depth -= 1
                end += 1
                if depth == 0:
                    return Raw(self.take(end), line)


def read_json(blocks: Iterable[str], reader: Reader) -> Iterator[Record]:
    """The records of a JSON file in any of the layouts that the module names."""
    cursor = Cursor(blocks, reader.source, reader.structure)
    first = cursor.peek()
    if first == "[":
        reader.notes.layout = "list"
        yield from records_of(list_items(cursor, reader), reader, cursor.line)
        end_of_file(cursor, reader)
        return
    if first != "{":
        found = f"begins with {first!r}" if first else "is empty"
        raise InputError(
            f"{reader.source}:{cursor.line}: {found}, expected JSON: a list of objects, or objects "
            "one behind another. Plain text belongs in a .txt file."
        )
    raw = cursor.value()
    if cursor.peek():
        reader.notes.layout = "lines"
        yield from records_of(itertools.chain([raw], values(cursor)), reader)
    else:
        yield from single_object(raw, reader)


def records_of(raws: Iterable[Raw], reader: Reader, begin: int = 0) -> Iterator[Record]:
    """The good ones, parsed; those that share a line are numbered.

    Args:
        begin: the line in which their list begins.
    """
    before = begin
    for number, raw in enumerate(raws, 1):
        if raw.line == before:
            raw = replace(raw, number=number)
        before = raw.line + raw.text.count("\n")
        record = parsed(raw, reader)
        if record:
            yield record


def values(cursor: Cursor) -> Iterator[Raw]:
    """Values one behind another up to the end of the file."""
    while first := cursor.peek():
        yield cursor.value() if first != "," else Raw(cursor.take(cursor.at + 1), cursor.line)


def list_items(cursor: Cursor, reader: Reader) -> Iterator[Raw]:
    """The items of a list whose bracket is next; goes behind its end."""
    begin = cursor.line
    cursor.skip()
    first = True
    while True:
        character = cursor.peek()
        if character == "]" and first:
            cursor.skip()
            return
        if not first:
            if character == "]":
                cursor.skip()
                return
            if character == ",":
                cursor.skip()
                character = cursor.peek()
                if character in ("]", ","):
                    if character == "]":
                        reader.bad("a comma with nothing behind it", cursor.line)
                    first = True
                    continue
            elif character:
                reader.bad(f"{character!r}, expected a comma or ] in the list", cursor.line)
        elif character == ",":
            reader.bad("a comma with nothing before it", cursor.line)
            cursor.skip()
            continue
        if not character:
            reader.bad(
                f"the file is cut off: the list that begins in line {begin} is never closed",
                cursor.line,
            )
            return
        yield cursor.value()
        first = False


def end_of_file(cursor: Cursor, reader: Reader) -> None:
    """Behind the last bracket there must be nothing."""
    if not cursor.peek():
        return
    line, excerpt = cursor.line, cursor.text[cursor.at : cursor.at + 40]
    if reader.on_bad is not None:
        rest = cursor.text[cursor.at :]
        reader.structure(utf8_size(rest) + sum(utf8_size(text) for text in cursor.blocks))
    reader.bad(f"{excerpt!r} behind the end of the list, expected the end of the file", line)


def single_object(raw: Raw, reader: Reader) -> Iterator[Record]:
    """A file that is one object: the records are in its only list, or its columns, or itself.

    Raises:
        InputError: where the records are cannot be told.
    """
    reason = byte_fault(raw.text, reader.notes.encoding)
    fields: Any = {}
    if not reason:
        try:
            fields = strict_json(raw.text)
        except Fault as fault:
            reason = f"the file is cut off ({fault})" if raw.cut else str(fault)
    if reason:
        reader.bad(reason, raw.line, raw.text)
        return
    notes, size = reader.notes, utf8_size(raw.text)
    lists = {key: value for key, value in fields.items() if isinstance(value, list)}
    tables = {
        key for key, value in lists.items() if value and all(isinstance(v, dict) for v in value)
    }
    if tables & CONVERSATION_KEYS or (not tables and len(lists) < len(fields)):
        notes.layout = "object"
        record = reader.record(fields, raw.text, raw.line, size)
        if record:
            yield record
        return
    if len(tables) == 1:
        (key,) = tables
        notes.layout = f"list under {key!r}"
        reader.structure(size)
        cursor = cursor_at(raw, key, reader)

        def items() -> Iterator[Raw]:
            for item in list_items(cursor, reader):
                reader.structure(-utf8_size(item.text))
                yield item

        yield from records_of(items(), reader, cursor.line)
        return
    lengths = {key: len(value) for key, value in lists.items()}
    if len(lists) == len(fields) and not tables and len(set(lengths.values())) == 1:
        notes.layout = "columns"
        for row in range(next(iter(lengths.values()))):
            record = reader.record({key: lists[key][row] for key in lists}, "", row + 1, 0)
            if record:
                yield record
        return
    shown = ", ".join(f"{key!r} ({length} items)" for key, length in list(lengths.items())[:6])
    raise InputError(
        f"{reader.source}:{raw.line}: one object with the lists {shown}: which of them holds the "
        "records cannot be told. Expected a list of objects, one object with one list of objects, "
        "or columns of equal length; write it as JSON lines, one record a line."
    )


def cursor_at(raw: Raw, key: str, reader: Reader) -> Cursor:
    """A cursor before the list that stands under `key` of an object that is known to be sound."""
    cursor = Cursor([raw.text], reader.source, lambda size: None, raw.line)
    cursor.peek()
    while True:
        cursor.skip()  # the brace, then the comma
        cursor.peek()
        name = strict_json(cursor.value().text)
        cursor.peek()
        cursor.skip()  # the colon
        cursor.peek()
        if name == key:
            return cursor
        cursor.value()
        cursor.peek()
