"""Parameters counted by arithmetic against the decoder itself."""

from __future__ import annotations

import pytest

from yunque.config import ModelConfig
from yunque.forecast.shape import count_parameters
from yunque.model.decoder import Decoder
from yunque.model.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_counted_parameters(name: str) -> None:
    shape = PRESETS[name].resolved(PRESETS[name].vocab_size or 96)
    assert count_parameters(shape).total == Decoder.empty(shape).parameter_counts()["total"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [0, 2])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_variants_have_the_counted_parameters(tied: bool, kv_heads: int, qk_norm: bool) -> None:
    shape = ModelConfig(
        num_layers=3,
        hidden_size=64,
        num_heads=4,
        num_kv_heads=kv_heads,
        head_dim=24,
        qk_norm=qk_norm,
        tie_embeddings=tied,
        qkv_bias=not qk_norm,
    ).resolved(77)
    counted, real = count_parameters(shape), Decoder.empty(shape).parameter_counts()
    assert counted.total == real["total"]
    assert counted.token_embedding == real["token_embedding"] == 77 * 64
