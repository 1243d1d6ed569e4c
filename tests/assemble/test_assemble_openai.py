"""A folder as OpenAI published GPT-2 is a MODEL: it writes, and its own tokenizer is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from openai_files import END, write_gpt2_vocabulary, write_openai
from reference_models import pair
from torch import nn

from yunque import cli
from yunque.assemble.models import load, model_path
from yunque.data.tokenizer import load_tokenizer
from yunque.errors import InputError

PROMPT = "Every effort moves you"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny random GPT-2 of 259 tokens."""
    size = write_gpt2_vocabulary(tmp_path)
    write_openai(tmp_path, reference_model(size))
    return tmp_path


def reference_model(size: int) -> nn.Module:
    return pair("gpt2", vocab_size=size, num_layers=2, std=0.5)[1]


def test_the_tokenizer_of_the_folder_is_gpt2s(folder: Path) -> None:
    from transformers import GPT2Tokenizer

    reference = GPT2Tokenizer(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(PROMPT)
    assert ids == reference.encode(PROMPT)
    assert len(ids) == len(PROMPT) - 2  # " ef" is one token
    assert tokenizer.decode(ids) == PROMPT
    assert (tokenizer.separator, tokenizer.separator_id, tokenizer.vocab_size) == (END, 258, 259)


def test_generate_writes_what_transformers_writes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--prompt", PROMPT, "--temperature", "0", "--max-new-tokens", "12"]
    assert cli.main(["generate", str(folder), *asked, "--device", "cpu", "--json", "--quiet"]) == 0
    written = json.loads(capsys.readouterr().out)
    ids = load_tokenizer(folder).encode(PROMPT)
    made = reference_model(259).generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=258,
        pad_token_id=258,
    )
    expected = made[0, len(ids) :].tolist()
    assert written["prompt"] == PROMPT
    assert written["token_ids"] == [[id for id in expected if id != 258]]
    assert len(set(expected)) > 3


def test_a_text_ends_at_the_end_token(folder: Path) -> None:
    model = load(folder, device="cpu")
    assert model.end_ids == {258}
    assert "gpt2" in repr(model)
    with torch.no_grad():
        model.module.final_norm.weight.zero_()
        model.module.final_norm.bias.copy_(1e3 * model.module.token_embedding.weight[258])
    made = model.generate(PROMPT, temperature=0.0).generation
    assert (made.token_ids, made.stopped) == ([[]], ["end"])


def test_what_is_missing_is_named(folder: Path) -> None:
    assert model_path(folder) == folder
    (folder / "hparams.json").unlink()
    with pytest.raises(InputError, match=r"hparams\.json: no such file"):
        load(folder, device="cpu")
    (folder / "model.ckpt.index").unlink()
    with pytest.raises(InputError, match=r"no model there .*OpenAI's hparams\.json"):
        load(folder, device="cpu")
