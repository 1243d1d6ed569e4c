"""TensorFlow's bundles: its own files bit for bit, and every kind of damage named.

The fixture was written by TensorFlow 2.21.0 with openai_fixture/make_fixture.py.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import (
    block,
    entry,
    header,
    message,
    number,
    register_after,
    register_after_zeros,
    shard_path,
    sorted_table,
    varint,
    write_bundle,
)

from yunque.errors import InputError
from yunque.weights import tensor_bundle
from yunque.weights.tensor_bundle import crc32c, read_bundle, read_entry

FIXTURE = Path(__file__).parent / "openai_fixture"
DATA = "model.ckpt.data-00000-of-00001"
SMALL = {
    "a/b": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a/c": np.array([-0.0, np.inf, np.nan], dtype=np.float32),
    "b": np.full((1, 2, 1), 3e-42, dtype=np.float32),
}


def copied_fixture(tmp_path: Path, name: str = "one") -> Path:
    """A copy of the fixture; the prefix of its bundle."""
    shutil.copytree(FIXTURE / name, tmp_path / name)
    return tmp_path / name / "model.ckpt"


def hashes(prefix: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256(read_entry(found).tobytes()).hexdigest()
        for name, found in read_bundle(prefix).items()
    }


@pytest.mark.parametrize("name", ["one", "two"])
def test_tensorflows_own_files_bit_for_bit(name: str) -> None:
    expected = json.loads((FIXTURE / "sha256.json").read_text())["sha256"][name]
    assert len(expected) == 28
    assert hashes(FIXTURE / name / "model.ckpt") == expected
    files = {found.file.name for found in read_bundle(FIXTURE / name / "model.ckpt").values()}
    assert len(files) == {"one": 1, "two": 2}[name]


def test_the_writer_of_these_tests_writes_what_tensorflow_writes(tmp_path: Path) -> None:
    tensors = {
        name: read_entry(found) for name, found in read_bundle(FIXTURE / "one/model.ckpt").items()
    }
    # TensorFlow lays the tensors out by name, as the writer does.
    write_bundle(tmp_path / "model.ckpt", tensors)
    assert (tmp_path / DATA).read_bytes() == (FIXTURE / "one" / DATA).read_bytes()
    ours = (tmp_path / "model.ckpt.index").read_bytes()
    theirs = (FIXTURE / "one/model.ckpt.index").read_bytes()
    # All but the index of the blocks, whose keys TensorFlow shortens.
    items = [(name.encode(), value) for name, value in tensor_bundle.read_table(theirs)]
    first = len(block(items)) + 5
    assert first > 700
    assert ours[:first] == theirs[:first]


@pytest.mark.parametrize("table", [{}, {"compression": 1}, {"block_items": 1}, {"block_items": 3}])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_bundles_of_all_forms(table: dict[str, int], shards: int, tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", SMALL, shards=shards, **table)
    found = read_bundle(tmp_path / "x")
    assert list(found) == sorted(SMALL)
    for name, expected in SMALL.items():
        assert found[name].shape == expected.shape
        assert read_entry(found[name]).tobytes() == expected.tobytes()
        assert read_entry(found[name]).dtype == np.float32


# --- checksum ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_checksum_of_the_standard(data: bytes, expected: int) -> None:
    """RFC 3720, B.4, and the catalogue's check value."""
    assert crc32c(np.frombuffer(data, dtype=np.uint8)) == expected


def test_checksum_of_every_length_at_the_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_bundle, "PIECE", piece := 32 * 1024)
    window = tensor_bundle.WINDOW
    sizes = {0, 1, 2, 3, 4, 5, 5684, 5685, 5686, 5690, 10008, 10009, 60000}
    sizes |= {edge + more for edge in (window, window + piece) for more in (-1, 0, 1, 4, 5, 4097)}
    data = np.random.default_rng(5).integers(0, 256, max(sizes), dtype=np.uint8)
    before = data.copy()
    register, done = 0xFFFFFFFF, 0
    for size in sorted(sizes):
        register, done = register_after(data[done:size].tobytes(), register), size
        assert crc32c(data[:size]) == register ^ 0xFFFFFFFF, size
    assert np.array_equal(data, before)


