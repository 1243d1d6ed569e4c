"""The Decoder against transformers, its cache, its start weights and its published sizes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from reference_models import FAMILIES, WINDOW, pair

from yunque.config import ModelConfig
from yunque.model.decoder import Decoder
from yunque.model.presets import PRESETS
from yunque.model.rotary import rotary_frequencies, rotary_tables

LOGIT_TOLERANCE = 1e-5  # absolute, float32, at logits of order 1


def tokens_of(shape: tuple[int, int], vocab_size: int = 61, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def logits_of(model: Decoder, *inputs: object) -> torch.Tensor:
    with torch.no_grad():
        return model.head(model(*inputs))


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(family: str, tie: bool) -> None:
    model, reference = pair(family, tie=tie, std=0.08)
    tokens = tokens_of((3, 40))
    with torch.no_grad():
        expected = reference(tokens).logits
    difference = (logits_of(model, tokens) - expected).abs().max().item()
    assert expected.std() > 0.1
    assert difference < LOGIT_TOLERANCE
    assert (model.head.weight is model.token_embedding.weight) == tie


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_key_value_heads_of_every_grouping(kv_heads: int) -> None:
    model, reference = pair("llama", num_kv_heads=kv_heads, std=0.08)
    tokens = tokens_of((2, 20))
    with torch.no_grad():
        expected = reference(tokens).logits
    torch.testing.assert_close(logits_of(model, tokens), expected, rtol=0, atol=LOGIT_TOLERANCE)


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 6], [11, 1], [12]], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "phi", "mistral", "qwen3"])
def test_cached_reading_in_chunks_equals_one_reading(family: str, chunks: list[int]) -> None:
    model, _ = pair(family, std=0.08)
    tokens = tokens_of((2, 12))
    cache = model.new_cache(2, 20)
    parts = [logits_of(model, part, cache) for part in tokens.split(chunks, dim=1)]
    assert cache.used == 12
    torch.testing.assert_close(
        torch.cat(parts, dim=1), logits_of(model, tokens), rtol=0, atol=LOGIT_TOLERANCE
    )


@pytest.mark.parametrize("family", ["gpt2", "phi", "llama", "mistral"])
def test_padded_rows_equal_rows_alone(family: str) -> None:
    model, _ = pair(family, std=0.08)
    tokens, pads = tokens_of((3, 10)), torch.tensor([0, 3, 7])
    columns = torch.arange(10)
    own = columns >= pads[:, None]
    mask = (columns <= columns[:, None]) & own[:, None] | torch.eye(10, dtype=torch.bool)
    positions = (columns - pads[:, None]).clamp(min=0)
    together = logits_of(model, tokens, None, positions, mask[:, None])
    for row, pad in enumerate(pads.tolist()):
        alone = logits_of(model, tokens[row : row + 1, pad:])
        torch.testing.assert_close(
            together[row : row + 1, pad:], alone, rtol=0, atol=LOGIT_TOLERANCE
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_of_a_row_equal_rows_alone(family: str) -> None:
    model, reference = pair(family, std=0.08)
    tokens, lengths = tokens_of((2, 20)), [[5, 1, 14], [12, 8, 0]]
    positions, segments = torch.zeros(2, 20, dtype=torch.int64), torch.zeros(2, 20)
    for row, parts in enumerate(lengths):
        positions[row] = torch.cat([torch.arange(part) for part in parts])
        segments[row] = torch.repeat_interleave(torch.arange(3), torch.tensor(parts))
    with torch.no_grad():
        together = model.head(model(tokens, positions=positions, segments=segments))
        for row, parts in enumerate(lengths):
            for found, alone in zip(
                together[row].split(parts), tokens[row].split(parts), strict=True
            ):
                if len(alone):
                    expected = reference(alone[None]).logits[0]
                    torch.testing.assert_close(found, expected, rtol=0, atol=LOGIT_TOLERANCE)
    # What the segments keep out would have been seen.
    seen = logits_of(model, tokens, None, positions)
    assert (seen - together).abs().max() > 0.01


def test_a_window_ends_where_it_says() -> None:
    model, _ = pair("mistral", num_layers=1, std=0.08)
    tokens = tokens_of((1, 20))
    other = tokens.clone()
    other[0, 4] = (tokens[0, 4] + 1) % 61
    moved = (logits_of(model, tokens) - logits_of(model, other)).abs().amax(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == list(range(4, 4 + WINDOW))


def test_first_blocks_may_look_at_everything() -> None:
    model, _ = pair("mistral", num_layers=3, std=0.08)
    tokens = tokens_of((1, 20))
    masks = []
    for block in model.blocks:
        block.attention.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[2]))
    model.config = dataclasses.replace(model.config, full_layers=2)
    logits_of(model, tokens)
    assert masks[:2] == [None, None]  # the fast causal path
    assert masks[2].sum(-1).tolist() == [min(WINDOW, place + 1) for place in range(20)]
    masks.clear()
    logits_of(model, tokens[:, :WINDOW])  # nothing is hidden: no mask is made
    assert masks == [None] * 3


def test_scaled_frequencies_are_those_of_transformers_to_the_bit() -> None:
    import transformers

    long = {"original_max_position_embeddings": 8192}
    tables = {
        "linear": {"factor": 4.0},
        "dynamic": {"factor": 4.0},
        "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0} | long,
        "yarn": {"factor": 4.0, "beta_fast": 20.0, "beta_slow": 2.0} | long,
        "none": {},
    }
    ours = {"factor": "rope_factor", "original_max_position_embeddings": "rope_original_length"}
    ours |= {"low_freq_factor": "rope_slow", "high_freq_factor": "rope_fast"}
    ours |= {"beta_slow": "rope_slow", "beta_fast": "rope_fast"}
    for kind, table in tables.items():
        for theta, size in ((500_000.0, 128), (10_000.0, 64), (1_000_000.0, 80)):
            rope = {"rope_type": kind.replace("none", "default"), "rope_theta": theta, **table}
            reference = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(
                transformers.LlamaConfig(
                    hidden_size=2 * size,
                    num_attention_heads=2,
                    max_position_embeddings=32768,
                    rope_parameters=rope,
                )
            )
            shape = ModelConfig(
                hidden_size=2 * size,
                num_heads=2,
                context_length=32768,
                rope_theta=theta,
                rope_scaling=kind,
                **{ours[key]: value for key, value in table.items()},
            ).resolved(7)
            assert torch.equal(rotary_frequencies(shape), reference.inv_freq), (kind, theta)
            cos, sin = rotary_tables(shape)
            places = torch.tensor([[0, 1, 777, 32767]])
            expected = reference(torch.zeros(1), places)
            torch.testing.assert_close((cos[places], sin[places]), expected, rtol=0, atol=1e-7)


def test_a_cache_repeats_drops_forgets_and_replaces_rows() -> None:
    model, _ = pair("llama", std=0.08)
    tokens = tokens_of((3, 6))
    cache = model.new_cache(3, 8)
    logits_of(model, tokens, cache)
    first = cache.layers[1].keys.clone()
    cache.reorder(torch.tensor([2, 0, 0, 1]))
    assert torch.equal(cache.layers[1].keys[:, :, :6], first[[2, 0, 0, 1], :, :6])
    other = model.new_cache(1, 2)
    logits_of(model, tokens_of((1, 2), seed=5), other)
    cache.replace_end(torch.tensor([1]), other)
    assert torch.equal(cache.layers[1].keys[1, :, 4:6], other.layers[1].keys[0])
    assert torch.equal(cache.layers[1].values[1, :, 4:6], other.layers[1].values[0])
    assert torch.equal(cache.layers[1].keys[1, :, :4], first[0, :, :4])
    assert torch.equal(cache.layers[1].keys[2, :, :6], first[0, :, :6])
    cache.forget(3)
    assert cache.used == 3
    assert torch.equal(cache.layers[1].keys[3, :, :3], first[1, :, 3:6])


SMALL = {
    "gpt2": ModelConfig(
        vocab_size=600,
        context_length=64,
        num_layers=3,
        num_heads=4,
        hidden_size=96,
        positions="learned",
        norm="layernorm",
        mlp="gelu",
        bias=True,
        qkv_bias=True,
        qk_norm=False,
        dropout=0.0,
    ),
    "qwen3": ModelConfig(
        vocab_size=600,
        context_length=64,
        num_layers=3,
        num_heads=4,
        hidden_size=96,
        qk_norm=True,
        tie_embeddings=False,
        dropout=0.0,
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_start_weights_by_tensor(name: str) -> None:
    model = Decoder(SMALL[name].resolved(600), seed=3)
    by_kind = {"matrix": 0, "written": 0, "norm": 0, "bias": 0}
    for tensor, value in model.state_dict().items():
        if tensor.endswith("bias"):
            by_kind["bias"] += 1
            assert torch.count_nonzero(value) == 0
        elif "norm" in tensor:
            by_kind["norm"] += 1
            assert torch.equal(value, torch.ones_like(value))
        else:
            written = tensor.endswith(("o_proj.weight", "down_proj.weight"))
            by_kind["written" if written else "matrix"] += 1
            std = 0.02 / math.sqrt(6) if written else 0.02
            # The standard error of a std is std / sqrt(2n); five of them.
            error = 5 / math.sqrt(2 * value.numel())
            assert value.std().item() == pytest.approx(std, rel=error), tensor
            assert abs(value.mean().item()) < 5 * std / math.sqrt(value.numel()), tensor
    expected = {
        "gpt2": {"matrix": 3 + 3 * 4, "written": 6, "norm": 7, "bias": 7 + 3 * 6},
        "qwen3": {"matrix": 2 + 3 * 5, "written": 6, "norm": 7 + 6, "bias": 0},
    }
    assert by_kind == expected[name]


def test_start_weights_follow_the_seed_alone() -> None:
    config = SMALL["qwen3"].resolved(600)
    torch.manual_seed(1)
    first = Decoder(config, seed=3).state_dict()
    torch.manual_seed(2)
    again, other = Decoder(config, seed=3).state_dict(), Decoder(config, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


PUBLISHED = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
    "llama-1.1b": 1_100_048_384,
    "llama-135m": 134_515_008,
    "phi-1.4b": 1_418_270_720,
    "phi-2.8b": 2_779_683_840,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):  # no memory: the shapes alone
        model = Decoder(PRESETS[name].resolved(0))
    counts = model.parameter_counts()
    assert counts["total"] == PUBLISHED[name]
    assert sum(value for part, value in counts.items() if part != "total") == PUBLISHED[name]


def test_every_published_preset_is_tested() -> None:
    assert set(PUBLISHED) == set(PRESETS) - {"nano"}


def test_embedding_std_is_that_of_the_embeddings_alone() -> None:
    wide = dataclasses.replace(SMALL["gpt2"].resolved(600), tie_embeddings=False, embedding_std=1.0)
    usual = dataclasses.replace(wide, embedding_std=0.02)
    first, second = (Decoder(config, seed=3).state_dict() for config in (wide, usual))
    for tensor, value in first.items():
        if tensor.endswith("embedding.weight"):
            assert value.std().item() == pytest.approx(1.0, rel=5 / math.sqrt(2 * value.numel()))
        else:
            assert torch.equal(value, second[tensor]), tensor
