"""BYTES → TEXT: decompresses, decodes and normalises a file as a stream, and notes what it did.

The bytes are accounted for: what was read is the byte-order mark, what the change to UTF-8 added
or took away, lines left out, structure around records, and text (see `ReadNotes.open_bytes`).
At most one block is held, and with it what must not be cut (a base letter with its accents).
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import itertools
import lzma
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from yunque.config import DataConfig
from yunque.errors import InputError, MissingPackageError
from yunque.files import storage_error

BLOCK_BYTES = 1 << 17  # small enough for the processor's cache: larger blocks were slower
HEAD_BYTES = 8192
HELD_CHARACTERS = 1 << 26  # a line or an accented letter longer than this is no text
XZ_MEMORY = 1 << 28  # bytes a decompressor may take; xz -9 needs 65 MB
ZSTD_INPUT = 1 << 10  # bytes fed at once: one byte in can be 32 KB out

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

DEFAULT = DataConfig()
ESCAPED = re.compile("[\ud800-\udfff]")

# A text may be cut before these characters and each side normalised alone: they begin a new unit
# (combining class 0) and compose with nothing before them. A test holds them to Unicode's tables.
# A newline is not among them, so that no cut falls between CR and LF.
SAFE_CLASS = (
    "\x00-\x09\x0b-\u02ff\u0400-\u0482\u048a-\u04ff\u05d0-\u05ea\u0620-\u064a\u0904-\u0939"
    "\u2010-\u2027\u3001-\u3029\u3041-\u3094\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    "\uff01-\uff60\U0001f000-\U0001faff"
)
PLAIN_CHARACTERS = 1 << 14  # for less the table is not worth its making
FIRST_COMBINING = 0x300  # everything below is NFC and composes with nothing before it
SAFE = re.compile(f"[{SAFE_CLASS}]")
UNIT = re.compile(f"[{SAFE_CLASS}\n]?[^{SAFE_CLASS}\n]+")

HIGH_RUN = re.compile(rb"[\x80-\xff]+")
ACCENTS = {
    "Spanish": "áéíóúüñ",
    "Portuguese": "áàâãéêíóôõúüç",
    "Catalan": "àèéíïòóúüçñ",
    "French": "àâæçéèêëîïôœùûüÿ",
    "Italian": "àèéìíîòóùú",
    "German": "äöüßé",
    "Scandinavian": "åäöæøéü",
}
MIN_RUNS = 8  # fewer accented letters are no clear evidence of an encoding
CLEAR = 0.98  # so much of the evidence must point to it

Decode = Callable[[bytes, str, bool], tuple[str, int]]


class Damaged(Exception):
    """Compressed data that cannot be unpacked; the caller knows the line."""


LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class BadRecord:
    """A record or line that was left out: where it begins, why, and its UTF-8 bytes."""

    source: str
    line: int
    reason: str
    size: int = 0
    excerpt: str = ""


OnBad = Callable[[BadRecord], None]


@dataclass
class ReadNotes:
    """What reading one file found and did; all sizes in bytes, text measured in UTF-8.

    `found` says how the encoding was known: "bom", "utf-8" (the bytes are valid), "named" or
    "detected" (with `language`, whose accents the bytes spell). `crlf` and `cr` count the line
    ends of those kinds that newlines="lf" made LF (each CRLF a byte shorter); `has_crlf`: there
    are some, changed or kept.
    `normalised_characters`: characters that NFC replaced; `normalised_bytes`: how much shorter
    (or, below 0, longer) the text became. For records, these are about the values.

    `layout`, `header`, `delimiter`: how the records of a file stand in it (see `records`).
    `text_column`: the only column, which is taken for the text though it is not called so.
    """

    compressed_bytes: int = 0  # size on disk where the file is compressed, else 0
    encoding: str = ""
    found: str = ""
    language: str = ""
    bytes_read: int = 0  # after decompression
    bom_bytes: int = 0
    transcoded_bytes: int = 0
    text_bytes: int = 0  # text or records, as decoded
    structure_bytes: int = 0
    bad_bytes: int = 0
    bad_records: int = 0
    records: int = 0
    has_crlf: bool = False
    crlf: int = 0
    cr: int = 0
    normalised_characters: int = 0
    normalised_bytes: int = 0
    layout: str = ""
    header: bool | None = None
    delimiter: str = ""
    text_column: str = ""

    @property
    def open_bytes(self) -> int:
        """Bytes that were read and are in no account; 0 once the file was read to its end."""
        accounted = self.bom_bytes + self.transcoded_bytes + self.text_bytes
        return self.bytes_read - accounted - self.structure_bytes - self.bad_bytes


def read_text(
    path: Path,
    config: DataConfig = DEFAULT,
    notes: ReadNotes | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[str]:
    """The text of a file in blocks, as [data] of a recipe asks (encoding, newlines, normalise).

    With normalise="nfc" the blocks together are the NFC of the whole text. A byte-order mark is
    dropped.

    Args:
        notes: what was found and done is written into it.
        on_bad: called for each line that cannot be decoded, which then is an empty line in the
            text; without it such a line is an error.

    Raises:
        InputError: bytes that are no text in the encoding, with line and offset; compressed data
            that is damaged.
        StorageError: the file cannot be read.
        MissingPackageError: the package for .zst is absent.
    """
    notes = notes if notes is not None else ReadNotes()
    blocks = decoded(path, config, notes, escape=on_bad is not None)
    if on_bad is not None:
        blocks = without_bad_lines(path, blocks, notes, on_bad)
    lf, nfc = config.newlines == "lf", config.normalise == "nfc"
    for block in uncut(path, blocks, notes) if lf or nfc else blocks:
        text = with_line_ends(block, lf, notes) if "\r" in block else block
        yield normalised(text, notes) if nfc else text


def with_line_ends(text: str, lf: bool, notes: ReadNotes) -> str:
    """The text, with its CRLF and CR made LF and counted where that is asked."""
    if not lf:
        notes.has_crlf = notes.has_crlf or "\r\n" in text
        return text
    crlf = text.count("\r\n")
    notes.has_crlf = notes.has_crlf or crlf > 0
    notes.crlf += crlf
    notes.cr += text.count("\r") - crlf
    return text.replace("\r\n", "\n").replace("\r", "\n")


def normalised(text: str, notes: ReadNotes) -> str:
    """The NFC of the text; what that changed is counted."""
    if text.isascii() or is_plain(text) or unicodedata.is_normalized("NFC", text):
        return text
    made = unicodedata.normalize("NFC", text)
    notes.normalised_bytes += utf8_size(text) - utf8_size(made)
    for unit, times in Counter(UNIT.findall(text)).items():
        if not unicodedata.is_normalized("NFC", unit):
            pairs = zip(unit, unicodedata.normalize("NFC", unit), strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            notes.normalised_characters += times * (len(unit) - same)
    return made


def is_plain(text: str) -> bool:
    """Whether each character alone shows that the text is NFC; False may mean no more than maybe.

    Many times as fast as `unicodedata.is_normalized` for Latin-1, twice for other scripts.
    """
    try:
        text.encode("latin-1")
        return True
    except UnicodeEncodeError:
        if len(text) < PLAIN_CHARACTERS:
            return False
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    codes = codes[codes >= FIRST_COMBINING]
    table = plain_characters()
    return bool(codes.max(initial=0) < len(table) and table[codes].all())


@lru_cache(maxsize=1)
def plain_characters() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Code → whether NFC leaves the character as it is among any neighbours of this kind.

    Those of combining class 0 that are NFC themselves and compose with nothing before them
    (Source: Unicode Standard Annex 15, quick check "yes"), in the first two planes.
    """
    plain = np.ones(2 << 16, dtype=np.bool_)
    seconds = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]  # Hangul, which no table lists
    for code in range(FIRST_COMBINING, len(plain)):
        character = chr(code)
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.append(int(parts[1], 16))
        plain[code] = not unicodedata.combining(character) and unicodedata.is_normalized(
            "NFC", character
        )
    plain[seconds] = False
    return plain


