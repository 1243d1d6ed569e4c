"""RENDERED CONVERSATIONS → TOKEN FILES: special tokens are meant, the split is made beforehand."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yunque.config import DataConfig
from yunque.data.prepare import (
    Prepared,
    Progress,
    request_of,
    reuse_or_build,
    tokenizer_identity,
    write_tokens,
)
from yunque.data.tokenizer import Tokenizer, tokenizer_for


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
        InputError: the tokenizer's name is no way to train one; `out` holds files of something
            else under our names.
        StorageError: reading or writing failed.
    """
    tell = progress or (lambda what, fraction: None)

    def describe() -> dict[str, Any]:
        settings = {
            "tokenizer": tokenizer_identity(config.tokenizer),
            "separator": config.separator,
        }
        key = json.dumps([name, list(special_tokens), chat_template]).encode("utf-8")
        digest = hashlib.sha256(key).hexdigest()
        return request_of(settings, [{"name": name, "bytes": 0, "sha256": digest}])

    def build() -> tuple[Tokenizer, dict[str, Any]]:
        texts = documents()
        apart = re.compile("|".join(map(re.escape, special_tokens)))

        def training_texts() -> Iterator[str]:
            # Between the special tokens: what a merge can be learnt from.
            for text in texts["train"]:
                yield from filter(None, apart.split(text))

        tokenizer = tokenizer_for(
            config.tokenizer, training_texts, config.separator, special_tokens, chat_template
        )
        total = sum(len(text) for part in texts.values() for text in part)
        written = write_tokens(
            ((split, text, True) for split, part in texts.items() for text in part),
            tokenizer,
            True,
            out,
            lambda done: tell("data.encoding", done / total),
            special=True,
        )
        splits = written["splits"].values()
        facts = {
            "files": 0,
            "bytes": sum(item["bytes"] for item in splits),
            "documents": sum(item["documents"] for item in splits),
            "characters": total,
            "split_by": "documents",
            "tokenizer": config.tokenizer,
            **written,
        }
        return tokenizer, facts

    return reuse_or_build(out, describe, build)
