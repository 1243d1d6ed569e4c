"""SOURCES → TOKEN FILES: count, split, tokenize, write; and the account of every character.

The text is read two or three times (count; train the tokenizer; encode), always as a stream, so
memory does not grow with it: 8 bytes a document are kept to split by documents, nothing else.

    OUT/ train.bin val.bin test.bin        token ids, uint16 or uint32, little-endian
         tokenizer.json tokenizer_config.json
         data.json                         facts and fingerprint; written first as "building"
                                           and last as "complete"
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from yunque.config import DataConfig
from yunque.data.batches import TokenFile
from yunque.data.blocks import cut_blocks
from yunque.data.encodings import BadRecord
from yunque.data.sources import Part, find_files, read_parts
from yunque.data.tokenizer import (
    Ids,
    Tokenizer,
    is_path,
    load_tokenizer,
    parse_spec,
    tokenizer_for,
)
from yunque.errors import InputError, StorageError
from yunque.files import (
    read_json,
    remove_file,
    remove_stages,
    run_lock,
    sha256,
    staged_file,
    storage_error,
    write_json,
)
from yunque.words import both

KIND = "yunque tokens"
FORMAT = 1
SPLITS = ("train", "val", "test")
OWN_NAMES = (*(f"{name}.bin" for name in SPLITS), "tokenizer.json", "tokenizer_config.json")
MIN_DOCUMENTS = 20  # from here on, "auto" holds out whole documents
BPE_CHARACTERS = 50_000_000  # merges learnt from more text hardly differ, and memory is bounded
HASH_KEY = b"yunque split 1"

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Prepared:
    """Token files ready for training; `facts` is the ledger of how they came about.

    Facts: files, bytes, documents, blank_documents, blank_characters, separators_read,
    separator_length, characters, split_by, splits (per split: documents, characters, bytes,
    tokens, separators, unknown_tokens), tokens (per split), bytes_per_token, vocab_size,
    vocab_size_asked, tokenizer, tokenizer_kind, tokenizer_trained_on_characters, unknown_tokens,
    forced_cuts, seconds, megabytes_per_second, reused, rebuilt_because.

    characters = those of the splits + blank_characters + separators_read * separator_length.
    Tokens of a split include its separators.
    """

    folder: Path
    tokenizer: Tokenizer
    splits: dict[str, TokenFile]
    facts: dict[str, Any]


@dataclass
class Survey:
    """What the first reading of the sources counts."""

    documents: int = 0
    blank_documents: int = 0
    blank_characters: int = 0
    separators: int = 0
    characters: int = 0  # of the documents that are not blank
    hashes: array[int] = field(default_factory=lambda: array("Q"))


def prepare(
    sources: Sequence[str], config: DataConfig, out: Path, progress: Progress | None = None
) -> Prepared:
    """Turn text files into token files under `out`, or reuse those that are already right.

    Args:
        progress: called with a key of `yunque.words` ("data.counting", "data.training_tokenizer",
            "data.encoding") and the fraction done.

    Raises:
        InputError: sources, tokenizer or split cannot be used; `out` holds files of something
            else under our names.
        StorageError: reading or writing failed.
    """
    tell = progress or (lambda what, fraction: None)
    paths = find_files(sources, config.encoding)
    return reuse_or_build(
        out, lambda: describe(paths, config), lambda: build(paths, config, out, tell)
    )


def reuse_or_build(
    out: Path,
    describe: Callable[[], dict[str, Any]],
    build: Callable[[], tuple[Tokenizer, dict[str, Any]]],
) -> Prepared:
    """What `out` holds where it is what `describe` asks for, else what `build` writes there.

    Raises:
        InputError: `out` holds files of something else under our names.
        StorageError: reading or writing failed.
    """
    began = time.monotonic()
    with run_lock(out):
        request = describe()
        reason = rebuild_reason(out, request)
        if reason is None:
            found = open_prepared(out)
            found.facts["reused"] = True
            return found
        remove_stages(out)
        tokenizer, facts = build()
        seconds = time.monotonic() - began
        facts["seconds"] = seconds
        facts["megabytes_per_second"] = facts["bytes"] / 1e6 / seconds
        facts["fingerprint"] = request["fingerprint"]
        record = {"kind": KIND, "format": FORMAT, "state": "complete", **request, "facts": facts}
        write_json(out / "data.json", record)
        facts["rebuilt_because"] = reason or None
        return Prepared(out, tokenizer, token_files(out, facts), facts)


def describe(paths: Sequence[Path], config: DataConfig) -> dict[str, Any]:
    """What the result depends on: the content of the sources, the settings, the format."""
    settings = {
        "tokenizer": tokenizer_identity(config.tokenizer),
        "separator": config.separator,
        "val": config.val,
        "test": config.test,
        "split_by": config.split_by,
        "encoding": config.encoding,
        "newlines": config.newlines,
        "normalise": config.normalise,
        "skip_bad": config.skip_bad,
    }
    try:
        content = [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in paths
        ]
    except OSError as error:
        raise storage_error(error, Path(error.filename or paths[0]), "read") from None
    return request_of(settings, content)


def request_of(settings: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings and sources (name, bytes, sha256) with the one fingerprint of both."""
    key = json.dumps([FORMAT, settings, [item["sha256"] for item in content]])
    fingerprint = hashlib.sha256(key.encode("utf-8")).hexdigest()
    return {"settings": settings, "sources": content, "fingerprint": fingerprint}