def test_checksum_of_a_long_message() -> None:
    data = np.zeros(3 * tensor_bundle.PIECE + 4321, dtype=np.uint8)
    data[:5] = [1, 2, 3, 4, 200]
    expected = register_after_zeros(register_after(data[:5].tobytes()), len(data) - 5)
    assert crc32c(data) == expected ^ 0xFFFFFFFF


def test_the_powers_are_congruent() -> None:
    """x^a = x^b + x^c + 1, by multiplying by x step by step."""
    highest, *others = tensor_bundle.POWERS

    def power(exponent: int) -> int:
        value = 1
        for _ in range(exponent):
            value <<= 1
            if value >> 32:
                value ^= 0x11EDC6F41
        return value

    assert power(highest) == power(others[0]) ^ power(others[1]) ^ 1


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_flipped_bit_of_the_index_is_seen(name: str, tmp_path: Path) -> None:
    prefix = copied_fixture(tmp_path, name)
    path = prefix.with_name("model.ckpt.index")
    content = path.read_bytes()
    draw = random.Random(6)
    for at in range(draw.randrange(11), len(content), 11):
        path.write_bytes(
            content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
        )
        with pytest.raises(InputError, match=r"model\.ckpt\.index: damaged"):
            read_bundle(prefix)


@pytest.mark.slow
def test_every_flipped_bit_of_the_index_is_seen(tmp_path: Path) -> None:
    prefix = copied_fixture(tmp_path)
    path = prefix.with_name("model.ckpt.index")
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"model\.ckpt\.index: damaged"):
            read_bundle(prefix)


def test_an_index_cut_anywhere_is_named(tmp_path: Path) -> None:
    prefix = copied_fixture(tmp_path)
    path = prefix.with_name("model.ckpt.index")
    content = path.read_bytes()
    for size in (*range(0, len(content), 13), len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"model\.ckpt\.index: damaged"):
            read_bundle(prefix)
    path.write_bytes(content + b"\0")
    with pytest.raises(InputError, match=r"model\.ckpt\.index: damaged"):
        read_bundle(prefix)
    path.unlink()
    with pytest.raises(InputError, match=r"model\.ckpt\.index: no such file"):
        read_bundle(prefix)


def test_a_flipped_bit_of_a_tensor_names_it(tmp_path: Path) -> None:
    prefix = copied_fixture(tmp_path)
    path = prefix.with_name(DATA)
    content = path.read_bytes()
    draw = random.Random(7)
    entries = read_bundle(prefix)
    for name, found in entries.items():
        changed = bytearray(content)
        changed[found.offset + draw.randrange(found.size)] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        broken = [other for other in entries if not readable(entries[other])]
        assert broken == [name]
    with pytest.raises(InputError, match=rf"{DATA}: damaged: the checksum of model/wte \(bytes"):
        read_entry(entries["model/wte"])


def readable(found: tensor_bundle.Entry) -> bool:
    try:
        read_entry(found)
    except InputError:
        return False
    return True


def test_short_and_missing_data_are_named(tmp_path: Path) -> None:
    prefix = copied_fixture(tmp_path)
    entries = read_bundle(prefix)
    path = prefix.with_name(DATA)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{DATA} has 7583 bytes and ends before model/wte\."):
        read_bundle(prefix)
    with pytest.raises(InputError, match="damaged: the checksum of model/wte"):
        read_entry(entries["model/wte"])  # cut after the index was read
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"has 0 bytes and ends before .* and 25 more\."):
        read_bundle(prefix)
    prefix = copied_fixture(tmp_path, "two")
    shard_path(prefix, 1, 2).unlink()
    with pytest.raises(InputError, match=r"00001-of-00002 is missing; it holds 14 tensors"):
        read_bundle(prefix)


