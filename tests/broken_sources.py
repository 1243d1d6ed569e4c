"""Broken json, jsonl, csv and txt: a named fault or a listed record, never a traceback."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest

from yunque.config import DataConfig
from yunque.data.encodings import BadRecord, ReadNotes, read_text
from yunque.data.records import read_records
from yunque.errors import InputError, StorageError

SECONDS = 5.0
"""Of the processor, so that a busy machine breaks no test."""
ROWS = [
    {"question": f"¿Cuánto es {n} + {n}?", "answer": f"Son {2 * n}.\n", "n": n, "x": [1.5, None]}
    for n in range(6)
]
SEEDS = {
    ".json": [json.dumps(ROWS, indent=1), json.dumps({"data": ROWS}, ensure_ascii=False), "[]"],
    ".jsonl": ["".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)],
    ".csv": ['q,a\n"¿Qué ""es""?",uno\nx,"dos\nlíneas"\n', "a;b\r\n1;2\r\n", "text\nhola\n"],
    ".txt": ["El niño comió jamón.\n<|endoftext|>\r\n¿Qué más?\n" * 4],
}
SPLICES = [
    *(
        b"\0",
        b"\xff",
        b"\xf1",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\r",
        b"\n",
    ),
    *(b'"', b"'", b"\\", b"\\u", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b";", b"\t"),
    *(b"NaN", b"1e999", b"-", b"null", b"[" * 300, b'{"a":' * 300, b'"' * 99, b"9" * 5000),
    *("e\u0301\u0323".encode() * 50, b"\xcc\x81" * 200, b"\n" * 50, b"a" * 3000, b"\xe2\x80\xa8"),
]


def mutated(dice: random.Random) -> tuple[str, bytes]:
    """A suffix and the content of a file that was cut, spliced, repeated or shuffled."""
    suffix = dice.choice(list(SEEDS))
    data = bytearray(dice.choice(SEEDS[suffix]).encode(dice.choice(["utf-8"] * 6 + ["utf-16"])))
    for _ in range(dice.randint(1, 5)):
        at, to = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        match dice.randrange(6):
            case 0:
                del data[at:]
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = dice.choice(SPLICES)
            case 3:
                data[at:at] = data[at:to] * dice.randint(1, 9)
            case 4 if at < len(data):
                data[at] = dice.randrange(256)
            case _:
                data[at:at] = dice.randbytes(dice.randint(1, 9))
    return suffix, bytes(data[: 1 << 20])


def fuzz(folder: Path, seed: int, count: int) -> dict[str, int]:
    """Read `count` broken files, strictly and leaving out; return how they ended."""
    dice = random.Random(seed)
    ends = {"read": 0, "named": 0, "listed": 0}
    for number in range(count):
        suffix, content = mutated(dice)
        path = folder / f"f{suffix}"
        path.write_bytes(content)
        what = f"seed {seed}, file {number}{suffix}: {content[:200]!r}"
        for skip in (False, True):
            bad: list[BadRecord] = []
            notes = ReadNotes()
            reader = read_text if suffix == ".txt" else read_records
            began = time.process_time()
            try:
                for _ in reader(path, DataConfig(), notes, bad.append if skip else None):
                    pass
                assert notes.open_bytes == 0, what
                ends["listed" if bad else "read"] += 1
            except (InputError, StorageError) as error:
                if not re.match(rf"{re.escape(str(path))}:\d+: ", str(error)):
                    pytest.fail(f"{what}: names no file and line: {error}")
                ends["named"] += 1
            except Exception as error:
                raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
            assert time.process_time() - began < SECONDS, what
            assert all(item.source == str(path) and item.line >= 1 for item in bad), what
            assert notes.bad_bytes == sum(item.size for item in bad), what
    return ends