def tokenizer_identity(spec: str) -> str:
    """What the tokens depend on: the spec, or what is in the files where it is a path.

    Raises:
        InputError: neither a spec nor an existing path, or the files are broken.
    """
    if is_path(spec):
        # What counts is the tokenizer, not where it lies.
        return f"sha256:{load_tokenizer(Path(spec).expanduser()).fingerprint}"
    parse_spec(spec)
    return spec


def rebuild_reason(out: Path, request: dict[str, Any]) -> dict[str, str] | None:
    """Why `out` must be built anew, in both languages: {} for a fresh folder, None for no need.

    Raises:
        InputError: files of ours by name that this program did not write.
    """
    if not (out / "data.json").exists():
        strangers = [name for name in OWN_NAMES if (out / name).exists()]
        if strangers:
            raise InputError(
                f"{out}: holds {', '.join(strangers)} that yunque prepare did not write, and would "
                "overwrite them. Choose another --out."
            )
        return {}
    old = read_json(out / "data.json")
    if not isinstance(old, dict) or old.get("kind") != KIND:
        raise InputError(
            f"{out / 'data.json'}: not written by yunque prepare, which would overwrite it. "
            "Choose another --out."
        )
    if old.get("state") != "complete":
        return both("data.rebuilt_interrupted")
    if old.get("format") != FORMAT:
        return both("data.rebuilt_format", old=old.get("format"), new=FORMAT)
    if not is_prepared(out):
        return both("data.rebuilt_damaged")
    for name, new in request["settings"].items():
        # Conversations have fewer settings than texts: where one follows the other, the sources
        # below differ.
        before = old["settings"].get(name, new)
        if before != new:
            return both("data.rebuilt_setting", name=name, old=before, new=new)
    if old["fingerprint"] != request["fingerprint"]:
        known = {item["sha256"] for item in old["sources"]}
        changed = [item["name"] for item in request["sources"] if item["sha256"] not in known]
        if changed:
            return both("data.rebuilt_sources", names=", ".join(changed[:3]), count=len(changed))
        return both("data.rebuilt_source_list", old=len(known), new=len(request["sources"]))
    return None


