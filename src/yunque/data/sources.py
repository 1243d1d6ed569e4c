"""FILES → DOCUMENTS: finds text files and reads them as a stream, with the line of each document.

Nothing here holds more than one block of a file in memory, except `read_documents`, which holds
the one document that it yields.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from yunque.errors import InputError
from yunque.files import storage_error

SUFFIXES = (".txt",)
BLOCK_BYTES = 1 << 20
HEAD_BYTES = 8192


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


def find_files(sources: Sequence[str]) -> list[Path]:
    """The text files that the sources name, in the order given; folders recursively, sorted.

    A file reached twice (by name and through its folder) is listed once. In a folder, files of
    other suffixes are left alone.

    Raises:
        InputError: no sources; a source is missing, has an unknown suffix, is binary or no
            regular file; a folder without text files. All faults together.
    """
    if not sources:
        raise InputError("no sources given: name at least one .txt file or folder with .txt files.")
    accepted = ", ".join(SUFFIXES)
    found: dict[Path, Path] = {}
    faults = []
    for source in sources:
        path = Path(source).expanduser()
        try:
            if path.is_dir():
                inside = sorted(
                    item
                    for item in path.rglob("*")
                    if item.suffix.lower() in SUFFIXES and item.is_file()
                )
                if not inside:
                    faults.append(f"{source}: no text files in this folder (accepted: {accepted}).")
                candidates = inside
            elif not path.exists():
                faults.append(f"{source}: no such file or folder.")
                continue
            elif not path.is_file():
                faults.append(f"{source}: neither a regular file nor a folder.")
                continue
            elif path.suffix.lower() not in SUFFIXES:
                faults.append(
                    f"{source}: unknown kind of file {path.suffix or '(no suffix)'!r}; accepted: "
                    f"{accepted}. Plain text under another name: rename it to .txt."
                )
                continue
            else:
                candidates = [path]
            for item in candidates:
                fault = binary_fault(item)
                if fault:
                    faults.append(fault)
                found.setdefault(item.resolve(), item)
        except OSError as error:
            raise storage_error(error, path, "read") from None
    if faults:
        raise InputError("\n".join(faults))
    return list(found.values())


def binary_fault(path: Path) -> str:
    """One sentence where the head of the file cannot be text, else ""."""
    with path.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return f"{path}: UTF-16 text; save it as UTF-8 (iconv -f utf-16 -t utf-8)."
    if b"\0" in head:
        return f"{path}: a binary file (zero byte at offset {head.index(0)}), expected UTF-8 text."
    return ""


def read_blocks(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in blocks, exactly as it is (line ends too); a BOM is dropped.

    Raises:
        InputError: bytes that are not UTF-8, with line and byte offset.
        StorageError: the file cannot be read.
    """
    offset = 0  # of `rest` in the file
    line = 1
    rest = b""
    try:
        with path.open("rb") as handle:
            while True:
                block = handle.read(BLOCK_BYTES)
                final = not block
                if offset == 0 and not rest and block.startswith(codecs.BOM_UTF8):
                    block = block[len(codecs.BOM_UTF8) :]
                    offset = len(codecs.BOM_UTF8)
                rest += block
                try:
                    text, used = codecs.utf_8_decode(rest, "strict", final)
                except UnicodeDecodeError as error:
                    at = line + rest.count(b"\n", 0, error.start)
                    raise InputError(
                        f"{path}:{at}: not UTF-8: byte 0x{rest[error.start]:02X} at offset "
                        f"{offset + error.start} ({error.reason}). Save the file as UTF-8; if it "
                        "is an older Western European text: iconv -f latin1 -t utf-8."
                    ) from None
                if text:
                    yield text
                if final:
                    return
                line += rest.count(b"\n", 0, used)
                offset += used
                rest = rest[used:]
    except OSError as error:
        raise storage_error(error, path, "read") from None


def read_stretches(path: Path, separator: str) -> Iterator[tuple[str, bool]]:
    """(text, whether the document ends behind it): the file cut at every separator."""
    buffer = ""
    for block in read_blocks(path):
        *done, buffer = (buffer + block).split(separator)
        for text in done:
            yield text, True
        # The last characters may be the beginning of a separator that ends in the next block.
        sure = len(buffer) - (len(separator) - 1)
        if sure > 0:
            yield buffer[:sure], False
            buffer = buffer[sure:]
    yield buffer, True


def read_parts(path: Path, separator: str) -> Iterator[Part]:
    """The documents of a file as a stream of parts; the separators themselves are not in them."""
    line = begin = 1
    lead = ""  # white space at the start of a document, held back until we know it is not blank
    inside = False
    breaks = separator.count("\n")
    for text, last in read_stretches(path, separator):
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


def read_documents(path: Path, separator: str) -> Iterator[Document]:
    """The documents of a file, each whole; documents of nothing but white space are left out.

    Raises:
        InputError: bytes that are not UTF-8, with line and byte offset.
        StorageError: the file cannot be read.
    """
    texts: list[str] = []
    for part in read_parts(path, separator):
        if part.blank:
            continue
        texts.append(part.text)
        if part.last:
            yield Document("".join(texts), str(path), part.line)
            texts = []
