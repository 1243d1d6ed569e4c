"""RENDERED CONVERSATIONS → TOKEN FILES: special tokens are meant, the split is made beforehand."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from yunque.config import DataConfig
from yunque.data.prepare import (
    FORMAT,
    KIND,
    Prepared,
    Progress,
    encode_all,
    is_prepared,
    open_prepared,
)
from yunque.data.tokenizer import tokenizer_for
from yunque.files import read_json, run_lock, write_json


def prepare_rendered(
    documents: Callable[[], Mapping[str, Sequence[str]]],
    name: str,
    config: DataConfig,
    out: Path,
    special_tokens: Sequence[str],
    chat_template: str,
    progress: Progress | None = None,
) -> Prepared:
    """Token files of conversations that are already text, or those that are already right.

    Args:
        documents: makes split ("train", "val") → its documents, each without its last end token;
            called only where there is something to do.
        name: what the documents are made from; the same name stands for the same documents.
        special_tokens: texts that become one token each.

    Raises:
        InputError: the tokenizer's name is no way to train one.
        StorageError: reading or writing failed.
    """
    began = time.monotonic()
    tell = progress or (lambda what, fraction: None)
    key = json.dumps([FORMAT, name, config.tokenizer, config.separator, chat_template])
    fingerprint = hashlib.sha256(key.encode("utf-8")).hexdigest()
    with run_lock(out):
        if is_prepared(out) and read_json(out / "data.json").get("fingerprint") == fingerprint:
            found = open_prepared(out)
            found.facts["reused"] = True
            return found
        texts = documents()
        apart = re.compile("|".join(map(re.escape, special_tokens)))

        def training_texts() -> Iterator[str]:
            # Between the special tokens: what a merge can be learnt from.
            for text in texts["train"]:
                yield from filter(None, apart.split(text))

        tokenizer = tokenizer_for(
            config.tokenizer, training_texts, config.separator, special_tokens, chat_template
        )
        write_json(out / "data.json", {"kind": KIND, "format": FORMAT, "state": "building"})
        tokenizer.save(out)
        total = sum(len(text) for part in texts.values() for text in part)
        stream = ((split, text, True) for split, part in texts.items() for text in part)
        splits, _ = encode_all(
            stream,
            tokenizer,
            True,
            out,
            "uint16",
            lambda done: tell("data.encoding", done / total),
            special=True,
        )
        size = sum(item["bytes"] for item in splits.values())
        tokens = sum(item["tokens"] - item["separators"] for item in splits.values())
        seconds = time.monotonic() - began
        facts = {
            "files": 0,
            "bytes": size,
            "documents": sum(item["documents"] for item in splits.values()),
            "characters": total,
            "split_by": "documents",
            "splits": splits,
            "tokens": {split: item["tokens"] for split, item in splits.items()},
            "dtype": "uint16",
            "bytes_per_token": size / max(1, tokens),
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": config.tokenizer,
            "tokenizer_kind": tokenizer.kind,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "unknown_tokens": sum(item["unknown_tokens"] for item in splits.values()),
            "seconds": seconds,
            "megabytes_per_second": size / 1e6 / seconds,
            "reused": False,
            "fingerprint": fingerprint,
        }
        record = {
            "kind": KIND,
            "format": FORMAT,
            "state": "complete",
            "fingerprint": fingerprint,
            "facts": facts,
        }
        write_json(out / "data.json", record)
        return open_prepared(out)
