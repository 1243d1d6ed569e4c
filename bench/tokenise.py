"""How fast text becomes tokens: Yunque against tiktoken, tokenizers, and datasets + transformers.

    python bench/tokenise.py TEXT… [--tokenizer SPEC|PATH] [--megabytes 8] [--rounds 5]

One process, one machine, the contenders in turn within each round, the same text and the same
vocabulary; every contender's ids are compared first. Prints the median of MB/s (UTF-8 bytes, wall
time) with the lowest and highest of the rounds, MB per second of CPU time (all processes), which
other work on the machine disturbs less, and the median of the ratios within each round.

The job of `datasets` is the usual one of fine-tuning scripts: rows of text, `map` with the
tokenizer of `transformers`, `map` again to join the rows and cut them into windows, both written
to its cache files. Ours for that comparison is to encode and to write a token file. Peers that
are not installed are left out: pip install datasets
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# One thread a contender, where it does not say otherwise; set before anything reads it.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import tiktoken

from yunque.data.blocks import Stretch, cut_blocks
from yunque.data.bulk import pattern_of, raw_bytes
from yunque.data.tokenizer import Tokenizer, loaded_tokenizer, tokenizer_for

SEPARATOR = "<|endoftext|>"
WINDOW = 1024
ROW_CHARACTERS = 2000  # of a row of `datasets`: a few paragraphs

Job = Callable[[], object]
Seconds = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("texts", nargs="+", type=Path, help="UTF-8 text files")
    parser.add_argument("--tokenizer", default="bpe:16384", help="as for yunque prepare")
    parser.add_argument("--megabytes", type=float, default=8.0, help="text to encode")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    whole = "\n".join(path.read_text(encoding="utf-8") for path in options.texts)
    size = int(options.megabytes * 1e6)
    text = (whole * (size // len(whole) + 1))[:size]
    tokenizer = tokenizer_for(
        options.tokenizer,
        loaded_tokenizer(options.tokenizer),
        lambda: iter([whole]),
        SEPARATOR,
    )
    blocks = [block.text for block in cut_blocks([Stretch("", text, True)], tokenizer.cuts)]
    megabytes = len(text.encode("utf-8")) / 1e6
    print(
        f"{megabytes:.1f} MB in {len(blocks)} blocks, {tokenizer.vocab_size} tokens "
        f"({tokenizer.kind}), {options.rounds} rounds, {os.cpu_count()} CPUs"
    )
    with tempfile.TemporaryDirectory() as folder:
        jobs = contenders(tokenizer, text, blocks, Path(folder))
        for job in jobs.values():
            job()  # caches, imports
        wall: Seconds = {name: [] for name in jobs}
        cpu: Seconds = {name: [] for name in jobs}
        for _ in range(options.rounds):
            for name, job in jobs.items():
                began, used = time.perf_counter(), sum(os.times()[:4])
                job()
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(sum(os.times()[:4]) - used)
    table(wall, cpu, megabytes)


def contenders(tokenizer: Tokenizer, text: str, blocks: list[str], folder: Path) -> dict[str, Job]:
    """Name → what is timed."""
    jobs: dict[str, Job] = {
        "yunque, 1 thread": lambda: tokenizer.encode_blocks(blocks, 1),
        "yunque, 2 threads": lambda: tokenizer.encode_blocks(blocks, 2),
        "yunque to a token file, 1 thread": lambda: to_file(tokenizer, blocks, 1, folder),
        "yunque to a token file, 2 threads": lambda: to_file(tokenizer, blocks, 2, folder),
        "tokenizers encode_batch_fast, 1 thread": lambda: tokenizer.backend.encode_batch_fast(
            blocks, add_special_tokens=False
        ),
    }
    expected = [tokenizer.encode(block) for block in blocks]
    assert [ids.tolist() for ids in tokenizer.encode_blocks(blocks, 2)] == expected
    peer = same_in_tiktoken(tokenizer)
    if peer is not None:
        assert [peer.encode_ordinary(block) for block in blocks] == expected
        encode = peer.encode_ordinary
        jobs["tiktoken encode_ordinary, 1 thread"] = lambda: [encode(block) for block in blocks]
        jobs["tiktoken encode_ordinary_batch, 2 threads"] = lambda: peer.encode_ordinary_batch(
            blocks, num_threads=2
        )
    if importlib.util.find_spec("datasets") is None:
        print("datasets is not installed and left out: pip install datasets")
    else:
        for processes in (1, 2):
            name = f"datasets + transformers, tokenise and group, {processes} process(es)"
            jobs[name] = mapped(tokenizer, text, processes, folder)
    return jobs


def to_file(tokenizer: Tokenizer, blocks: list[str], threads: int, folder: Path) -> None:
    """Encode and write, a few blocks at a time."""
    dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
    with open(folder / "train.bin", "wb") as file:
        for start in range(0, len(blocks), 32):
            for ids in tokenizer.encode_blocks(blocks[start : start + 32], threads):
                file.write(ids.astype(dtype).tobytes())


def same_in_tiktoken(tokenizer: Tokenizer) -> tiktoken.Encoding | None:
    """tiktoken as one would use it alone, with the ids of a vocabulary that has them in order."""
    import json

    pipeline = json.loads(tokenizer.backend.to_str())
    pattern = pattern_of(pipeline)
    if pattern is None or pipeline["model"]["type"] != "BPE":
        return None
    special = {token["content"]: token["id"] for token in pipeline["added_tokens"]}
    ranks = {
        raw_bytes(token): id
        for token, id in pipeline["model"]["vocab"].items()
        if token not in special
    }
    return tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def mapped(tokenizer: Tokenizer, text: str, processes: int, folder: Path) -> Job:
    """The two maps of the usual scripts, fresh each time."""
    import datasets
    from transformers import AutoTokenizer
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.set_verbosity_error()  # rows longer than the model's window
    tokenizer.save(folder / "tokenizer")
    theirs = AutoTokenizer.from_pretrained(folder / "tokenizer")
    rows = [text[at : at + ROW_CHARACTERS] for at in range(0, len(text), ROW_CHARACTERS)]
    source = datasets.Dataset.from_dict({"text": rows})

    def tokenise(batch: dict[str, list[str]]) -> object:
        return theirs(batch["text"])

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {name: list(itertools.chain(*lists)) for name, lists in batch.items()}
        length = len(joined["input_ids"]) // WINDOW * WINDOW
        found = {
            name: [values[at : at + WINDOW] for at in range(0, length, WINDOW)]
            for name, values in joined.items()
        }
        return {**found, "labels": found["input_ids"].copy()}

    count = itertools.count()

    def job() -> None:
        fresh = folder / f"{processes}-{next(count)}"
        fresh.mkdir()
        more = {"batched": True, "num_proc": processes if processes > 1 else None}
        first = source.map(
            tokenise, remove_columns=["text"], cache_file_name=str(fresh / "ids.arrow"), **more
        )
        first.map(group, cache_file_name=str(fresh / "windows.arrow"), **more)

    return job


def table(wall: Seconds, cpu: Seconds, megabytes: float) -> None:
    """Speeds, and ratios to the contenders that a user would compare with."""
    print(f"\n{'':60}   MB/s  lowest–highest  MB/CPU s")
    for name, times in wall.items():
        speeds = [megabytes / seconds for seconds in times]
        spread = f"{min(speeds):.2f}–{max(speeds):.2f}"
        used = statistics.median(megabytes / seconds for seconds in cpu[name])
        print(f"{name:60} {statistics.median(speeds):6.2f}  {spread:>14}  {used:8.2f}")
    print("\nratios: wall time (lowest–highest), CPU time")
    ours, files = "yunque, {}", "yunque to a token file, {}"
    one, two = "1 thread", "2 threads"
    maps = "datasets + transformers, tokenise and group, {} process(es)"
    for fast, slow in (
        (ours.format(one), "tiktoken encode_ordinary, 1 thread"),
        (ours.format(two), "tiktoken encode_ordinary_batch, 2 threads"),
        (ours.format(two), ours.format(one)),
        (ours.format(one), "tokenizers encode_batch_fast, 1 thread"),
        (files.format(one), maps.format(1)),
        (files.format(two), maps.format(2)),
    ):
        if fast in wall and slow in wall:
            ratios = np.array(wall[slow]) / np.array(wall[fast])
            used = np.median(np.array(cpu[slow]) / np.array(cpu[fast]))
            print(
                f"{fast} / {slow}: {np.median(ratios):.2f} "
                f"({ratios.min():.2f}–{ratios.max():.2f}), {used:.2f}"
            )


if __name__ == "__main__":
    main()