def build(
    paths: Sequence[Path], config: DataConfig, out: Path, tell: Progress
) -> tuple[Tokenizer, dict[str, Any]]:
    """Write the token files and the tokenizer; return the tokenizer and the facts."""
    total_bytes = sum(path.stat().st_size for path in paths)
    by_hash = config.split_by != "text" and config.val + config.test > 0
    survey = count(paths, config, by_hash, lambda done: tell("data.counting", done))
    if not survey.characters:
        raise InputError(
            f"{', '.join(map(str, paths[:3]))}: nothing but white space; there is no text to learn."
        )
    by_documents = by_hash and (config.split_by == "documents" or survey.documents >= MIN_DOCUMENTS)

    def stream() -> Iterator[tuple[str, str, bool]]:
        parts = all_parts(paths, config)
        if by_documents:
            return split_documents(parts, codes)
        return split_text(parts, bounds)

    codes = document_codes(survey.hashes, config) if by_documents else b""
    bounds = {} if by_documents else text_bounds(survey.characters, config)

    # 1. The tokenizer, from the training text alone.
    trained_on = 0

    def training_texts() -> Iterator[str]:
        nonlocal trained_on
        trained_on = seen = 0
        sample = BPE_CHARACTERS if config.tokenizer.startswith("bpe") else survey.characters
        share = min(1.0, sample / survey.characters)
        for block in cut_blocks(stream(), "safe"):
            seen += len(block.text)
            # Evenly spread: a block is taken whenever the sample lags behind its share.
            if block.split == "train" and (share == 1 or trained_on < share * seen):
                trained_on += len(block.text)
                yield block.text
            tell("data.training_tokenizer", seen / survey.characters)

    tokenizer = tokenizer_for(config.tokenizer, training_texts, config.separator)

    # 2. The tokens. A lone text without separators stays as it is; else each document ends in one.
    separate = survey.documents > 1 or survey.separators > 0
    written = write_tokens(
        stream(),
        tokenizer,
        separate,
        out,
        lambda done: tell("data.encoding", done / survey.characters),
    )
    if sum(item["characters"] for item in written["splits"].values()) != survey.characters:
        raise InputError(f"{out}: the sources changed while they were read; run it again.")
    asked = None if is_path(config.tokenizer) else parse_spec(config.tokenizer)[1]
    facts = {
        "files": len(paths),
        "bytes": total_bytes,
        "documents": survey.documents,
        "blank_documents": survey.blank_documents,
        "blank_characters": survey.blank_characters,
        "separators_read": survey.separators,
        "separator_length": len(config.separator),
        "characters": survey.characters
        + survey.blank_characters
        + survey.separators * len(config.separator),
        "split_by": "documents" if by_documents else "text",
        "tokenizer": config.tokenizer,
        "tokenizer_trained_on_characters": trained_on,
        "vocab_size_asked": asked,
        **written,
    }
    return tokenizer, facts


def write_tokens(
    stream: Iterable[tuple[str, str, bool]],
    tokenizer: Tokenizer,
    separate: bool,
    out: Path,
    tell: Callable[[int], None],
    special: bool = False,
) -> dict[str, Any]:
    """Write the tokenizer and the token files; return the facts that they alone give.

    Args:
        stream, separate, tell, special: as in `encode_all`.
    """
    # From here on an older preparation in `out` is gone, and until the end there is no new one.
    write_json(out / "data.json", {"kind": KIND, "format": FORMAT, "state": "building"})
    tokenizer.save(out)
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    splits, forced = encode_all(stream, tokenizer, separate, out, dtype, tell, special)
    text_bytes = sum(item["bytes"] for item in splits.values())
    text_tokens = sum(item["tokens"] - item["separators"] for item in splits.values())
    return {
        "splits": splits,
        "tokens": {name: item["tokens"] for name, item in splits.items()},
        "dtype": dtype,
        "bytes_per_token": text_bytes / max(1, text_tokens),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_kind": tokenizer.kind,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "unknown_tokens": sum(item["unknown_tokens"] for item in splits.values()),
        "forced_cuts": forced,
        "reused": False,
        "rebuilt_because": None,
    }


def all_parts(paths: Sequence[Path], config: DataConfig) -> Iterator[Part]:
    """The documents of all files, part by part; a file always ends a document."""
    for path in paths:
        yield from parts_of(path, config)


