"""Cutting a text changes neither text nor ids, and memory stays bounded without good places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from yunque.data.blocks import SAFE_CUT, Block, Stretch, cut_blocks
from yunque.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

SEP = "<|endoftext|>"
PIECES = ["\n", "\r\n", "\r", " ", "  ", "\t", "\u00a0", "\u2028", "\x1c", "\x85", "\u200b"]
PIECES += ["a", "Ñu", "é", "e\u0301", "中文", "'s", "’", "'", ".", "...", "/", "_", "7", "42", "½"]
PIECES += [
    "don't",
    "L'art",
    "👩‍👩‍👧",
    "\x00",
    "²",
    "-",
    "«",
    "hola",
    "x y z",
    SEP,
    "ß",
    "\ufeff",
    "ا",
    "क्",
]
ADVERSARIAL = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@pytest.fixture(scope="module")
def tokenizers() -> list[Tokenizer]:
    text = "".join(PIECES) * 3 + "hola hola x y z don't don't\nhola.\n" * 5
    made = [
        train_tokenizer(spec, lambda: iter([text]), SEP)
        for spec in ("char", "byte", "word", "word:20", "bpe:300", "unigram:300")
    ]
    for name in ("gpt2", "phi-2", "minimind"):
        made.append(load_tokenizer(shared(f"tokenizers/{name}")))
    return made


def blocks(text: str, cuts: str, size: int = 3, feed: int = 5, limit: int = 1 << 26) -> list[Block]:
    stream = [Stretch("train", text[at : at + feed], False) for at in range(0, len(text), feed)]
    return list(cut_blocks([*stream, Stretch("train", "", True)], cuts, size, limit))  # type: ignore[arg-type]


@settings(max_examples=250, deadline=None)
@given(text=ADVERSARIAL)
def test_blocks_have_the_ids_of_the_whole(tokenizers: list[Tokenizer], text: str) -> None:
    for tokenizer in tokenizers:
        whole = tokenizer.encode(text)
        cut = blocks(text, tokenizer.cuts)
        assert "".join(block.text for block in cut) == text
        assert [id for block in cut for id in tokenizer.encode(block.text)] == whole
        assert tokenizer.encode_array(text).tolist() == whole


@pytest.mark.parametrize(
    "name", ["messy/quijote_pg2000_bom_crlf.txt", "corpora/the-verdict.txt", "messy/emoji-test.txt"]
)
def test_real_text_in_blocks(tokenizers: list[Tokenizer], name: str) -> None:
    text = shared(name).read_bytes().decode("utf-8")[:30_000]
    for tokenizer in tokenizers:
        cut = blocks(text, tokenizer.cuts, size=500, feed=777)
        ids = np.concatenate([tokenizer.encode_array(block.text) for block in cut])
        assert ids.tolist() == tokenizer.encode(text)
    sizes = [len(block.text) for block in blocks(text, "safe", size=500, feed=777)]
    assert max(sizes) < 1000  # places are found everywhere


def test_cuts_are_where_they_are_allowed() -> None:
    assert SAFE_CUT.split("uno dos.\ntres \nx\n\ny  z\r\nw ,a /\n/b") == [
        "uno",
        " dos.\n",
        "tres \nx\n\ny  z\r\nw ,a /\n/b",
    ]


def test_documents_and_splits_are_never_joined() -> None:
    stream = [
        Stretch("train", "ab", True),
        Stretch("train", "c", False),
        Stretch("val", "d", False),
        Stretch("val", "", True),
    ]
    assert list(cut_blocks(stream, "safe")) == [
        Block("train", "ab", True),
        Block("train", "c", False),
        Block("val", "d", True),
    ]


def test_a_text_without_places_is_cut_at_the_limit_and_says_so() -> None:
    found = blocks("中" * 25, "safe", limit=10)
    assert [(len(block.text), block.forced) for block in found] == [
        (10, True),
        (10, True),
        (5, False),
    ]
    assert [len(block.text) for block in blocks("uno dos tres", "never")] == [12]


def test_a_tokenizer_that_puts_a_space_before_every_text_is_not_cut(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    vocabulary = {c: i for i, c in enumerate(["<unk>", *"▁abcdefghijklmnopqrstuvwxyz"])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    assert Tokenizer(backend, "</s>").cuts == "never"
    prefixed = Backend.from_file(str(shared("tokenizers/minimind/tokenizer.json")))
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert Tokenizer(prefixed, SEP).cuts == "never"
