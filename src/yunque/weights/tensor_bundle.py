"""TensorFlow's checkpoints of today (V2, "tensor bundles"), read without TensorFlow.

`PREFIX.index` says of every tensor its type, shape and place; `PREFIX.data-00000-of-00001` and its
siblings hold the numbers. The index is a sorted table as LevelDB writes it, its values are protocol
buffers. Everything is checked: each block and each tensor has a checksum, and the blocks fill the
index to its last byte, so that a damaged bit cannot pass.

Source: LevelDB's doc/table_format.md; TensorFlow's tensor_bundle.proto, tensor_bundle.h,
tensor_shape.proto, types.proto and versions.proto; RFC 3720, appendix B.4 (CRC-32C).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yunque.errors import InputError, raise_all
from yunque.files import storage_error

Bytes = npt.NDArray[np.uint8]

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
TRAILER = 5  # behind each block: how it is compressed, and its checksum
VERSION = 1  # of the bundles that this reader knows
# The largest GPT-2 needs 40 kB; what a hostile index can make of memory stays small.
LARGEST_INDEX = 1 << 20
LONGEST_NAME = 1000

FLOAT = 1
TYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}


class Damage(Exception):
    """What is wrong in an index; the reader adds the file's name."""


@dataclass(frozen=True)
class Entry:
    """One tensor of float32: its shape, where its bytes lie, and their masked CRC-32C."""

    name: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int
    checksum: int


