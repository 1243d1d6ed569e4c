"""Thousands of broken files for every reader of what is foreign: a named fault, never a traceback.

Sources of text (json, jsonl, csv, txt) are broken by tests/broken_sources.py.
"""

from __future__ import annotations

import json
import shutil
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from broken_sources import fuzz
from bundle_writer import write_bundle
from small_runs import SMALL, without_pages, write_text

from yunque.assemble.exams import read_exam
from yunque.assemble.runs import pretrain
from yunque.config import Recipe, merge, read_tree, validate
from yunque.data.chat_template import DEFAULT_CHAT_TEMPLATE, ChatTemplate
from yunque.data.prepare import open_prepared
from yunque.data.tokenizer import load_tokenizer
from yunque.errors import InputError, StorageError
from yunque.reports.read import read as read_log
from yunque.runlog import read as read_rows
from yunque.train import checkpoint
from yunque.weights.folder import open_folder
from yunque.weights.gguf_file import open_gguf
from yunque.weights.tensor_bundle import read_bundle

Many = Callable[[int, int], int]
Say = Callable[[str], None]
SECONDS = 5.0
SPLICES = [
    *(b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"\\"),
    *(b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"-", b"null", b"true", b"NaN", b"1e999"),
    *(b"-1", b"1.5", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"../", b"{{", b"}}", b"{%"),
    *(b"{% for x in range(99999999) %}a{% endfor %}", b"{{ 'a' * 10 ** 10 }}", b"{}", b"[]"),
    *(b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"\x01", b"= ", b"[[", b"'''"),
]


@dataclass(frozen=True)
class Target:
    """A kind of file and what reads it. Args of `read`: the file that was broken."""

    name: str
    file: Path
    read: Callable[[Path], Any]
    named: str
    """What every message must name."""


def broken(dice: Random, content: bytes) -> bytes:
    """Content that was cut, spliced, repeated, flipped, or has a value of another kind."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        at, to = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        match dice.randrange(7):
            case 0:
                del data[at:]
            case 1:
                del data[at : min(to, at + 40)]
            case 2 | 3:
                data[at:at] = dice.choice(SPLICES)
            case 4:
                data[at:at] = data[at:to][:2000] * dice.randint(1, 4)
            case 5 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case _:
                digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
                if digits:
                    place = dice.choice(digits)
                    data[place : place + 1] = dice.choice(
                        [b"-1", b"0", b"99999999999999999999", b"1e9", b'"x"', b"null", b"[]"]
                    )
    return bytes(data[: 1 << 20])


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    with without_pages():
        pretrain(str(write_text(folder)), folder / "run", **{**SMALL, "steps": 4, "eval_every": 2})
    run, exam = folder / "run", folder / "exam.jsonl"
    exam.write_text('{"question": "¿1 + 1?", "answer": "2"}\n' * 3, encoding="utf-8")
    prefix = folder / "model.ckpt"
    write_bundle(prefix, {"model/wte": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)})
    gguf = folder / "model.gguf"
    gguf.write_bytes(small_gguf())
    newest = sorted((run / "checkpoints").iterdir())[-1]
    template = folder / "template.jinja"
    template.write_text(DEFAULT_CHAT_TEMPLATE, encoding="utf-8")
    model = Path(shutil.copytree(run / "last", folder / "model"))
    talk = [{"role": "user", "content": "hola"}, {"role": "assistant", "content": "¿qué tal?"}]

    def recipe(path: Path) -> None:
        validate(merge(Recipe(), read_tree(path), str(path)))

    def rendered(path: Path) -> None:
        source = path.read_text(encoding="utf-8", errors="replace")
        ChatTemplate(source).run(talk)

    def rows(path: Path) -> None:
        for _ in read_rows(path):
            pass

    def verified(path: Path) -> None:
        checkpoint.verify(path.parent)

    data = run / "data"
    return [
        Target("recipe", run / "recipe.toml", recipe, ""),
        Target("run log", run / "log.jsonl", rows, "log.jsonl"),
        Target("report of a log", run / "log.jsonl", lambda path: read_log(path), "log.jsonl"),
        Target("manifest", newest / "manifest.json", verified, newest.name),
        Target("state", newest / "state.json", verified, "state.json"),
        Target("data.json", data / "data.json", lambda path: open_prepared(path.parent), "data"),
        Target("tokenizer", data / "tokenizer.json", lambda p: load_tokenizer(p.parent), "data"),
        Target(
            "safetensors", model / "model.safetensors", lambda p: open_folder(p.parent), "model"
        ),
        Target("config.json", model / "config.json", lambda p: open_folder(p.parent), "model"),
        Target("chat template", template, rendered, ""),
        Target("exam", exam, read_exam, "exam.jsonl"),
        Target("gguf", gguf, open_gguf, "model.gguf"),
        Target("bundle", Path(f"{prefix}.index"), lambda _: read_bundle(prefix), "model.ckpt"),
    ]


def small_gguf() -> bytes:
    """A GGUF of one text, one list and one tensor, by the format's own description."""

    def text(value: str) -> bytes:
        return len(value).to_bytes(8, "little") + value.encode()

    def word(value: int, size: int = 4) -> bytes:
        return value.to_bytes(size, "little")

    head = b"GGUF" + word(3) + word(1, 8) + word(3, 8)
    head += text("general.architecture") + word(8) + text("llama")
    head += text("llama.block_count") + word(4) + word(2)
    head += text("tokens") + word(9) + word(8) + word(2, 8) + text("a") + text("b")
    head += text("token_embd.weight") + word(2) + word(4, 8) + word(2, 8) + word(0) + word(0, 8)
    return head + b"\0" * (-len(head) % 32) + torch.ones(8).numpy().tobytes()


def test_f17_f19_broken_files(
    targets: list[Target], chance: Random, many: Many, figures: Say
) -> None:
    count, ends, slowest = many(40, 3100), Counter[str](), 0.0
    faults: list[str] = []
    for target in targets:
        sound = target.file.read_bytes()
        target.read(target.file)
        found = Counter[str]()
        for _ in range(count):
            content = broken(chance, sound)
            target.file.write_bytes(content)
            began = time.process_time()  # of the processor: a busy machine is no fault
            try:
                target.read(target.file)
                found["read"] += 1
            except (InputError, StorageError) as error:
                found["named"] += 1
                if target.named not in str(error):
                    faults.append(f"{target.name}: names no file: {error}")
            except Exception as error:
                faults.append(f"{target.name}: {type(error).__name__}: {error}: {content[:300]!r}")
            slowest = max(slowest, time.process_time() - began)
            assert slowest < SECONDS, f"{target.name}: {content[:300]!r}"
        target.file.write_bytes(sound)
        assert found["named"], target.name
        ends += found
    kinds = {fault.partition(":")[0]: fault for fault in faults}
    assert not faults, f"{len(faults)} of {count * len(targets)}: {json.dumps(kinds, indent=1)}"
    figures(
        f"F17-19  {count * len(targets)} broken files of {len(targets)} kinds: {dict(ends)}, "
        f"0 tracebacks, the slowest {slowest:.1f} s"
    )


def test_f17_broken_sources(tmp_path: Path, chance: Random, many: Many, figures: Say) -> None:
    count = many(200, 20_000)
    tracemalloc.start()
    try:
        ends = fuzz(tmp_path, chance.randrange(1 << 30), count)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(ends.values()) == 2 * count
    assert peak < 60 << 20
    figures(
        f"F17  {count} broken json, jsonl, csv and txt, strictly and leaving out: {ends}, 0 "
        f"tracebacks, at most {peak / 1e6:.0f} MB"
    )