def uncut(path: Path, blocks: Iterable[str], notes: ReadNotes) -> Iterator[str]:
    """The same text, cut only where both sides can be normalised alone."""
    held = ""
    for block in blocks:
        if SAFE.match(block):
            if held:
                yield held
            held = block
            continue
        place = SAFE.search(block)
        cut = place.start() if place else len(block)
        held += block[:cut]
        if place:
            yield held
            held = block[cut:]
        elif len(held) > HELD_CHARACTERS:
            begin = max((found.start() for found in SAFE.finditer(held)), default=0)
            line = line_at(path, notes.encoding, notes.bytes_read - utf8_size(held))
            line += held.count("\n", 0, begin)
            raise InputError(
                f"{path}:{line}: {len(held) - begin:,} characters from here on are nothing but "
                "accents and signs, which cannot be normalised piece by piece. If they are meant, "
                'set normalise = "none".'
            )
    if held:
        yield held


def utf8_size(text: str) -> int:
    """Bytes of the text in UTF-8; an escaped byte (U+DC80 to U+DCFF) counts as the one it is."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        escaped = sum("\udc80" <= character <= "\udcff" for character in text)
        return len(text.encode("utf-8", "surrogatepass")) - 2 * escaped


def without_bad_lines(
    path: Path, blocks: Iterable[str], notes: ReadNotes, on_bad: OnBad
) -> Iterator[str]:
    """The text in whole lines; a line with escaped bytes is told of and becomes empty."""
    line, held = 1, ""
    for block in itertools.chain(blocks, [None]):
        text = held + (block or "")
        end = len(text) if block is None else text.rfind("\n") + 1
        whole, held = text[:end], text[end:]
        if not whole.isascii() and ESCAPED.search(whole):
            lines = whole.split("\n")
            for number, content in enumerate(lines):
                fault = byte_fault(content, notes.encoding)
                if fault:
                    bad = bad_record(str(path), line + number, fault, content)
                    left_out(bad, notes, on_bad)
                    notes.text_bytes -= bad.size
                    lines[number] = ""
            line += len(lines) - 1
            whole = "\n".join(lines)
        else:
            line += whole.count("\n")
        if whole:
            yield whole
        if len(held) > HELD_CHARACTERS:
            raise InputError(too_long(path, line, HELD_CHARACTERS, "a line"))


def too_long(path: object, line: int, limit: int, what: str) -> str:
    """The message for something that never ends."""
    return (
        f"{path}:{line}: {what} of more than {limit >> 20} MB begins here; it would fill the "
        "memory. Is a quote, a bracket or a line break missing? Mend the file."
    )


def bad_record(
    source: str, line: int, reason: str, content: str, size: int | None = None
) -> BadRecord:
    """A BadRecord of the text that is left out."""
    excerpt = content[:120].encode("utf-8", "replace").decode("utf-8")
    return BadRecord(source, line, reason, utf8_size(content) if size is None else size, excerpt)


def left_out(bad: BadRecord, notes: ReadNotes, on_bad: OnBad) -> None:
    """Count what is left out and tell of it."""
    notes.bad_records += 1
    notes.bad_bytes += bad.size
    on_bad(bad)


def byte_fault(text: str, encoding: str) -> str:
    """What is wrong where `decoded` had to escape bytes, else ""."""
    found = ESCAPED.search(text) if not text.isascii() else None
    if not found:
        return ""
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF and not encoding.startswith("utf-16"):
        return f"not {encoding}: byte 0x{code - 0xDC00:02X} at character {found.start() + 1}"
    return f"not {encoding}: half a character at character {found.start() + 1}"


# -- bytes → characters --------------------------------------------------------------------------


def decoded(
    path: Path, config: DataConfig, notes: ReadNotes, escape: bool = False
) -> Iterator[str]:
    """The characters of a file as they are in it.

    Args:
        escape: bytes that are no text become surrogates (U+DC80 + byte - 0x80), which no valid
            text contains, instead of an error.

    Raises:
        As `read_text`.
    """
    offset, rest = 0, b""
    undecided, ascii_only = False, True
    decode: Decode | None = None
    errors = "strict"
    source = itertools.chain(byte_blocks(path, notes), [None])
    while True:
        try:
            block = next(source)
        except Damaged as fault:
            line = line_at(path, notes.encoding or "utf-8", offset)
            raise InputError(
                f"{path}:{line}: {fault}. Expected a whole compressed file; copy it again or "
                "compress it anew."
            ) from None
        final = block is None
        rest += block or b""
        if decode is None:
            if len(rest) < 4 and not final:
                continue  # too short to see a byte-order mark
            wrong, mark = encoding_of(rest, config.encoding, notes)
            if wrong:
                raise InputError(f"{path}:1: {wrong}")
            undecided = notes.found == "utf-8" and config.encoding == "auto"
            rest, offset = rest[mark:], mark
            notes.bom_bytes = mark
            decode = DECODERS[notes.encoding]
            if escape:
                utf16 = notes.encoding.startswith("utf-16")
                errors = "surrogatepass" if utf16 else "surrogateescape"
        half = b""
        if final and notes.encoding.startswith("utf-16") and len(rest) % 2 and escape:
            rest, half = rest[:-1], rest[-1:]
        try:
            text, used = decode(rest, "strict" if undecided else errors, final)
        except UnicodeDecodeError:
            if undecided and examine(path, notes):
                decode = DECODERS[notes.encoding]
            undecided = False
            try:
                text, used = decode(rest, errors, final)
            except UnicodeDecodeError as error:
                raise InputError(not_text(path, rest, offset, error, notes, ascii_only)) from None
        ascii_only = ascii_only and text.isascii()
        undecided = undecided and ascii_only
        if half:
            text, used = text + "\udc80", used + 1
        if text:
            size = used if notes.encoding == "utf-8" else utf8_size(text)
            notes.text_bytes += size
            notes.transcoded_bytes += used - size
            yield text
        if final:
            return
        offset += used
        rest = rest[used:]


def decode_utf8(data: bytes, errors: str, final: bool) -> tuple[str, int]:
    """As `codecs.utf_8_decode`."""
    return codecs.utf_8_decode(data, errors, final)


def decode_utf16_le(data: bytes, errors: str, final: bool) -> tuple[str, int]:
    """As `codecs.utf_16_le_decode`."""
    return codecs.utf_16_le_decode(data, errors, final)


def decode_utf16_be(data: bytes, errors: str, final: bool) -> tuple[str, int]:
    """As `codecs.utf_16_be_decode`."""
    return codecs.utf_16_be_decode(data, errors, final)


def decode_latin1(data: bytes, errors: str, final: bool) -> tuple[str, int]:
    """Every byte is a character: it cannot fail."""
    return data.decode("latin-1"), len(data)


def decode_windows1252(data: bytes, errors: str, final: bool) -> tuple[str, int]:
    """Five bytes are no character."""
    return data.decode("cp1252", errors), len(data)


DECODERS: dict[str, Decode] = {
    "utf-8": decode_utf8,
    "utf-16-le": decode_utf16_le,
    "utf-16-be": decode_utf16_be,
    "latin-1": decode_latin1,
    "windows-1252": decode_windows1252,
}


def encoding_of(head: bytes, named: str, notes: ReadNotes) -> tuple[str, int]:
    """(fault or "", length of the byte-order mark); encoding and how it was found are noted."""
    marks = {
        codecs.BOM_UTF8: "utf-8",
        codecs.BOM_UTF16_LE: "utf-16-le",
        codecs.BOM_UTF16_BE: "utf-16-be",
    }
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32 text, which is not read. Save the file as UTF-8.", 0
    for mark, encoding in marks.items():
        if head.startswith(mark):
            if named not in ("auto", encoding, encoding[:6]):
                return (
                    f"begins with the byte-order mark of {encoding}, but encoding is {named!r}. "
                    'Leave encoding at "auto" for this file.',
                    0,
                )
            notes.encoding, notes.found = encoding, "bom"
            return "", len(mark)
    wide = utf16_order(head)
    if named == "utf-16":
        notes.encoding, notes.found = wide or "utf-16-le", "named"
    elif named != "auto":
        notes.encoding, notes.found = named, "named"
    elif wide:
        notes.encoding, notes.found = wide, "detected"
    else:
        notes.encoding, notes.found = "utf-8", "utf-8"
    return "", 0


def utf16_order(head: bytes) -> str:
    """utf-16-le or utf-16-be where the zero bytes of the head clearly say so, else ""."""
    head = head[: min(len(head), HEAD_BYTES) // 2 * 2]
    first, second = head[0::2].count(0), head[1::2].count(0)
    pairs = len(head) // 2
    # Western text has a zero in nearly every pair; other scripts in every blank and line end.
    if pairs >= 4 and first == 0 and second >= 0.1 * pairs and second > 1:
        return "utf-16-le"
    if pairs >= 4 and second == 0 and first >= 0.1 * pairs and first > 1:
        return "utf-16-be"
    return ""


def head_fault(path: Path, named: str = "auto", binary: bool = False) -> str:
    """One sentence where the beginning of the file cannot be text, else "".

    Args:
        binary: it need not be text; whether it is there at all is looked at.

    Raises:
        InputError: compressed data that cannot be unpacked.
        StorageError, MissingPackageError: as `read_text`.
    """
    head = b""
    try:
        for block in byte_blocks(path, ReadNotes()):
            head += block
            if len(head) >= HEAD_BYTES:
                break
    except Damaged as fault:
        return f"{path}:1: {fault}. Expected a whole compressed file; copy it again."
    if head.startswith(LFS_POINTER):
        return f"{path}: only a pointer of Git LFS, which has not fetched the file: `git lfs pull`."
    if binary:
        return ""
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return f"{path}: {kind} data under a name that does not say so; add its suffix."
    notes = ReadNotes()
    wrong, _ = encoding_of(head[:HEAD_BYTES], named, notes)
    if wrong:
        return f"{path}: {wrong}"
    if b"\0" in head[:HEAD_BYTES] and not notes.encoding.startswith("utf-16"):
        return f"{path}: a binary file (zero byte at offset {head.index(0)}), expected text."
    return ""


def examine(path: Path, notes: ReadNotes) -> bool:
    """Whether a file that is not UTF-8 is clearly Latin-1 or Windows-1252; if so it is noted.

    Clear: hardly any byte sequence is UTF-8, and at least 98 % of the accented letters are those
    of one Western language. Czech, Polish, Turkish or Cyrillic bytes spell none.
    """
    runs: Counter[tuple[bytes, bytes, bytes]] = Counter()
    rest = b""
    try:
        for block in byte_blocks(path, ReadNotes()):
            data = rest + block
            cut = data.rfind(b"\n") + 1 or len(data)
            runs.update(high_runs(data[:cut]))
            rest = data[cut:]
    except Damaged:
        pass  # whoever reads on comes upon it and says where
    runs.update(high_runs(rest))
    total = utf8 = strange = 0
    letters: Counter[str] = Counter()
    for (before, run, after), times in runs.items():
        total += times
        utf8 += times * is_utf8(run)
        try:
            text = run.decode("cp1252")
        except UnicodeDecodeError:
            strange += times
            continue
        inside = before.isalpha() and after.isalpha()
        inside = inside and not all(c.isalpha() or c in "·\xad’" for c in text)
        strange += times * (len(run) > 3 or inside)
        for character in text:
            if character.isalpha() and character not in "ªº":
                letters[character.lower()] += times
    known = {
        language: sum(letters[letter] for letter in accents)
        for language, accents in ACCENTS.items()
    }
    language = max(known, key=lambda name: known[name])
    if (
        total < MIN_RUNS
        or utf8 > (1 - CLEAR) * total
        or strange > (1 - CLEAR) * total
        or known[language] < max(MIN_RUNS, CLEAR * letters.total())
    ):
        return False
    control = any(0x80 <= byte < 0xA0 for _, run, _ in runs for byte in run)
    notes.encoding = "windows-1252" if control else "latin-1"
    notes.found, notes.language = "detected", language
    return True


def high_runs(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(byte before, bytes from 0x80 on, byte behind) of each run of such bytes."""
    for found in HIGH_RUN.finditer(data):
        begin, end = found.span()
        yield data[begin - 1 : begin], found[0], data[end : end + 1]


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def not_text(
    path: Path,
    data: bytes,
    offset: int,
    error: UnicodeDecodeError,
    notes: ReadNotes,
    ascii_only: bool,
) -> str:
    """The message for bytes that are no text: line, byte, offset, and whether encodings mix."""
    at = offset + error.start
    line = line_at(path, notes.encoding, at)
    found = f"byte 0x{data[error.start]:02X} at offset {at} ({error.reason})"
    if notes.encoding != "utf-8":
        mend = "Name the right encoding, or mend the line."
    elif not ascii_only or any(map(is_utf8, HIGH_RUN.findall(data))):
        mend = (
            "Other characters of the file are UTF-8, so it mixes encodings or is damaged here: "
            "mend the line, or leave such lines out with --skip-bad."
        )
    else:
        mend = (
            "If it is an older Western European text, name its encoding: --encoding windows-1252 "
            "(or latin-1); else save it as UTF-8."
        )
    return f"{path}:{line}: not {notes.encoding.upper()}: {found}. {mend}"


