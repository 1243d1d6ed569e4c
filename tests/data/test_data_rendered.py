"""Rendered conversations: ids of any size, one end token each, never over other people's files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from yunque.config import SEPARATOR, DataConfig
from yunque.data import prepare as room
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.prepare import Prepared, prepare
from yunque.data.rendered import prepare_rendered
from yunque.data.tokenizer import Tokenizer, load_tokenizer
from yunque.errors import InputError

TEXTS = {
    "train": ["<|user|>uno y dos<|assistant|>tres", "<|user|>dos<|assistant|>dos"],
    "val": ["<|user|>y<|assistant|>uno"],
}


def rendered(
    config: DataConfig,
    out: Path,
    texts: Mapping[str, Sequence[str]] = TEXTS,
    template: str = DEFAULT_CHAT_TEMPLATE,
) -> Prepared:
    return prepare_rendered(lambda: texts, "test 1", config, out, CHAT_TOKENS, template)


def words(count: int) -> Tokenizer:
    """A tokenizer of so many words: "<unk>", then "w1", "w2" and so on, each its own id."""
    vocabulary = {"<unk>": 0} | {f"w{n}": n for n in range(1, count)}
    backend = Backend(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, SEPARATOR)


def test_ids_beyond_sixteen_bits_are_kept(tmp_path: Path) -> None:
    words(70_000).save(tmp_path / "large")
    texts = {"train": ["<|user|> w69999 w65536 <|assistant|> w1"]}
    made = rendered(DataConfig(tokenizer=str(tmp_path / "large")), tmp_path / "out", texts)
    tokens = made.splits["train"]
    user, assistant = made.tokenizer.encode("<|user|><|assistant|>", special=True)
    expected = [user, 69_999, 65_536, assistant, 1, made.tokenizer.separator_id]
    assert tokens.read(0, tokens.length).tolist() == expected
    assert min(user, assistant, made.tokenizer.separator_id) >= 70_000
    assert made.facts["dtype"] == "uint32"


def test_an_id_that_does_not_fit_is_never_written(tmp_path: Path) -> None:
    assert room.packed(np.array([1, 65_535]), "uint16") == b"\x01\x00\xff\xff"
    assert room.packed(np.array([], dtype=np.int64), "uint16") == b""
    with pytest.raises(AssertionError, match=r"65536 does not fit in uint16 \(at most 65535\)"):
        room.packed(np.array([1, 65_536, 2]), "uint16")
    vocabulary = {SEPARATOR: 0} | {f"w{n}": n for n in range(1, 70_000)}
    backend = Backend(models.WordLevel(vocabulary, unk_token=SEPARATOR))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    stream = [("train", "w1 w65536 w2", True)]
    with pytest.raises(AssertionError, match="65536 does not fit"):
        room.encode_all(
            stream, Tokenizer(backend, SEPARATOR), True, tmp_path, "uint16", lambda done: None
        )
    assert not (tmp_path / "train.bin").exists()


def test_each_document_ends_in_the_separator_that_was_asked_for(tmp_path: Path) -> None:
    made = rendered(DataConfig(tokenizer="byte", separator="<|fin|>"), tmp_path / "out")
    tokens = made.splits["train"]
    ids = tokens.read(0, tokens.length)
    assert made.tokenizer.decode(ids.tolist(), skip_special=False) == "".join(
        f"{text}<|fin|>" for text in TEXTS["train"]
    )
    assert np.count_nonzero(ids == made.tokenizer.separator_id) == 2
    assert made.facts["splits"]["train"]["separators"] == 2


def test_the_same_tokenizer_elsewhere_is_the_same_and_another_one_is_not(tmp_path: Path) -> None:
    here, there, out = tmp_path / "here", tmp_path / "there", tmp_path / "out"
    words(50).save(here)
    shutil.copytree(here, there)
    first = rendered(DataConfig(tokenizer=str(here)), out)
    assert first.facts["reused"] is False
    assert rendered(DataConfig(tokenizer=str(there)), out).facts["reused"] is True
    words(51).save(here)
    again = rendered(DataConfig(tokenizer=str(here)), out)
    assert again.facts["reused"] is False
    assert again.facts["rebuilt_because"]["en"].startswith("tokenizer changed from sha256:")


def test_another_template_or_other_special_tokens_are_made_anew(tmp_path: Path) -> None:
    config, out = DataConfig(tokenizer="byte"), tmp_path / "out"
    rendered(config, out)
    assert rendered(config, out).facts["reused"] is True
    assert rendered(config, out, template="{{ messages }}").facts["reused"] is False
    assert load_tokenizer(out).chat_template == "{{ messages }}"


def test_foreign_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds tokenizer\.json that yunque prepare did not"):
        rendered(DataConfig(tokenizer="byte"), tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == "{}"


def test_leftovers_of_a_killed_preparation_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".tmp-train.bin-1").write_bytes(b"half")
    rendered(DataConfig(tokenizer="byte"), out)
    assert list(out.glob(".tmp-*")) == []


def test_texts_and_conversations_may_follow_each_other_in_a_folder(tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "a.txt"
    source.write_text("hola mundo " * 30)
    config = DataConfig(tokenizer="byte")
    prepare([str(source)], config, out)
    turned = rendered(config, out)
    assert "(1: test 1)" in turned.facts["rebuilt_because"]["en"]
    back = prepare([str(source)], config, out)
    assert "(1: a.txt)" in back.facts["rebuilt_because"]["en"]
    assert "val" in back.facts["tokens"]
