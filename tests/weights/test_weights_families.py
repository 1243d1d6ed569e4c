"""The name tables: total, exact both ways, and every misfit named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from reference_models import shapes
from torch import Tensor

from yunque.config import ModelConfig
from yunque.errors import InputError
from yunque.model.decoder import Decoder
from yunque.weights.families import (
    ARCHITECTURES,
    EMBEDDING,
    HEAD,
    check_ours,
    check_tied_head,
    foreign_config,
    match,
    model_config,
    module_names,
    our_shapes,
    places,
    raise_misfit,
    split,
    table,
    to_foreign,
)

TINY, GPT2, PHI = shapes(vocab_size=13, context_length=8, hidden_size=16, intermediate_size=24)
SHAPES = {
    "gpt2": GPT2,
    "gpt2-tied": dataclasses.replace(GPT2, tie_embeddings=True),
    "gpt2-no-qkv-bias": dataclasses.replace(GPT2, qkv_bias=False),
    "phi": PHI,
    "phi-tied": dataclasses.replace(PHI, tie_embeddings=True, rope_theta=500.0),
    "llama": TINY,
    "llama-tied": dataclasses.replace(TINY, tie_embeddings=True),
    "llama-wide-heads": dataclasses.replace(TINY, head_dim=6),
    "llama-linear": dataclasses.replace(TINY, rope_scaling="linear", rope_factor=2.5),
    "llama-dynamic": dataclasses.replace(TINY, rope_scaling="dynamic", rope_factor=2.5),
    "llama-llama3": dataclasses.replace(
        TINY,
        rope_scaling="llama3",
        rope_factor=8.0,
        rope_original_length=4,
        rope_slow=1.0,
        rope_fast=4.0,
    ),
    "qwen2-yarn": dataclasses.replace(
        TINY,
        qkv_bias=True,
        rope_scaling="yarn",
        rope_factor=2.0,
        rope_original_length=4,
        rope_slow=1.0,
        rope_fast=32.0,
        rope_amplitude=1.25,
    ),
    "mistral": dataclasses.replace(TINY, sliding_window=3, head_dim=8),
    "qwen2": dataclasses.replace(TINY, qkv_bias=True),
    "qwen2-window": dataclasses.replace(TINY, qkv_bias=True, sliding_window=3, full_layers=1),
    "qwen3-window": dataclasses.replace(TINY, qk_norm=True, sliding_window=3, head_dim=6),
    "qwen3": dataclasses.replace(TINY, qk_norm=True, tie_embeddings=True, rope_theta=500.0),
}


def from_foreign(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back of `to_foreign`, by the same rules as `load_folder`, in memory."""
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    names, faults = match(config, given)
    raise_misfit("the given tensors", faults)
    state: dict[str, Tensor] = {}
    for place in places(config):
        state.update(split(place, tensors[names[place.foreign]]))
    if config.tie_embeddings:
        if table(config).head in names:
            head = tensors[names[table(config).head]]
            check_tied_head("the given tensors", head, state[EMBEDDING])
        state[HEAD] = state[EMBEDDING]
    return state


