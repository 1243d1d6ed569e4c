"""Linear layers in 8-bit integers: against the whole numbers by hand, and a model's quality."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from yunque.assemble import models
from yunque.config import GenerateConfig, ModelConfig
from yunque.data.tokenizer import train_tokenizer
from yunque.errors import InputError
from yunque.generate.decode import generate
from yunque.model.decoder import Decoder
from yunque.model.int8 import Int8Linear, supported, to_int8
from yunque.model.presets import preset

pytestmark = pytest.mark.skipif(not supported(), reason="this CPU has no 8-bit products (VNNI)")

SMALL = ModelConfig(num_layers=2, num_heads=4, hidden_size=64, vocab_size=300, context_length=48)


def test_the_layer_computes_the_product_of_the_rounded_numbers() -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(40, 96), torch.randn(40), torch.randn(5, 3, 96) * 7
    scale = weight.abs().amax(1, keepdim=True) / 127  # (out, 1)
    size = x.abs().amax(-1, keepdim=True)  # (5, 3, 1)
    whole_weight, whole_x = (weight / scale).round(), (x / size * 127).round()
    expected = whole_x.double() @ whole_weight.double().T * (scale.T * size / 127) + bias
    torch.testing.assert_close(Int8Linear(weight, bias)(x).double(), expected, rtol=0, atol=1e-4)


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(torch.randn(40, 96), None)
    x = torch.randn(16, 96) * torch.logspace(-3, 3, 16)[:, None]
    for row in range(16):
        assert torch.equal(layer(x)[row : row + 1], layer(x[row : row + 1]))


def test_rows_of_zeros_and_weights_of_zeros_stay_zeros() -> None:
    assert Int8Linear(torch.zeros(8, 32), None)(torch.randn(2, 32)).abs().max() == 0
    assert Int8Linear(torch.randn(8, 32), None)(torch.zeros(2, 32)).abs().max() == 0


def test_a_model_keeps_its_counts_its_embedding_and_nearly_its_logits() -> None:
    model = Decoder(SMALL, seed=0).eval()
    counts, tokens = model.parameter_counts(), torch.arange(40).view(2, 20)
    with torch.no_grad():
        before = model.head(model(tokens))
        to_int8(model)
        after = model.head(model(tokens))
    assert model.parameter_counts() == counts
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    assert 0 < ((after - before).norm() / before.norm()).item() < 0.02


def test_an_untied_head_with_a_bias_is_counted() -> None:
    shape = dataclasses.replace(
        preset("phi-1.4b"), num_layers=1, num_heads=2, num_kv_heads=2, hidden_size=32,
        intermediate_size=64, vocab_size=100, context_length=16,
    )  # fmt: skip
    model = Decoder(shape, seed=0).eval()
    counts = model.parameter_counts()
    to_int8(model)
    assert model.parameter_counts() == counts


def test_a_batch_writes_what_each_prompt_writes_alone() -> None:
    model = Decoder(SMALL, seed=3).eval()
    to_int8(model)
    settings = GenerateConfig(max_new_tokens=60, temperature=0.0)  # past the context too
    prompts = [[5, 6, 7], [200], [9] * 11]
    together = generate(model, prompts, settings, ()).token_ids
    alone = [generate(model, [prompt], settings, ()).token_ids[0] for prompt in prompts]
    assert together == alone


def test_int8_on_an_adapter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Decoder(SMALL, seed=0)
    tokenizer = train_tokenizer("byte", lambda: iter(["a"]), "<|endoftext|>")
    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(models, "open_model", lambda path, device, onto: model)
    monkeypatch.setattr(models, "tokenizer_of", lambda path: (tokenizer, set()))
    monkeypatch.setattr(models, "model_path", lambda name: tmp_path)
    with pytest.raises(InputError, match=r"weights is 'int8', .* Merge it first"):
        models.load(tmp_path, weights="int8")