def parts_of(path: Path, config: DataConfig) -> Iterator[Part]:
    """The documents of a file; with skip_bad without the lines that cannot be read."""
    bad: list[BadRecord] = []
    on_bad = bad.append if config.skip_bad else None
    return read_parts(path, config.separator, config, on_bad=on_bad)


def count(
    paths: Sequence[Path], config: DataConfig, hashes: bool, tell: Callable[[float], None]
) -> Survey:
    """Read everything once: how much there is, whether it is UTF-8, a hash of each document."""
    survey = Survey()
    for number, path in enumerate(paths):
        survey.separators -= 1  # a file has one document more than separators
        digest = hashlib.blake2b(key=HASH_KEY, digest_size=8)
        for part in parts_of(path, config):
            survey.separators += part.last
            if part.blank:
                survey.blank_documents += 1
                survey.blank_characters += len(part.text)
                continue
            survey.characters += len(part.text)
            survey.documents += part.last
            if hashes:
                digest.update(part.text.encode("utf-8"))
                if part.last:
                    survey.hashes.append(int.from_bytes(digest.digest(), "little"))
                    digest = hashlib.blake2b(key=HASH_KEY, digest_size=8)
        tell((number + 1) / len(paths))
    return survey


def text_bounds(characters: int, config: DataConfig) -> dict[str, tuple[int, int]]:
    """Split → its (first, behind last) character: train first, then val, test at the end.

    The fractions are rounded to 12 digits first: 1 - 0.3 - 0.1 is 0.6000000000000001 otherwise.
    """
    train = int(round(1 - config.val - config.test, 12) * characters)
    val = int(round(1 - config.test, 12) * characters) if config.test else characters
    if not config.val:
        val = train
    bounds = {"train": (0, train), "val": (train, val), "test": (val, characters)}
    for name, asked in (("train", 1.0), ("val", config.val), ("test", config.test)):
        if asked and bounds[name][0] == bounds[name][1]:
            raise InputError(
                f"{name}: no character left for it: {characters} characters, val {config.val}, "
                f"test {config.test}. Give more text or change the fractions."
            )
    return bounds


def document_codes(hashes: array[int], config: DataConfig) -> bytes:
    """One byte a document, in order: the place of its split in SPLITS.

    The documents with the lowest hashes of their content are held out, as many as the fractions
    say and at least one: the choice does not depend on their order, it hardly moves when
    documents are added, and equal documents always fall into the same split.

    Raises:
        InputError: too few different documents.
    """
    values = np.frombuffer(hashes, dtype=np.uint64)
    ranked = np.sort(values)
    different = len(np.unique(ranked))
    need = 1 + (config.val > 0) + (config.test > 0)
    message = (
        f"{len(values)} documents ({different} different) cannot be split into {need} sets with "
        f"val {config.val} and test {config.test}; use split_by=text."
    )
    if different < need:
        raise InputError(message)
    codes = np.zeros(len(values), dtype=np.uint8)
    taken = 0
    for name, share in (("val", config.val), ("test", config.test)):
        if share:
            taken += max(1, int(round(share * len(values), 9)))
            if taken >= len(values):
                raise InputError(message)
            limit = ranked[taken - 1]
            codes[(codes == 0) & (values <= limit)] = SPLITS.index(name)
            taken = int(np.searchsorted(ranked, limit, side="right"))
    if not (codes == 0).any():
        raise InputError(message)
    return codes.tobytes()


def split_text(
    parts: Iterable[Part], bounds: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, str, bool]]:
    """(split, text, document ends behind it), cut at the bounds in characters."""
    start, split = 0, "train"
    for part in parts:
        if part.blank:
            continue
        for name, (low, high) in bounds.items():
            text = part.text[max(0, low - start) : max(0, high - start)]
            if text:
                split = name
                yield split, text, False
        start += len(part.text)
        if part.last:
            yield split, "", True


def split_documents(parts: Iterable[Part], codes: bytes) -> Iterator[tuple[str, str, bool]]:
    """(split, text, document ends behind it), whole documents."""
    number = 0
    for part in parts:
        if not part.blank:
            yield SPLITS[codes[number]], part.text, part.last
            number += part.last