def random_state(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Every weight random, biases and norms too, so that none can be swapped unseen."""
    generator = torch.Generator().manual_seed(3)
    shapes = our_shapes(config)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.int32)


@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back_changes_no_bit(name: str) -> None:
    config, state = SHAPES[name], random_state(SHAPES[name])
    # Numbers that a careless way loses: the two zeros, the smallest, a payload of NaN.
    planted = torch.tensor([0.0, -0.0, 1e-45, float("inf")])
    state["blocks.1.attention.k_proj.weight"][0, :4] = planted
    state["blocks.1.attention.k_proj.weight"].view(torch.int32)[0, 4] = 0x7FC01234
    back = from_foreign(config, to_foreign(config, state))
    head = {"head.weight"} if config.tie_embeddings else set()
    assert back.keys() == state.keys() | head
    for key, tensor in state.items():
        assert torch.equal(bits(back[key]), bits(tensor)), key
    Decoder(config).load_state_dict(back)


@pytest.mark.parametrize("name", SHAPES)
def test_every_weight_has_one_place(name: str) -> None:
    config = SHAPES[name]
    placed = [ours for place in places(config) if not place.zeros for ours in place.ours]
    assert sorted(placed) == sorted(our_shapes(config))


def test_gpt2_fuses_and_transposes() -> None:
    state = random_state(GPT2)
    fused = to_foreign(GPT2, state)["transformer.h.1.attn.c_attn.weight"]  # (C, 3C)
    assert fused.shape == (16, 48)
    key = state["blocks.1.attention.k_proj.weight"]
    for row in range(16):
        for column in range(16):
            assert fused[column, 16 + row] == key[row, column]


def test_missing_bias_is_zeros_and_must_be_zeros() -> None:
    config = SHAPES["gpt2-no-qkv-bias"]
    tensors = to_foreign(config, random_state(config))
    bias = tensors["transformer.h.0.attn.c_attn.bias"]
    assert bias.shape == (48,)
    assert not bias.any()
    bias[5] = 0.5
    with pytest.raises(InputError, match="qkv_bias is false"):
        from_foreign(config, tensors)


def test_all_misfits_in_one_error() -> None:
    tensors = to_foreign(TINY, random_state(TINY))
    del tensors["model.layers.0.mlp.up_proj.weight"]
    del tensors["model.norm.weight"]
    tensors["model.embed_tokens.weight"] = torch.zeros(14, 16)
    tensors["score.weight"] = torch.zeros(2, 16)
    with pytest.raises(InputError) as caught:
        from_foreign(TINY, tensors)
    text = str(caught.value)
    assert "missing (2): model.layers.0.mlp.up_proj.weight, model.norm.weight." in text
    assert "left over (1): score.weight." in text
    assert "wrong shape: model.embed_tokens.weight is [14, 16], expected [13, 16]." in text


def test_a_state_that_is_not_the_models_is_refused() -> None:
    state = random_state(TINY)
    state["extra"] = state.pop("final_norm.weight")
    state["head.weight"] = torch.zeros(13, 15)
    with pytest.raises(InputError) as caught:
        check_ours(TINY, state)
    text = str(caught.value)
    assert "missing: final_norm.weight." in text
    assert "left over: extra." in text
    assert "wrong shape: head.weight is [13, 15], expected [13, 16]." in text


def test_prefix_and_mask_buffers_of_the_first_gpt2_files() -> None:
    config = SHAPES["gpt2-tied"]
    state = random_state(config)
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in to_foreign(config, state).items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    back = from_foreign(config, tensors)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    tensors["transformer.ln_f.bias"] = tensors["ln_f.bias"]
    with pytest.raises(InputError, match=r"twice: ln_f\.bias and transformer\.ln_f\.bias"):
        from_foreign(config, tensors)


def test_repeated_tied_head_must_be_the_embedding() -> None:
    config = SHAPES["llama-tied"]
    tensors = to_foreign(config, random_state(config))
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    assert from_foreign(config, tensors)["head.weight"].shape == (13, 16)
    tensors["lm_head.weight"][2, 3] += 1e-3
    with pytest.raises(InputError, match="tie_word_embeddings"):
        from_foreign(config, tensors)


@pytest.mark.parametrize("name", SHAPES)
def test_configuration_there_and_back(name: str) -> None:
    config = dataclasses.replace(SHAPES[name], dropout=0.25, preset="nano", embedding_std=1.0)
    written = foreign_config(config, "float32", end_id=7, begin_id=3, pad_id=1)
    assert (written["eos_token_id"], written["bos_token_id"], written["pad_token_id"]) == (7, 3, 1)
    assert model_config(written, "config.json") == config
    del written["yunque"]
    derived = model_config(written, "config.json")
    lost = {"preset": "", "embedding_std": 0.02}
    lost |= {"qkv_bias": True} if config.family == "gpt2" else {}
    lost |= {} if config.family in ("gpt2", "phi") else {"dropout": 0.0}
    assert derived == dataclasses.replace(config, **lost)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gpt2", "phi", "llama", "mistral", "qwen2", "qwen3"])
def test_transformers_reads_our_configuration(name: str) -> None:
    import transformers

    config = SHAPES[name]
    written = foreign_config(config, "float32", end_id=7)
    kind = getattr(transformers, ARCHITECTURES[name].replace("LMHeadModel", "ForCausalLM"), None)
    kind = kind or getattr(transformers, ARCHITECTURES[name])
    read = kind.config_class(**written)
    assert read.model_type == name
    assert read.vocab_size == 13
    assert read.eos_token_id == 7
    # What transformers writes again keeps our part, and we still read the same shape.
    assert model_config(read.to_dict(), "config.json") == config


@pytest.mark.parametrize(
    ("name", "change", "key"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("llama", {"custom_pipelines": {"text-generation": {"impl": "evil.Pipe"}}}, "custom_pip"),
        ("mistral", {"trust_remote_code": True}, "trust_remote_code"),
        ("gpt2", {"n_head": 3}, "num_heads"),
        ("gpt2", {"n_layer": None}, "n_layer is missing"),
        ("gpt2", {"n_embd": "16"}, "n_embd: expected int"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm"),
        ("phi", {"hidden_act": "gelu"}, "hidden_act"),
        ("phi", {"partial_rotary_factor": 0.75}, "rotary_fraction is 0.75"),
        ("phi", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "'longrope'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, r"rope_scaling\.factor is missing"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": None}}, "factor is missing"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, "factor: expected float"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope_factor is 0.5"),
        ("llama", {"rope_scaling": {"type": "mrope", "mrope_section": [1]}}, "'mrope'"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "alpha": 3}}, "alpha"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}},
            r"rope_parameters\.truncate",
        ),
        ("llama", {"rope_parameters": [1]}, "rope_parameters: expected an object"),
        (
            "llama",
            {"rope_parameters": {"full_attention": {"rope_theta": 3.0}}},
            r"rope_parameters\.full_attention",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor is 0.5",
        ),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"head_dim": 3}, "head_dim is 3"),
        ("llama", {"head_dim": "8"}, "head_dim: expected int"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"use_parallel_residual": True}, "use_parallel_residual"),
        ("mistral", {"sliding_window": "4"}, "sliding_window: expected int"),
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("mistral", {"num_key_value_heads": None}, "num_key_value_heads is missing"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (
            "qwen2",
            {
                "use_sliding_window": True,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "layer_types",
        ),
        ("qwen2", {"layer_types": 3}, "layer_types"),
        ("qwen2", {"layer_types": [{}, []]}, "layer_types"),
        ("llama", {"model_type": ["llama"]}, "model_type is"),
        ("llama", {"rope_scaling": {"rope_type": ["yarn"]}}, r"rope_type is \['yarn'\]"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 0}}, "rope_factor is 0.0"),
        ("qwen3", {"num_key_value_heads": None}, "num_key_value_heads is missing"),
        ("llama", {"model_type": "mamba"}, "model_type is 'mamba'"),
    ],
)
def test_what_the_decoder_cannot_do_is_named(name: str, change: dict[str, Any], key: str) -> None:
    written = foreign_config(SHAPES[name], "float32", end_id=None)
    del written["yunque"]
    model_config(written, "config.json")  # sound before the change
    with pytest.raises(InputError, match=f"(?s)config.json.*{key}"):
        model_config(written | change, "config.json")


def test_what_a_missing_key_means_in_its_family() -> None:
    written = foreign_config(SHAPES["qwen3"], "float32", end_id=None)
    del written["yunque"], written["head_dim"]
    assert model_config(written, "config.json").head_size == 128
    written = foreign_config(SHAPES["mistral"], "float32", end_id=None)
    del written["yunque"], written["head_dim"], written["sliding_window"]
    assert model_config(written, "config.json").sliding_window == 4096
    assert model_config(written, "config.json").head_size == 4
    assert model_config(written | {"sliding_window": None}, "config.json").family == "llama"
    written = foreign_config(SHAPES["phi"], "float32", end_id=None)
    del written["yunque"], written["partial_rotary_factor"]
    assert model_config(written, "config.json").rotary_fraction == 0.5
    # Qwen names its windows without using them; 28 blocks are read in full where nothing is said.
    written = foreign_config(SHAPES["qwen2"], "float32", end_id=None)
    del written["yunque"], written["max_window_layers"]
    named = written | {"sliding_window": 4, "use_sliding_window": False}
    assert model_config(named, "config.json") == model_config(written, "config.json")
    used = written | {"sliding_window": 4, "use_sliding_window": True}
    assert model_config(used, "config.json").sliding_window == 0


def test_numbers_of_longer_contexts_that_the_file_leaves_out() -> None:
    written = foreign_config(SHAPES["llama"], "float32", end_id=None)
    del written["yunque"]
    for kind, slow, fast in (("llama3", 1.0, 4.0), ("yarn", 1.0, 32.0)):
        rope = {"type": kind, "factor": 4}
        config = model_config(written | {"rope_scaling": rope}, "config.json")
        assert (config.rope_scaling, config.rope_factor) == (kind, 4.0)
        assert (config.rope_original_length, config.rope_slow, config.rope_fast) == (8, slow, fast)
    assert config.rope_amplitude == 0.1 * math.log(4) + 1
    outside = {"rope_scaling": rope, "original_max_position_embeddings": 5}
    assert model_config(written | outside, "config.json").rope_original_length == 5
    scales = {"mscale": 2.0, "mscale_all_dim": 1.0}
    config = model_config(written | {"rope_scaling": rope | scales}, "config.json")
    assert config.rope_amplitude == (0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1)


def test_rotary_base_in_both_places() -> None:
    written = foreign_config(SHAPES["llama"], "float32", end_id=None)
    del written["yunque"], written["rope_theta"]
    written["rope_parameters"] = {"rope_type": "default", "rope_theta": 500000.0}
    assert model_config(written, "config.json").rope_theta == 500_000.0
    # The table's own base is the one that transformers takes where the two differ.
    assert model_config(written | {"rope_theta": 3.0}, "config.json").rope_theta == 500_000.0


def test_our_part_must_agree_with_the_rest() -> None:
    written = foreign_config(SHAPES["llama"], "float32", end_id=None)
    with pytest.raises(InputError, match="vocab_size is 13 in its 'yunque' part and 20"):
        model_config(written | {"vocab_size": 20}, "config.json")
    unknown = written["yunque"] | {"hiden_size": 3}
    with pytest.raises(InputError, match="Did you mean 'hidden_size'"):
        model_config(written | {"yunque": unknown}, "config.json")
    with pytest.raises(InputError, match="must be a table"):
        model_config(written | {"yunque": 3}, "config.json")


def test_shape_without_an_open_format_is_refused() -> None:
    odd = dataclasses.replace(TINY, norm="layernorm")
    with pytest.raises(InputError, match="no open format"):
        foreign_config(odd, "float32", end_id=None)
    with pytest.raises(InputError, match="no open format"):
        to_foreign(odd, {name: torch.zeros(shape) for name, shape in our_shapes(odd).items()})


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
def test_names_of_linear_layers_are_those_of_the_published_model(family: str) -> None:
    from reference_models import pair

    model, reference = pair(family)
    names = module_names(model.config)
    linear = [name for name, it in model.named_modules() if isinstance(it, torch.nn.Linear)]
    assert set(names) == set(linear) - {"head"}
    theirs = {
        name
        for name, it in reference.named_modules()
        if type(it).__name__ in ("Linear", "Conv1D") and name != "lm_head"
    }
    assert set(names.values()) == theirs
    stacked = [ours for ours, name in names.items() if name == "transformer.h.1.attn.c_attn"]
    qkv = [f"blocks.1.attention.{part}_proj" for part in "qkv"]
    assert stacked == (qkv if family == "gpt2" else [])
