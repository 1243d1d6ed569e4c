"""SOURCES → DOCUMENTS: plain text in pieces, records as texts or rendered conversations.

A corpus is read several times; each reading gives the same pieces in the same order. What is told
of a source (its encoding, its bad records) is collected while it is surveyed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from yunque.config import DataConfig
from yunque.data.alignment import Rendered, render
from yunque.data.chat_template import CHAT_TOKENS, ChatTemplate, chat_template_of
from yunque.data.checks import Check
from yunque.data.conversations import Shape, column, columns_in, columns_of, messages_of, recognise
from yunque.data.encodings import BadRecord, OnBad, ReadNotes
from yunque.data.reader import Record, record_named
from yunque.data.records import record_kind
from yunque.data.rendered import check_encodable
from yunque.data.sources import (
    Source,
    find_sources,
    hub_data,
    hub_revision,
    left_aside,
    read_parts,
    records_of,
)
from yunque.data.template_manner import check_template
from yunque.data.tokenizer import Tokenizer
from yunque.errors import InputError, placed
from yunque.files import sha256, storage_error

BAD_EXAMPLES = 100
LINE_BITS = 40
# In these bits stands a line, or where others share it (the highest bit says so) line and record.
RECORD_BITS = 26
SHARED_LINE = 1 << (LINE_BITS - 1)


def line_code(record: Record) -> int:
    """Where a record stands in its source, in LINE_BITS bits; the line alone where it is far on."""
    if not record.number or record.number >> RECORD_BITS:
        return record.line
    code = record.line << RECORD_BITS | record.number
    return code | SHARED_LINE if code < SHARED_LINE else record.line


def line_and_record(code: int) -> tuple[int, int]:
    """What `line_code` holds; 0 for the record where the line tells which one it is."""
    if not code & SHARED_LINE:
        return code, 0
    return (code ^ SHARED_LINE) >> RECORD_BITS, code & ((1 << RECORD_BITS) - 1)


class Piece(NamedTuple):
    """A stretch of one document; `rendered` conversations and records come in one piece.

    `source` is the number of the source, `line` where the document begins in it (of a record:
    its `line_code`). `blank`: the
    document is nothing but white space. `separator`: a separator stands before this document.
    """

    source: int
    text: str
    line: int
    first: bool = True
    last: bool = True
    blank: bool = False
    separator: bool = False
    rendered: Rendered | None = None
    record: bool = False


class Corpus:
    """The sources of a preparation, read as often as needed.

    Args:
        tokenizer: the one that the texts are for; None where it is still to be trained.

    Attributes:
        names: what each source is called.
        left_aside: ending → files of the folders that are not read.
        template: the chat template that renders conversations.
        control_tokens: what the tokenizer must know for it, beside its own.

    Raises:
        InputError: sources, columns or tokenizer cannot be used.
    """

    def __init__(
        self, sources: Sequence[str], config: DataConfig, tokenizer: Tokenizer | None
    ) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.sources = find_sources(sources, config.encoding)
        self.names = [source.name for source in self.sources]
        self.left_aside = left_aside(sources)
        self.columns = columns_of(config.columns)
        self.control_tokens: tuple[str, ...] = CHAT_TOKENS
        end = tokenizer.separator if tokenizer else config.separator
        self.chat = ChatTemplate(end_token=end, special_tokens=(end, *CHAT_TOKENS))
        if tokenizer is not None and tokenizer.chat_template is not None:
            self.chat = chat_template_of(tokenizer)
            self.control_tokens = ()
        self.template = self.chat.source
        self.notes = [ReadNotes() for _ in self.sources]
        self.bad: list[BadRecord] = []
        self.bad_count = self.bad_lines = self.bad_bytes = 0
        self.template_doubts: list[Check] = []
        self.render_notes: dict[str, int] = {}
        self._checked = False

    def content(self) -> list[dict[str, Any]]:
        """Name, size and SHA-256 of each source; a data set of the Hub goes by name and commit."""
        rows = []
        for source in self.sources:
            if source.path is None:
                hub = hub_data(source.name)
                assert hub is not None, source
                content = f"{source.name} {hub_revision(hub)}"
                digest = hashlib.sha256(content.encode("utf-8")).hexdigest()
                rows.append({"name": source.name, "bytes": 0, "sha256": digest})
                continue
            try:
                size = source.path.stat().st_size
            except OSError as error:
                raise storage_error(error, source.path, "read") from None
            # The same bytes are other records under another suffix.
            digest = f"{record_kind(source.path)}:{sha256(source.path)}"
            rows.append({"name": source.path.name, "bytes": size, "sha256": digest})
        return rows

    def pieces(
        self, survey: bool = False, tell: Callable[[float], None] | None = None
    ) -> Iterator[Piece]:
        """Every document of every source, in order.

        Args:
            survey: collect the notes and the bad records of this reading.
            tell: called with the fraction of the sources that is done.

        Raises:
            InputError: a source cannot be read, or a record is faulty and may not be skipped.
        """
        if survey:
            self.notes = [ReadNotes() for _ in self.sources]
            self.bad, self.bad_count, self.bad_lines, self.bad_bytes = [], 0, 0, 0
        self.render_notes = {}
        for number, source in enumerate(self.sources):
            notes = self.notes[number] if survey else ReadNotes()

            def skip(record: BadRecord, lines: bool = source.kind == "text") -> None:
                if survey:
                    self.bad_count += 1
                    self.bad_lines += lines
                    self.bad_bytes += record.size
                    if len(self.bad) < BAD_EXAMPLES:
                        self.bad.append(record)

            on_bad = skip if self.config.skip_bad else None
            read = self.of_text if source.kind == "text" else self.of_records
            yield from read(number, source, notes, on_bad)
            if tell:
                tell((number + 1) / len(self.sources))

    def documents(self) -> Iterator[tuple[str, Rendered | None]]:
        """Every document that is not blank, whole, with its spans where it is a conversation."""
        texts: list[str] = []
        for piece in self.pieces():
            texts.append(piece.text)
            if piece.last:
                if not piece.blank:
                    yield "".join(texts), piece.rendered
                texts = []

    def of_text(
        self, number: int, source: Source, notes: ReadNotes, on_bad: OnBad | None
    ) -> Iterator[Piece]:
        """The documents of a plain text."""
        assert source.path is not None
        documents = 0
        separator = self.config.separator
        for part in read_parts(source.path, separator, self.config, notes, on_bad):
            behind = part.first and documents > 0
            documents += part.first
            yield Piece(number, part.text, part.line, part.first, part.last, part.blank, behind)

    def of_records(
        self, number: int, source: Source, notes: ReadNotes, on_bad: OnBad | None
    ) -> Iterator[Piece]:
        """The records of a source: texts as they are, conversations rendered."""
        shape: Shape | None = None
        for record in records_of(source, self.config, notes, on_bad):
            where = record.where
            if shape is None:  # of the whole file; where none fits, no record can be skipped to
                shape = recognise(record.fields, self.columns, where)
                columns = columns_in(record.fields, self.columns)
                if shape is Shape.TEXT and column("text", columns) not in record.fields:
                    notes.text_column = str(next(iter(record.fields)))
            try:
                piece = self.of_record(number, record, shape)
            except InputError as fault:
                if on_bad is None:
                    raise
                reason = str(fault).removeprefix(f"{record.source}:{record.line}: ")
                on_bad(BadRecord(record.source, record.line, reason, record.size))
                continue
            yield piece

    def of_record(self, number: int, record: Record, shape: Shape) -> Piece:
        """One record as a document."""
        with self.skippable():
            found = messages_of(record, self.columns, shape)
        if isinstance(found, str):
            return Piece(number, found, line_code(record), blank=not found.strip(), record=True)
        if not self._checked:
            self.template_doubts = check_template(self.chat)
            self._checked = True
        rendered = render(found, self.chat)
        with self.skippable(), placed(record.where):
            check_encodable(rendered, self.tokenizer)
        for note in rendered.notes:
            self.render_notes[note] = self.render_notes.get(note, 0) + 1
        return Piece(number, rendered.text, line_code(record), rendered=rendered, record=True)

    @contextmanager
    def skippable(self) -> Iterator[None]:
        """Where a fault of one record is raised, say that such records may be left out."""
        try:
            yield
        except InputError as fault:
            if self.config.skip_bad:
                raise
            raise InputError(
                f"{fault} Mend it, or leave such records out (and have them listed) with "
                "--skip-bad."
            ) from None

    def notes_of(self, number: int) -> dict[str, Any]:
        """How a source was read."""
        return {"kind": self.sources[number].kind, **asdict(self.notes[number])}

    def bytes_read(self) -> int:
        """Bytes of all sources, decompressed."""
        return sum(notes.bytes_read for notes in self.notes)

    def bad_records(self) -> dict[str, Any]:
        """What was left out because it could not be read or used: lines of texts, and records."""
        examples = [f"{bad.source}:{bad.line}: {bad.reason}" for bad in self.bad]
        counts = {"count": self.bad_count, "lines": self.bad_lines, "bytes": self.bad_bytes}
        return {**counts, "examples": examples}

    def place(self, code: int) -> str:
        """`file:line` of source << LINE_BITS | line; with the record where lines are shared."""
        line, number = line_and_record(code & ((1 << LINE_BITS) - 1))
        return f"{self.names[code >> LINE_BITS]}:{line}{', ' * bool(number)}{record_named(number)}"