def encode_all(
    stream: Iterable[tuple[str, str, bool]],
    tokenizer: Tokenizer,
    separate: bool,
    out: Path,
    dtype: str,
    tell: Callable[[int], None],
    special: bool = False,
) -> tuple[dict[str, dict[str, int]], int]:
    """Write every split's token file; return the counts of each split and the forced cuts.

    Args:
        special: texts of special tokens become their ids (rendered conversations).
    """
    names = ("documents", "characters", "bytes", "tokens", "separators", "unknown_tokens")
    counts: dict[str, dict[str, int]] = {}
    separator = packed(np.array([tokenizer.separator_id]), dtype)
    forced = done = 0
    with contextlib.ExitStack() as stack:
        handles: dict[str, IO[bytes]] = {}
        for block in cut_blocks(stream, tokenizer.cuts):
            if special:
                ids = np.array(tokenizer.encode(block.text, special=True), dtype=np.int64)
            else:
                ids = tokenizer.encode_array(block.text)
            if block.split not in handles:
                path = out / f"{block.split}.bin"
                handles[block.split] = stack.enter_context(staged_file(path))
                counts[block.split] = dict.fromkeys(names, 0)
            handle, counted = handles[block.split], counts[block.split]
            handle.write(packed(ids, dtype))
            ends = block.ends and separate
            if ends:
                handle.write(separator)
            counted["documents"] += block.ends
            counted["characters"] += len(block.text)
            counted["bytes"] += len(block.text.encode("utf-8"))
            counted["tokens"] += len(ids) + ends
            counted["separators"] += ends
            if tokenizer.unknown_id is not None:
                counted["unknown_tokens"] += int((ids == tokenizer.unknown_id).sum())
            forced += block.forced
            done += len(block.text)
            tell(done)
    for name in SPLITS:
        if name not in counts:
            remove_file(out / f"{name}.bin")  # of an earlier preparation with other fractions
    return {name: counts[name] for name in SPLITS if name in counts}, forced


def packed(ids: Ids, dtype: str) -> bytes:
    """Token ids as a token file holds them; `astype` alone would wrap what does not fit."""
    stored = np.dtype({"uint16": "<u2", "uint32": "<u4"}[dtype])
    highest, limit = int(ids.max(initial=0)), int(np.iinfo(stored).max)
    assert highest <= limit, f"token id {highest} does not fit in {dtype} (at most {limit})"
    return ids.astype(stored).tobytes()


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds a whole, finished preparation of this format."""
    try:
        open_prepared(folder)
    except (InputError, StorageError):
        return False
    return True


def open_prepared(folder: Path) -> Prepared:
    """Open what `prepare` wrote.

    Raises:
        InputError: it is not there, unfinished, of another format, or its tokenizer was changed.
        StorageError: a token file is missing or has another length than was written.
    """
    record = read_json(folder / "data.json")
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise InputError(f"{folder / 'data.json'}: not written by yunque prepare.")
    if record.get("state") != "complete":
        raise InputError(f"{folder}: its preparation was interrupted; run yunque prepare again.")
    if record.get("format") != FORMAT:
        raise InputError(
            f"{folder}: format {record.get('format')}, this version reads {FORMAT}; "
            "run yunque prepare again."
        )
    facts = record["facts"]
    tokenizer = load_tokenizer(folder)
    if tokenizer.fingerprint != facts["tokenizer_fingerprint"]:
        raise InputError(
            f"{folder / 'tokenizer.json'}: not the tokenizer that the tokens were made with; "
            "run yunque prepare again."
        )
    return Prepared(folder, tokenizer, token_files(folder, facts), facts)


def token_files(folder: Path, facts: dict[str, Any]) -> dict[str, TokenFile]:
    """The token files that the facts tell of, opened."""
    return {
        name: TokenFile(folder / f"{name}.bin", facts["dtype"], length)
        for name, length in facts["tokens"].items()
    }