def line_at(path: Path, encoding: str, offset: int) -> int:
    """The line (1-based) of a byte of the file; read anew, since only errors ask for it."""
    decoder = codecs.getincrementaldecoder(encoding.replace("windows-", "cp"))("replace")
    line = 1
    try:
        for block in byte_blocks(path, ReadNotes()):
            line += decoder.decode(block[:offset]).count("\n")
            offset -= len(block)
            if offset <= 0:
                break
    except Damaged:
        pass
    return line


# -- files → bytes -------------------------------------------------------------------------------


def byte_blocks(path: Path, notes: ReadNotes) -> Iterator[bytes]:
    """The bytes of a file, decompressed, in blocks of bounded size.

    Raises:
        Damaged: compressed data that cannot be unpacked.
        StorageError, MissingPackageError: as `read_text`.
    """
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Any], Iterator[bytes]]] = {
        ".gz": lambda handle: read_blocks(gzip.GzipFile(fileobj=handle)),
        ".bz2": lambda handle: read_blocks(bz2.BZ2File(handle)),
        ".xz": unpack_xz,
        ".zst": unpack_zstd,
    }
    try:
        with path.open("rb", buffering=0) as handle:
            if suffix in readers:
                notes.compressed_bytes = path.stat().st_size
            for block in readers.get(suffix, read_blocks)(handle):
                notes.bytes_read += len(block)
                yield block
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise Damaged(f"damaged {suffix} data ({str(error).rstrip('.')})") from None
    except OSError as error:
        # Also what gzip and bz2 raise for bad data; then no system call failed.
        if error.errno is None:
            raise Damaged(f"damaged {suffix} data ({error})") from None
        raise storage_error(error, path, "read") from None