def changed(**fields: Any) -> Any:
    """Sets fields of the entry a/c."""

    def change(name: str, found: dict[str, Any]) -> None:
        if name == "a/c":
            found.update(fields)

    return change


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dtype": 19}, "a/c is float16, expected float32"),
        ({"dtype": 7}, "a/c is string, expected float32"),
        ({"dtype": 0}, "a/c is of the type 0, expected float32"),
        ({"dtype": 77}, "a/c is of the type 77, expected float32"),
        ({"shape": (4,)}, r"a/c is \[4\] of float32, but has 12 bytes"),
        ({"size": 16}, r"a/c is \[3\] of float32, but has 16 bytes"),
        ({"offset": 60}, "has 68 bytes and ends before a/c"),
        ({"offset": 1 << 62}, "has 68 bytes and ends before a/c"),
        ({"offset": 44}, "a/b and a/c lie over each other"),
        ({"shard_id": 1}, "a/c is in shard 1, and the bundle has 1"),
        ({"tail": message(7, b"")}, "a/c is stored in slices"),
        ({"offset": -8}, "damaged.*offset is negative"),
        ({"shape": (-1,)}, "damaged.*size is negative"),
        ({"tail": number(9, 1)}, "damaged.*an unknown field, 9 of the kind 0"),
        ({"tail": number(1, 1)}, "damaged.*dtype stands there twice"),
        ({"tail": varint(7 << 3 | 2) + b"\x05ab"}, "damaged.*slices reaches beyond"),
        ({"tail": b"\xff"}, "damaged.*a number without a proper end"),
    ],
)
def test_faults_of_an_entry_are_named(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", SMALL, change=changed(**fields))
    with pytest.raises(InputError, match=rf"(?s)x\.index: .*{words}"):
        read_bundle(tmp_path / "x")


def test_faults_of_several_tensors_come_together(tmp_path: Path) -> None:
    def change(name: str, found: dict[str, Any]) -> None:
        found.update({"a/b": {"dtype": 3}, "a/c": {"size": 8}, "b": {"offset": 999}}[name])

    write_bundle(tmp_path / "x", SMALL, change=change)
    with pytest.raises(InputError, match=r"(?s)1\. a/b is int32.*2\. a/c is .*3\. x\.data-.* b\."):
        read_bundle(tmp_path / "x")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (header(1, endianness=1), "big-endian"),
        (header(1, min_consumer=2), "a reader of a later version"),
        (header(0), "it has 0 shards"),
        (header(100_000), "it has 100000 shards"),
        (header(1) + number(4, 1), "an unknown field, 4"),
    ],
)
def test_headers_that_are_not_known(head: bytes, words: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", SMALL, head=head)
    with pytest.raises(InputError, match=words):
        read_bundle(tmp_path / "x")


ENTRY = entry({"dtype": 1, "shape": (), "shard_id": 0, "offset": 0, "size": 4, "crc32c": 0})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (sorted_table([(b"", header()), (b"a", ENTRY)], compression=2), "in the way 2, known"),
        (sorted_table([(b"", header()), (b"b", ENTRY), (b"a", ENTRY)]), "keys are not in order"),
        (sorted_table([(b"", header()), (b"a", ENTRY), (b"a", ENTRY)]), "keys are not in order"),
        (sorted_table([(b"", header()), (b"a" * 1001, ENTRY)]), "a name or a value reaches"),
        (sorted_table([(b"", header()), (b"\xff", ENTRY)]), "not UTF-8"),
        (sorted_table([(b"a", ENTRY)]), "does not begin with the bundle's header"),
        (sorted_table([(b"", header()), (b"a", ENTRY)]) + b"\0" * 48, "the mark of a sorted table"),
        (b"\0" + sorted_table([(b"", header()), (b"a", ENTRY)]), "is not theirs"),
        (b"x" * 20, "only 20 bytes"),
        (bytes((1 << 20) + 1), "larger than 1048576 bytes"),
    ],
)
def test_tables_that_are_not_of_the_format(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.index").write_bytes(content)
    with pytest.raises(InputError, match=re.compile(words)):
        read_bundle(tmp_path / "x")


def test_a_snappy_block_that_claims_a_lot_is_refused(tmp_path: Path) -> None:
    whole = sorted_table([(b"", header()), (b"a" * 900, ENTRY)], compression=1)
    size, at = tensor_bundle.read_varint(whole, 0)
    assert size > 900
    with pytest.raises(tensor_bundle.Damage, match="a block of 4294967296 bytes"):
        tensor_bundle.expanded(varint(1 << 32) + whole[at:], 1)
    with pytest.raises(tensor_bundle.Damage, match="a block is not Snappy"):
        tensor_bundle.expanded(varint(900) + b"\xff" * 20, 1)