def read_bundle(prefix: Path) -> dict[str, Entry]:
    """Name → entry of every tensor of the bundle `PREFIX.index`; the data are not yet read.

    Raises:
        InputError: the index is damaged, or (all together) tensors that are not float32, in
            slices, in files that are missing or too short, over each other, or of another size
            than their shape.
        StorageError: reading failed.
    """
    path = prefix.with_name(f"{prefix.name}.index")
    try:
        with path.open("rb") as handle:
            content = handle.read(LARGEST_INDEX + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. It belongs to a TensorFlow checkpoint.") from None
    except OSError as error:
        raise storage_error(error, path, "read") from None
    try:
        if len(content) > LARGEST_INDEX:
            raise Damage(f"larger than {LARGEST_INDEX} bytes")
        table = dict(read_table(content))
        if "" not in table:
            raise Damage("it does not begin with the bundle's header")
        shards = read_header(table.pop(""))
        fields = {name: read_fields(value, ENTRY) for name, value in table.items()}
        shapes = {name: read_shape(found.get("shape", b"")) for name, found in fields.items()}
    except Damage as damage:
        raise InputError(
            f"{path}: damaged or not the index of a TensorFlow checkpoint ({damage}). Copy or "
            "download it again."
        ) from None
    faults: list[str] = []
    entries: dict[str, Entry] = {}
    for name, found in fields.items():
        kind, shape, size = found.get("dtype", 0), shapes[name], found.get("size", 0)
        shard = found.get("shard_id", 0)
        if "slices" in found:
            faults.append(f"{name} is stored in slices, which this reader does not put together.")
        elif kind != FLOAT:
            faults.append(f"{name} is {TYPES.get(kind, f'of the type {kind}')}, expected float32.")
        elif size != 4 * math.prod(shape):
            faults.append(f"{name} is {list(shape)} of float32, but has {size} bytes.")
        elif shard >= shards:
            faults.append(f"{name} is in shard {shard}, and the bundle has {shards}.")
        else:
            file = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
            offset, checksum = found.get("offset", 0), found.get("crc32c", 0)
            entries[name] = Entry(name, shape, file, offset, size, checksum)
    faults += misplaced(list(entries.values()))
    raise_all(f"{path}: this checkpoint cannot be read", faults)
    return entries


def misplaced(entries: list[Entry]) -> list[str]:
    """What is wrong with the places of the tensors: missing and short files, shared bytes."""
    faults = []
    files: dict[Path, list[Entry]] = {}
    for entry in entries:
        files.setdefault(entry.file, []).append(entry)
    for file, inside in sorted(files.items()):
        if not file.is_file():
            faults.append(f"{file.name} is missing; it holds {len(inside)} tensors.")
            continue
        length = file.stat().st_size
        beyond = [entry.name for entry in inside if entry.offset + entry.size > length]
        if beyond:
            faults.append(
                f"{file.name} has {length} bytes and ends before {', '.join(beyond[:3])}"
                f"{f' and {len(beyond) - 3} more' if len(beyond) > 3 else ''}."
            )
        inside.sort(key=lambda entry: (entry.offset, entry.size))
        for one, other in pairwise(inside):
            if one.offset + one.size > other.offset:
                faults.append(f"{one.name} and {other.name} lie over each other in {file.name}.")
    return faults


def read_entry(entry: Entry) -> npt.NDArray[np.float32]:
    """The numbers of one tensor, checked against their checksum.

    Raises:
        InputError: the bytes are not those that were written, or the file ends before them.
        StorageError: reading failed.
    """
    # Pages of its own, which go back to the system at once: from the heap, where the model's own
    # tensors are laid down meanwhile, these would leave holes (7 % of GPT-2 124M, measured).
    content = np.frombuffer(mmap.mmap(-1, max(entry.size, 1)), np.uint8, entry.size)
    try:
        # Without a buffer of Python's: straight into the array.
        with entry.file.open("rb", buffering=0) as handle:
            handle.seek(entry.offset)
            done = 0
            while done < entry.size and (got := handle.readinto(content[done:].data)):
                done += got
    except OSError as error:
        raise storage_error(error, entry.file, "read") from None
    if done < entry.size or masked(crc32c(content)) != entry.checksum:
        raise InputError(
            f"{entry.file}: damaged: the checksum of {entry.name} (bytes {entry.offset} to "
            f"{entry.offset + entry.size}) is not the one in the index. Copy or download it again."
        )
    return content.view("<f4").reshape(entry.shape)


# --- the table ---------------------------------------------------------------------------------


def read_table(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Key and value of a sorted table, in order.

    Raises:
        Damage: anything else than such a table from the first byte to the last.
    """
    if len(content) < FOOTER:
        raise Damage(f"only {len(content)} bytes")
    footer = content[-FOOTER:]
    if footer[-8:] != MAGIC:
        raise Damage("it does not end with the mark of a sorted table")
    meta, at = read_handle(footer, 0)
    index, at = read_handle(footer, at)
    if any(footer[at:-8]):
        raise Damage("something stands in the empty part of its end")
    # Each block has a checksum; where they fill the file no byte is left without one.
    behind = 0
    previous = None
    for last, value in read_block(content, index):
        block, used = read_handle(value, 0)
        if used != len(value) or block[0] != behind:
            raise Damage("its blocks do not follow each other")
        behind = sum(block) + TRAILER
        for key, item in read_block(content, block):
            if (previous is not None and key <= previous) or key > last:
                raise Damage("its keys are not in order")
            previous = key
            try:
                yield key.decode("utf-8"), item
            except UnicodeDecodeError:
                raise Damage(f"the name {key!r} is not UTF-8 text") from None
    for block in (meta, index):
        if block[0] != behind:
            raise Damage("its blocks do not follow each other")
        behind = sum(block) + TRAILER
    if behind != len(content) - FOOTER:
        raise Damage("its blocks do not follow each other")
    if list(read_block(content, meta)):
        raise Damage("it has a block of filters, which TensorFlow does not write")


def read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the position behind it."""
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def read_block(content: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of one block, its checksum held first."""
    offset, size = handle
    end = offset + size
    if end + TRAILER > len(content) - FOOTER:
        raise Damage("a block reaches beyond its end")
    stored = int.from_bytes(content[end + 1 : end + TRAILER], "little")
    if masked(crc32c(np.frombuffer(content, np.uint8, size + 1, offset))) != stored:
        raise Damage(f"the checksum of bytes {offset} to {end} is not theirs")
    block = expanded(content[offset:end], content[end])
    restarts = int.from_bytes(block[-4:], "little")
    last = len(block) - 4 * (restarts + 1)
    if restarts < 1 or last < 0:
        raise Damage("a block without the list of its restarts")
    key, at = b"", 0
    while at < last:
        shared, at = read_varint(block, at)
        rest, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + rest + length > last or shared + rest > LONGEST_NAME:
            raise Damage("a name or a value reaches beyond its block")
        key = key[:shared] + block[at : at + rest]
        at += rest
        yield key, block[at : at + length]
        at += length


def expanded(block: bytes, compression: int) -> bytes:
    """The content of a block: as it stands (0) or compressed with Snappy (1)."""
    if compression == 0:
        return block
    if compression != 1:
        raise Damage(f"a block is compressed in the way {compression}, known are 0 and 1 (Snappy)")
    import pyarrow as pa

    size, _ = read_varint(block, 0)
    if size > LARGEST_INDEX:
        raise Damage(f"a block of {size} bytes")
    try:
        found: bytes = pa.decompress(block, decompressed_size=size, codec="snappy", asbytes=True)
    except (OSError, ValueError) as error:
        raise Damage(f"a block is not Snappy: {error}") from None
    return found


# --- the protocol buffers ----------------------------------------------------------------------

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
Fields = dict[int, tuple[str, int]]
"""Number of a field → its name and how it is written. Nothing else may be there: what we do not
know could change what the rest means."""

HEADER: Fields = {1: ("num_shards", VARINT), 2: ("endianness", VARINT), 3: ("version", LENGTH)}
VERSIONS: Fields = {1: ("producer", VARINT), 2: ("min_consumer", VARINT)}
ENTRY: Fields = {
    1: ("dtype", VARINT),
    2: ("shape", LENGTH),
    3: ("shard_id", VARINT),
    4: ("offset", VARINT),
    5: ("size", VARINT),
    6: ("crc32c", FIXED32),
    7: ("slices", LENGTH),
}
SHAPE: Fields = {2: ("dim", LENGTH), 3: ("unknown_rank", VARINT)}
DIMENSION: Fields = {1: ("size", VARINT), 2: ("name", LENGTH)}


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position behind it."""
    number = 0
    for place in range(10):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 127) << (7 * place)
        if byte == 0 and place:
            break  # The format's writers add no empty group: this one ran into what follows.
        if byte < 128:
            return number, at + place + 1
    raise Damage("a number without a proper end")


def read_message(data: bytes, fields: Fields) -> Iterator[tuple[str, Any]]:
    """Name and value of each field, in file order: numbers, and bytes where a length is given."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, written = tag >> 3, tag & 7
        name, expected = fields.get(number, ("", -1))
        if written != expected:
            raise Damage(f"an unknown field, {number} of the kind {written}")
        if written == VARINT:
            value, at = read_varint(data, at)
            # Numbers of the format are signed; nothing in it is negative.
            if value >= 1 << 63:
                raise Damage(f"{name} is negative")
            yield name, value
            continue
        length = 4
        if written == LENGTH:
            length, at = read_varint(data, at)
        if at + length > len(data):
            raise Damage(f"{name} reaches beyond its message")
        part = data[at : at + length]
        at += length
        yield name, part if written == LENGTH else int.from_bytes(part, "little")


def read_fields(data: bytes, fields: Fields) -> dict[str, Any]:
    """A message as a dictionary; a field that is not there has its format's default, 0 or empty."""
    found: dict[str, Any] = {}
    for name, value in read_message(data, fields):
        if name in found and name != "slices":
            raise Damage(f"{name} stands there twice")
        found[name] = value
    return found


def read_header(data: bytes) -> int:
    """The number of shards.

    Raises:
        Damage: big-endian numbers, or a version that this reader does not know.
    """
    header = read_fields(data, HEADER)
    if header.get("endianness", 0) != 0:
        raise Damage("its numbers are big-endian, which this reader does not know")
    if read_fields(header.get("version", b""), VERSIONS).get("min_consumer", 0) > VERSION:
        raise Damage("it asks for a reader of a later version")
    shards: int = header.get("num_shards", 0)
    if not 1 <= shards <= 99_999:
        raise Damage(f"it has {shards} shards")
    return shards


def read_shape(data: bytes) -> tuple[int, ...]:
    """The sizes of a TensorShapeProto."""
    sizes = []
    for name, value in read_message(data, SHAPE):
        if name == "unknown_rank" and value:
            raise Damage("a tensor without a shape")
        if name == "dim":
            sizes.append(read_fields(value, DIMENSION).get("size", 0))
    return tuple(sizes)


# --- the checksum ------------------------------------------------------------------------------

POLYNOMIAL = 0x82F63B78  # CRC-32C, the lowest bit first
# x^5685 = x^1362 + x^426 + 1 modulo the polynomial, and so in every power of two of the
# exponents: a piece of the message may be moved to three later places, whatever the unit of the
# distances (1 bit · 2^k). tests/weights/test_weights_tensor_bundle.py holds that.
POWERS = (5685, 1362, 426)
UNIT = 32  # bytes: the window of 178 kB stays in the cache of a core
WINDOW = POWERS[0] * UNIT
PIECE = 1 << 21


def masked(checksum: int) -> int:
    """The form in which the format stores a CRC, so that a CRC over CRCs stays a good one."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: Bytes) -> int:
    """CRC-32C (Castagnoli) of `data`.

    Byte by byte that takes Python a minute for GPT-2 124M; this way it takes a third of a second.
    A CRC is the remainder of the message, as a polynomial, by a fixed one; the message is shortened
    first to one of the same remainder, with three exclusive-ors a byte over whole slices.
    """
    if len(data) <= POWERS[0]:
        return divided(data, 0xFFFFFFFF)
    # The register's first value, all ones, inverts the first four bytes.
    if len(data) <= WINDOW:
        work = data.copy()
        work[:4] ^= 255
    else:
        # Zeros before a message do not change it: the first piece stands at the end of its place.
        work = np.zeros(WINDOW + PIECE, dtype=np.uint8)
        first = (len(data) - 4) % PIECE + 4
        work[-first:] = data[:first]
        work[-first:][:4] ^= 255
        shorten(work, UNIT)
        for start in range(first, len(data), PIECE):
            work[:WINDOW] = work[PIECE:]
            work[WINDOW:] = data[start : start + PIECE]
            shorten(work, UNIT)
        work = work[PIECE:]
    shorten(work, 1)
    return divided(work[-POWERS[0] :], 0)


def shorten(work: Bytes, unit: int) -> None:
    """Move all but the last POWERS[0] · unit bytes of a message into those, in place."""
    words = work.view(np.uint64) if unit % 8 == 0 else work
    top, *lower = (power * unit // words.itemsize for power in POWERS)
    step, end = top - lower[0], len(words) - top  # a step moves nothing into itself
    for start in range(0, end, step):
        moved = words[start : min(start + step, end)]
        for power in (*lower, 0):
            target = words[start + top - power :][: len(moved)]
            target ^= moved


def divided(message: Bytes, register: int) -> int:
    """The CRC of a short message, byte by byte."""
    table = byte_table()
    for byte in message.tobytes():
        register = table[register & 255 ^ byte] ^ register >> 8
    return register ^ 0xFFFFFFFF


@cache
def byte_table() -> list[int]:
    """What each byte leaves in the register when it has gone through."""
    table = list(range(256))
    for _ in range(8):
        table = [entry >> 1 ^ POLYNOMIAL * (entry & 1) for entry in table]
    return table
