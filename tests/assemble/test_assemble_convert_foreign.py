"""Exports of models that transformers computes: written, read back, compared, like ours."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import MODELS, saved_foreign

import yunque
from yunque import cli
from yunque.assemble.convert import CHATS, TEXTS, speaker_of
from yunque.assemble.models import load
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.tokenizer import Tokenizer, train_tokenizer
from yunque.errors import InputError
from yunque.weights.certificate import Certificate, Prompt
from yunque.weights.export import read_back
from yunque.weights.folder import INDEX, stored_dtype
from yunque.weights.readback import tensors_of, transformers_speaker
from yunque.words.writing import number

ALPHABET = "abcdefghijklmnopqrstuvwxyz .,:¿?\n"
QUICK = ("gpt_neox", "gemma2", "mamba")


def source_folder(folder: Path, name: str) -> Path:
    """A random model with a tokenizer of letters and a chat template."""
    saved_foreign(name, folder)
    tokenizer_here().save(folder)
    return folder


def tokenizer_here() -> Tokenizer:
    special = [*CHAT_TOKENS]
    template = DEFAULT_CHAT_TEMPLATE
    return train_tokenizer("char", lambda: iter([ALPHABET]), "<|endoftext|>", special, template)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in MODELS],
)
def test_every_kind_is_written_and_read_back(name: str, tmp_path: Path) -> None:
    import transformers

    source = source_folder(tmp_path / "source", name)
    done = yunque.convert(source, tmp_path / "out", dtype="bfloat16", shard_size="20KB")
    assert done.certificate.passed
    assert done.certificate.figure("tensors") == 0.0
    assert len(done.certificate.checks) == 13
    assert (tmp_path / "out" / INDEX).exists()
    assert stored_dtype(tmp_path / "out") == "bfloat16"
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (source, tmp_path / "out")
    )
    theirs = dict(after.named_parameters())
    for key, parameter in before.named_parameters():
        assert torch.equal(theirs[key], parameter.bfloat16().float()), key


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("foreign")
    source_folder(base / "source", "gpt_neox")
    words = ["convert", str(base / "source"), str(base / "out"), "--lang", "es", "--quiet"]
    assert cli.main(words) == 0
    return base


def test_the_folder_is_whole_and_its_card_says_what_it_is(exported: Path) -> None:
    names = {path.name for path in (exported / "out").iterdir()}
    assert names >= {"model.safetensors", "tokenizer.json", "README.md", "certificate.json"}
    assert not any(name.endswith(".index.json") for name in names)
    card = (exported / "out" / "README.md").read_text(encoding="utf-8")
    assert f"de arquitectura gpt_neox con {number(18_976, 'es')} parámetros" in card
    assert 'base_model: "source"' in card


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")


def certificate(source: Path, export: Path) -> Certificate:
    model = load(source, device="cpu")
    speaker = speaker_of(model, lambda: tensors_of(model.module))
    prompts = [*map(Prompt, TEXTS), *CHATS]
    return read_back(speaker, prompts, [], "transformers", lambda: transformers_speaker(export))


@pytest.mark.parametrize(
    ("change", "failed", "words"),
    [
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}},
            {"shape", "logits", "kl", "greedy"},
            "partial_rotary_factor",
        ),
        ({"layer_norm_eps": 1e-3}, {"shape", "logits", "kl"}, "layer_norm_eps is 0.001"),
        ({"eos_token_id": 9}, {"ends"}, r"the end ids are \[0, 9\]"),
        ({"pad_token_id": 0}, {"pad"}, "both padding and an end"),
    ],
)
def test_planted_faults_are_named(
    change: dict[str, Any], failed: set[str], words: str, exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported / "out", tmp_path / "out")
    edit(tmp_path / "out" / "config.json", **change)
    found = certificate(exported / "source", tmp_path / "out")
    assert {check.id for check in found.failed} == failed, found.differences()
    assert re.search(words, found.differences()), found.differences()


def test_gguf_is_refused_with_what_to_do(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'gpt_neox'.*--to hf.*convert_hf_to_gguf"):
        yunque.convert(exported / "source", tmp_path / "out", to="gguf")
    assert not list(tmp_path.iterdir())


def test_padding_that_is_an_end_is_not_written(exported: Path, tmp_path: Path) -> None:
    source = source_folder(tmp_path / "source", "gpt_neox")
    edit(source / "config.json", pad_token_id=0, eos_token_id=0)
    done = yunque.convert(source, tmp_path / "out")
    assert done.certificate.passed
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] is None


def test_an_adapter_is_merged_into_it(tmp_path: Path) -> None:
    source_folder(tmp_path / "source", "gpt_neox")
    (tmp_path / "text.txt").write_text("el yunque y el martillo. " * 60, encoding="utf-8")
    run = yunque.finetune(
        str(tmp_path / "source"),
        [str(tmp_path / "text.txt")],
        tmp_path / "run",
        method="lora",
        steps=2,
        eval_every=2,
        batch_size=2,
        learning_rate=0.05,
        device="cpu",
        precision="fp32",
        threads=1,
    )
    assert run is not None
    with pytest.raises(InputError, match="give --merge"):
        yunque.convert(tmp_path / "run", tmp_path / "no")
    done = yunque.convert(tmp_path / "run", tmp_path / "out", merge=True)
    assert done.certificate.checks[0].id == "merge"
    assert done.certificate.passed
    tuned = load(tmp_path / "run", device="cpu")
    merged = load(tmp_path / "out", device="cpu")
    base = load(tmp_path / "source", device="cpu")
    ids = torch.tensor([tuned.tokenizer.encode("el yunque")])
    with torch.no_grad():
        got, wanted, other = (one.module.head(one.module(ids)) for one in (merged, tuned, base))
    assert (got - wanted).abs().max() < 1e-4
    assert (got - other).abs().max() > 1e-2
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "on top of source" in card