def read_blocks(handle: Any) -> Iterator[bytes]:
    """What an open file gives, in blocks."""
    while block := handle.read(BLOCK_BYTES):
        yield block


def unpack_xz(handle: Any) -> Iterator[bytes]:
    """xz streams one behind another, with a limit on the memory that they may ask for."""
    data, inside = b"", False
    decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    while True:
        if not data and (decoder.needs_input or not inside):
            data = handle.read(BLOCK_BYTES)
            if not data:
                if inside:
                    raise EOFError("it ends in the middle")
                return
        if not inside:
            data = data.lstrip(b"\0")  # padding between streams
            if not data:
                continue
            decoder, inside = lzma.LZMADecompressor(memlimit=XZ_MEMORY), True
        out = decoder.decompress(data, BLOCK_BYTES)
        data = b""
        if decoder.eof:
            data, inside = decoder.unused_data, False
        if out:
            yield out


def unpack_zstd(handle: Any) -> Iterator[bytes]:
    """zstd frames one behind another, fed in small bites so that what comes out stays small."""
    try:
        import zstandard
    except ImportError:
        raise MissingPackageError(
            'reading .zst files needs the package zstandard: pip install "zstandard>=0.22"'
        ) from None
    decoder, inside = zstandard.ZstdDecompressor().decompressobj(), False
    while block := handle.read(BLOCK_BYTES):
        for start in range(0, len(block), ZSTD_INPUT):
            data = block[start : start + ZSTD_INPUT]
            while data:
                inside = True
                try:
                    out = decoder.decompress(data)
                except zstandard.ZstdError as error:
                    raise Damaged(f"damaged .zst data ({error})") from None
                data = b""
                if decoder.eof:
                    data, inside = decoder.unused_data, False
                    decoder = zstandard.ZstdDecompressor().decompressobj()
                for begin in range(0, len(out), BLOCK_BYTES):
                    yield out[begin : begin + BLOCK_BYTES]
    if inside:
        raise EOFError("it ends in the middle")
