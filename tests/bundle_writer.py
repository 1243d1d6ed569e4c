"""Writes TensorFlow's tensor bundles, apart from the product, so that the two check each other.

The first block of an index is held byte for byte against TensorFlow's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = 0xDB4775248B80FB57
FLOAT = 1
Change = Callable[[str, dict[str, Any]], None]
Numbers = npt.NDArray[np.float32]


# --- checksums ---------------------------------------------------------------------------------


@cache
def crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def register_after(data: bytes, register: int = 0xFFFFFFFF) -> int:
    """CRC-32C's register, byte by byte."""
    table = crc_table()
    for byte in data:
        register = table[(register ^ byte) & 255] ^ (register >> 8)
    return register


def register_after_zeros(register: int, zeros: int) -> int:
    """The register after so many zero bytes: the step is linear, so it is squared as a matrix."""
    step = [register_after(b"\0", 1 << bit) for bit in range(32)]  # one column a bit

    def apply(matrix: list[int], vector: int) -> int:
        found = 0
        for bit, column in enumerate(matrix):
            found ^= column if vector >> bit & 1 else 0
        return found

    while zeros:
        if zeros & 1:
            register = apply(step, register)
        step = [apply(step, column) for column in step]
        zeros >>= 1
    return register


def masked_crc(data: bytes, zeros: int = 0) -> int:
    """The stored form of the CRC of `data` and of zeros behind it."""
    crc = register_after_zeros(register_after(data), zeros) ^ 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# --- protocol buffers --------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def number(field: int, value: int) -> bytes:
    """An integer field; the default 0 is left out, as proto3 does."""
    return varint(field << 3) + varint(value) if value else b""


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def header(shards: int = 1, endianness: int = 0, min_consumer: int = 0) -> bytes:
    version = number(1, 1) + number(2, min_consumer)
    return number(1, shards) + number(2, endianness) + message(3, version)


def entry(fields: Mapping[str, Any]) -> bytes:
    """A BundleEntryProto; "tail" is put behind it as it is."""
    dims = b"".join(message(2, number(1, size)) for size in fields["shape"])
    return (
        number(1, fields["dtype"])
        + message(2, dims)
        + number(3, fields["shard_id"])
        + number(4, fields["offset"])
        + number(5, fields["size"])
        + varint(6 << 3 | 5)
        + fields["crc32c"].to_bytes(4, "little")
        + fields.get("tail", b"")
    )


# --- the sorted table --------------------------------------------------------------------------


def block(items: list[tuple[bytes, bytes]], restart_every: int = 16) -> bytes:
    found, restarts, previous = b"", [], b""
    for place, (key, value) in enumerate(items):
        shared = 0
        if place % restart_every == 0:
            restarts.append(len(found))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        found += varint(shared) + varint(len(key) - shared) + varint(len(value))
        found += key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return found + b"".join(at.to_bytes(4, "little") for at in [*restarts, len(restarts)])


def sorted_table(
    items: list[tuple[bytes, bytes]], compression: int = 0, block_items: int = 1000
) -> bytes:
    """A table with so many items a block; compression 1 is Snappy, others are only claimed."""
    found = b""

    def put(content: bytes, kind: int) -> bytes:
        nonlocal found
        if kind == 1:
            import pyarrow as pa

            content = pa.compress(content, codec="snappy", asbytes=True)
        content += bytes([kind])
        handle = varint(len(found)) + varint(len(content) - 1)
        found += content + masked_crc(content).to_bytes(4, "little")
        return handle

    index = []
    for start in range(0, len(items), block_items):
        part = items[start : start + block_items]
        index.append((part[-1][0], put(block(part), compression)))
    handles = put(block([]), compression) + put(block(index, 1), compression)
    return found + handles.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, Numbers],
    *,
    shards: int = 1,
    change: Change | None = None,
    head: bytes | None = None,
    **table: int,
) -> None:
    """Write a bundle: tensors in the order of their names, in turn into each shard.

    Args:
        change: may spoil the fields of an entry, by its name.
        head: bundle header in place of the right one.
        table: compression and block_items of `sorted_table`.
    """
    names = sorted(tensors)
    data = [b""] * shards
    items = [(b"", header(shards) if head is None else head)]
    for place, name in enumerate(names):
        content = np.ascontiguousarray(tensors[name], dtype="<f4").tobytes()
        shard = place % shards
        fields = {
            "dtype": FLOAT,
            "shape": tensors[name].shape,
            "shard_id": shard,
            "offset": len(data[shard]),
            "size": len(content),
            "crc32c": masked_crc(content),
        }
        data[shard] += content
        if change is not None:
            change(name, fields)
        items.append((name.encode(), entry(fields)))
    for shard, content in enumerate(data):
        shard_path(prefix, shard, shards).write_bytes(content)
    prefix.with_name(f"{prefix.name}.index").write_bytes(sorted_table(items, **table))


def write_sparse_bundle(prefix: Path, heads: Mapping[str, tuple[tuple[int, ...], bytes]]) -> None:
    """Write a bundle of tensors that are a few bytes and then zeros, as a file with holes."""
    items = [(b"", header())]
    offset = 0
    with shard_path(prefix, 0, 1).open("wb") as handle:
        for name, (shape, first) in sorted(heads.items()):
            size = 4 * int(np.prod(shape))
            fields = {
                "dtype": FLOAT,
                "shape": shape,
                "shard_id": 0,
                "offset": offset,
                "size": size,
                "crc32c": masked_crc(first, size - len(first)),
            }
            items.append((name.encode(), entry(fields)))
            handle.seek(offset)
            handle.write(first)
            offset += size
        handle.truncate(offset)
    prefix.with_name(f"{prefix.name}.index").write_bytes(sorted_table(items))


def shard_path(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
