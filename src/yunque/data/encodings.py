"""BYTES → TEXT: compression, encoding, line ends and Unicode form, as a stream and stated.

| compression | .gz .bz2 .xz (standard library), .zst (package zstandard) |
|---|---|
| encoding | a byte-order mark; else UTF-8; else what the bytes clearly say: UTF-16, Latin-1 … |
| line ends | kept, or "\\r\\n" and "\\r" made "\\n" where asked |
| Unicode | NFC, or left alone where asked |

Nothing is guessed in silence: `ReadNotes` says what was found and what was changed.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from yunque.config import DataConfig
from yunque.errors import InputError, MissingPackageError
from yunque.files import storage_error

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
BLOCK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
BAD_EXAMPLES = 100

CODECS = {
    "utf-8": "utf-8",
    "utf-16": "utf-16",
    "latin-1": "latin-1",
    "windows-1252": "cp1252",
}
# Bytes that Windows-1252 uses for letters of Western languages; others are rare in text.
LETTERS = frozenset(
    b"\xe1\xe9\xed\xf3\xfa\xf1\xfc\xc1\xc9\xcd\xd3\xda\xd1\xdc\xe0\xe8\xec\xf2\xf9"
    b"\xe2\xea\xee\xf4\xfb\xe7\xc7\xe4\xf6\xdf\xe3\xf5\xbf\xa1\xab\xbb\xb7\xba\xaa"
)
QUOTES = frozenset(b"\x80\x85\x91\x92\x93\x94\x95\x96\x97\x99")  # in Windows-1252, not in Latin-1
LEAST_LETTERS = 0.9  # share of the bytes above 127 that must be such letters


@dataclass
class ReadNotes:
    """How one source was read; the numbers grow while it is."""

    encoding: str = "utf-8"
    found: str = "utf-8"
    """How the encoding was known: utf-8 (it is valid), bom (a mark), named, detected."""
    bytes_read: int = 0
    """Bytes, decompressed."""
    text_bytes: int = 0
    """Bytes of the text as UTF-8, after all changes."""
    newlines_changed: int = 0
    characters_normalised: int = 0
    """Characters of the stretches that NFC changed, before the change."""
    bad_count: int = 0
    bad_lines: list[str] = field(default_factory=list)

    def add_bad(self, sentence: str) -> None:
        """Note a line or record that was left out."""
        self.bad_count += 1
        if len(self.bad_lines) < BAD_EXAMPLES:
            self.bad_lines.append(sentence)


def suffix_of(path: Path) -> str:
    """The suffix that says what is in the file, without its compression: ".jsonl"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_stream(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed as they are read.

    Raises:
        MissingPackageError: .zst without the package zstandard.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if suffix == ".bz2":
        return bz2.open(path)
    if suffix == ".xz":
        return lzma.open(path)
    if suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise MissingPackageError(
                f"{path}: .zst files need a package: pip install zstandard"
            ) from None
        return cast(IO[bytes], zstandard.open(path, "rb"))
    return path.open("rb")


def read_bytes(path: Path, notes: ReadNotes) -> Iterator[bytes]:
    """The decompressed bytes of a file in blocks of at most `BLOCK_BYTES`.

    Raises:
        InputError: the compressed data is broken or cut short.
        StorageError: the file cannot be read.
    """
    try:
        with open_stream(path) as handle:
            while block := handle.read(BLOCK_BYTES):
                notes.bytes_read += len(block)
                yield block
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise broken(path, notes, error) from None
    except OSError as error:
        if error.errno is None:  # bz2 and gzip say so of broken data
            raise broken(path, notes, error) from None
        raise storage_error(error, path, "read") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise broken(path, notes, error) from None
        raise


def broken(path: Path, notes: ReadNotes, error: Exception) -> InputError:
    """The error of compressed data that cannot be unpacked."""
    return InputError(
        f"{path}: the compressed data is broken or cut short after {notes.bytes_read} unpacked "
        f"bytes ({error}). Get the file again."
    )


def find_encoding(path: Path, head: bytes, asked: str, notes: ReadNotes) -> str:
    """The codec of a text that begins with `head`; notes say how it was found.

    Raises:
        InputError: the head is no text.
    """
    for mark, codec in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            if asked not in ("auto", codec):
                raise InputError(
                    f"{path}: begins with the mark of {codec}, but encoding is {asked!r}. Leave "
                    "encoding at auto."
                )
            notes.encoding, notes.found = codec, "bom"
            return "utf-8-sig" if codec == "utf-8" else codec
    if asked != "auto":
        notes.encoding, notes.found = asked, "named"
        return "utf-16-le" if asked == "utf-16" else CODECS[asked]
    if b"\0" in head:
        even, odd = head[::2].count(0), head[1::2].count(0)
        half = len(head) / 2
        for codec, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
            if high > 0.5 * half and low < 0.02 * half:
                notes.encoding, notes.found = "utf-16", "detected"
                return codec
        raise InputError(
            f"{path}: a binary file (zero byte at offset {head.index(0)}), expected text. If it is "
            "text in another encoding, save it as UTF-8."
        )
    try:
        codecs.utf_8_decode(head, "strict", False)
    except UnicodeDecodeError:
        codec = western(head)
        if codec:
            notes.encoding = "windows-1252" if codec == "cp1252" else codec
            notes.found = "detected"
            return codec
    notes.encoding, notes.found = "utf-8", "utf-8"
    return "utf-8"


def western(head: bytes) -> str:
    """ "latin-1" or "cp1252" where the bytes above 127 are nearly all Western letters, else ""."""
    high = [byte for byte in head if byte > 127]
    if not high or any(byte in b"\x81\x8d\x8f\x90\x9d" for byte in high):
        return ""
    # Valid UTF-8 sequences among them: UTF-8 with damage, not another encoding.
    if len(re.findall(rb"[\xc3\xc2][\x80-\xbf]", head)) > 0.02 * len(high):
        return ""
    quotes = sum(byte in QUOTES for byte in high)
    letters = sum(byte in LETTERS for byte in high)
    if letters + quotes < LEAST_LETTERS * len(high):
        return ""
    return "cp1252" if quotes else "latin-1"


def read_text(path: Path, settings: DataConfig, notes: ReadNotes) -> Iterator[str]:
    """The text of a file in blocks, as the settings want it.

    Raises:
        InputError: bytes that do not fit the encoding, with line and offset; broken compression.
        StorageError: the file cannot be read.
    """
    texts: Iterable[str] = decoded(path, settings, notes)
    if settings.newlines == "lf":
        texts = with_line_feeds(texts, notes)
    if settings.normalise == "nfc":
        texts = composed(texts, notes)
    for text in texts:
        if text:
            notes.text_bytes += len(text) if text.isascii() else len(text.encode("utf-8"))
            yield text


def decoded(path: Path, settings: DataConfig, notes: ReadNotes) -> Iterator[str]:
    """The characters of a file, block by block."""
    blocks = read_bytes(path, notes)
    head = next(blocks, b"")
    codec = find_encoding(path, head[:HEAD_BYTES], settings.encoding, notes)
    width = 2 if codec.startswith("utf-16") else 1
    decoder = codecs.getincrementaldecoder(codec)("strict")
    offset, line = 0, 1
    rest = b""  # what the decoder holds of a character

    def decode(block: bytes, final: bool) -> str:
        nonlocal offset, line, rest
        try:
            text = decoder.decode(block, final)
        except UnicodeDecodeError as error:
            # `error.object` is what the decoder held back and this block together.
            before = error.object[: error.start]
            place = offset - len(rest) + error.start
            bad = error.object[error.start : error.start + 1]
            at = line + before.count(b"\n" if width == 1 else b"\n\0")
            if settings.skip_bad and codec in ("utf-8", "utf-8-sig"):
                return salvaged(error.object, at, final)
            raise InputError(
                f"{path}:{at}: not {notes.encoding.upper()}: byte 0x{bad.hex().upper()} at offset {place} "
                f"({error.reason}). {advice(notes)}"
            ) from None
        offset += len(block)
        line += text.count("\n")
        rest = decoder.getstate()[0]
        return text

    def salvaged(block: bytes, at: int, final: bool) -> str:
        # Whole lines that cannot be read are left out; the rest of the block is kept.
        nonlocal offset, line, rest, decoder
        end = len(block) if final else block.rfind(b"\n") + 1
        kept = []
        number = line
        for raw in block[:end].splitlines(keepends=True):
            try:
                kept.append(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                bad = raw[error.start : error.start + 1].hex().upper()
                notes.add_bad(f"{path}:{number}: not UTF-8 (byte 0x{bad}); the line was left out")
            number += raw.count(b"\n")
        line, offset = number, offset - len(rest) + end
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        return "".join(kept) + (decode(block[end:], final) if block[end:] else "")

    yield decode(head, False)
    for block in blocks:
        yield decode(block, False)
    yield decode(b"", True)


def advice(notes: ReadNotes) -> str:
    """What to do about bytes that do not fit."""
    if notes.found == "named":
        return "Leave encoding at auto, or name the right one."
    return (
        "The file mixes encodings or is damaged there: mend the line, leave such lines out with "
        "--skip-bad, or name the encoding of the whole file with --encoding windows-1252."
    )


def with_line_feeds(texts: Iterable[str], notes: ReadNotes) -> Iterator[str]:
    """Every "\\r\\n" and "\\r" as "\\n"; a "\\r" at the end of a block waits for the next one."""
    held = ""
    for text in texts:
        text = held + text
        held = "\r" if text.endswith("\r") else ""
        text = text[: len(text) - len(held)]
        if "\r" in text:
            notes.newlines_changed += text.count("\r")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        yield text
    if held:
        notes.newlines_changed += 1
        yield "\n"


def composed(texts: Iterable[str], notes: ReadNotes) -> Iterator[str]:
    """The text in Unicode's form NFC, equal to that of the whole text.

    A block is cut where nothing before can join with what follows: before an ASCII character. (A
    combining mark or a Hangul syllable's parts may stand at the end of a block.)
    """
    normalise: Callable[[str, str], str] = cast(Any, unicodedata).normalize
    held = ""
    for text in texts:
        text = held + text
        held = ""
        if not text.isascii():
            end = len(text)
            while end and not text[end - 1].isascii():
                end -= 1
            end = max(0, end - 1)  # the ASCII letter itself may take the mark that follows
            if len(text) - end < BLOCK_BYTES:
                text, held = text[:end], text[end:]
        elif text:
            text, held = text[:-1], text[-1]
        yield normal(text, normalise, notes)
    yield normal(held, normalise, notes)


def normal(text: str, normalise: Callable[[str, str], str], notes: ReadNotes) -> str:
    """NFC of a text, counted where it differs."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    changed = normalise("NFC", text)
    if changed != text:
        notes.characters_normalised += sum(
            unicodedata.combining(character) > 0 or not unicodedata.is_normalized("NFC", character)
            for character in text
        )
    return changed
