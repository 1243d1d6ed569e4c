"""Bases as they are published: their tokenizer's class, begin token, templates and end tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_assemble_finetune import OPTIONS
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from yunque.assemble.convert import convert
from yunque.assemble.models import load
from yunque.assemble.runs import finetune
from yunque.data.tokenizer import load_tokenizer
from yunque.errors import InputError

QWEN2 = (  # as its tokenizer.json has it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
ROWS = 264


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_settings(folder: Path, **changed: Any) -> None:
    """Change keys of tokenizer_config.json; None takes one out."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    settings |= changed
    kept = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps(kept))


def qwen2(folder: Path, **settings: Any) -> Path:
    """A random Qwen2 model with Qwen2's pipeline on 256 bytes and one merge."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=ROWS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=257,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = {token: id for id, token in enumerate([*ALPHABET, "ab"])}
    backend = Backend(models.BPE(vocab=words, merges=[("a", "b")]))
    backend.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(Regex(QWEN2), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    backend.save(str(folder / "tokenizer.json"))
    end = "<|endoftext|>"
    write_settings(folder, tokenizer_class="Qwen2Tokenizer", eos_token=end, **settings)
    return folder


@pytest.fixture
def sums(tmp_path: Path) -> str:
    path = tmp_path / "sums.jsonl"
    lines = [{"question": f"¿{n} + 1?", "answer": f"Son {n + 1}."} for n in range(20)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(path)


def kind_of(folder: Path) -> str:
    return str(json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"])


def test_qwen2_is_tuned_in_full_merged_and_read_from_gguf(tmp_path: Path, sums: str) -> None:
    from transformers import AutoTokenizer

    base = qwen2(tmp_path / "base")
    options = {**OPTIONS, "steps": 2, "sample_tokens": 0}
    full = finetune(str(base), sums, tmp_path / "full", **options, method="full").run / "best"
    assert kind_of(full) == "Qwen2Tokenizer"
    text = "abba año 123\n\n ab"
    assert AutoTokenizer.from_pretrained(full)(text)["input_ids"] == load(full).tokenizer.encode(
        text
    )
    adapter = finetune(str(base), sums, tmp_path / "lora", **options, method="lora").run
    merged = convert(adapter, tmp_path / "merged", merge=True)
    assert merged.certificate.passed
    assert kind_of(merged.folder) == "Qwen2Tokenizer"
    pytest.importorskip("gguf")
    file = convert(base, tmp_path / "gguf", to="gguf").folder
    back = convert(file, tmp_path / "back", dtype="float32")
    assert back.certificate.passed
    assert kind_of(back.folder) == "Qwen2Tokenizer"


def test_what_would_be_kept_with_another_tokenizer_is_refused_at_once(
    tmp_path: Path, sums: str
) -> None:
    base = qwen2(tmp_path / "base")
    write_settings(base, tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(InputError, match="Qwen2's tokenizer only"):
        finetune(str(base), sums, tmp_path / "run", **OPTIONS, method="full")
    assert not (tmp_path / "run" / "log.jsonl").exists()
