"""Every family and variant that the Decoder holds, against transformers, both ways, by folder.

The models are small and random; their folders are those that transformers writes. Windows and
original lengths are shorter than the tokens read, so that each variant shows in the logits.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from yunque.config import GenerateConfig
from yunque.generate.decode import generate
from yunque.model.decoder import Decoder
from yunque.weights.folder import INDEX, WEIGHTS, load_folder, save_folder

LOGIT_TOLERANCE = 1e-5  # absolute, float32
CONTEXT, NEW = 40, 12
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 20,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {}),
    "gpt2-untied": ("GPT2", {"tie_word_embeddings": False}),
    "gpt2-xl": ("GPT2", {"n_embd": 40, "n_head": 5, "n_layer": 3}),
    "distilgpt2": ("GPT2", {"n_layer": 1}),
    "phi-1.5": ("Phi", {"num_key_value_heads": None, "tie_word_embeddings": False}),
    "phi-2": ("Phi", {"hidden_size": 40, "partial_rotary_factor": 0.4}),
    "phi-tied-grouped-linear": ("Phi", {"rope_parameters": {"rope_type": "linear", "factor": 3.0}}),
    "llama-2": ("Llama", {"num_key_value_heads": None, "tie_word_embeddings": False}),
    "llama-3": ("Llama", {"rope_theta": 500.0, "tie_word_embeddings": False}),
    "llama-3.2": ("Llama", {"head_dim": 16, "rope_parameters": LLAMA3 | {"rope_theta": 500.0}}),
    "tinyllama": ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    "smollm": ("Llama", {"num_attention_heads": 6, "hidden_size": 24, "head_dim": 4}),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.5}}),
    "llama-dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.7}}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}),
    "mistral-0.1": ("Mistral", {"sliding_window": 7, "tie_word_embeddings": False}),
    "mistral-0.3": ("Mistral", {"sliding_window": None}),
    "mistral-nemo": ("Mistral", {"sliding_window": None, "head_dim": 12}),
    "mistral-wide-window": ("Mistral", {"sliding_window": 100}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen2.5": (
        "Qwen2",
        {"rope_parameters": YARN | {"beta_fast": 0.1, "beta_slow": 0.02, "attention_factor": 1.2}},
    ),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-untied": ("Qwen3", {"head_dim": 8, "tie_word_embeddings": False}),
    "qwen3-window": (
        "Qwen3",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0},
    ),
}
TOKENS = torch.randint(0, 61, (2, CONTEXT - NEW), generator=torch.Generator().manual_seed(8))


def foreign_model(name: str) -> Any:
    """The variant as transformers makes it, every weight random and large."""
    import transformers

    family, changes = VARIANTS[name]
    sizes: dict[str, Any] = {"vocab_size": 61, "bos_token_id": None, "eos_token_id": None}
    if family == "GPT2":
        sizes |= {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4}
    else:
        sizes |= {
            "max_position_embeddings": CONTEXT,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        }
    # transformers fills in the tables that it is given.
    config = getattr(transformers, f"{family}Config")(**copy.deepcopy(sizes | changes))
    kind = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    torch.manual_seed(4)
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = ("norm" in key or "ln_" in key) and key.endswith("weight")
            parameter.normal_(1.0 if norm else 0.0, 0.2)
    return model.eval()


def logits(model: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return model.head(model(TOKENS))  # (B, T, V)


def foreign_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def equal_bits(first: Decoder, second: Decoder) -> bool:
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys()
    return all(torch.equal(one[key].view(torch.int32), other[key].view(torch.int32)) for key in one)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_both_ways(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = foreign_model(name)
    expected = foreign_logits(theirs)
    assert expected.std() > 0.5  # logits worth comparing
    theirs.save_pretrained(tmp_path / "single")
    theirs.save_pretrained(tmp_path / "sharded", max_shard_size="16KB")
    assert (tmp_path / "single" / WEIGHTS).exists()
    assert (tmp_path / "sharded" / INDEX).exists()

    ours = load_folder(tmp_path / "single")
    assert (logits(ours) - expected).abs().max() < LOGIT_TOLERANCE
    tied = theirs.config.tie_word_embeddings
    assert (ours.head.weight is ours.token_embedding.weight) == tied
    greedy = GenerateConfig(max_new_tokens=NEW, temperature=0.0)
    written = generate(ours, TOKENS.tolist(), greedy, []).token_ids
    ids = theirs.generate(
        TOKENS,
        attention_mask=torch.ones_like(TOKENS),
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert written == ids[:, TOKENS.shape[1] :].tolist()
    assert equal_bits(load_folder(tmp_path / "sharded"), ours)

    save_folder(ours, tmp_path / "again", None, {})
    back = load_folder(tmp_path / "again")
    assert back.config == ours.config
    assert equal_bits(back, ours)
    again, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "again", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    assert (foreign_logits(again) - expected).abs().max() < LOGIT_TOLERANCE
    # What transformers writes of it, with our part in its config.json, is still the same model.
    again.save_pretrained(tmp_path / "third")
    third = load_folder(tmp_path / "third")
    assert third.config == ours.config
    assert equal_bits(third, ours)


PLAIN = {
    "phi-2": {"rotary_fraction": 0.8},
    "phi-tied-grouped-linear": {"rope_scaling": "none", "rope_factor": 1.0},
    "llama-3.2": {
        "rope_scaling": "none",
        "rope_factor": 1.0,
        "rope_original_length": 0,
        "rope_slow": 0.0,
        "rope_fast": 0.0,
    },
    "llama-linear": {"rope_scaling": "none", "rope_factor": 1.0},
    "llama-yarn": {"rope_amplitude": 1.0},
    "mistral-0.1": {"sliding_window": 8},
    "qwen2.5": {"rope_fast": 32.0},
    "qwen2-window": {"full_layers": 0},
    "qwen3-window": {"sliding_window": 0},
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_a_variant_adds_shows_in_the_logits(name: str, tmp_path: Path) -> None:
    """Else the comparisons above would compare nothing."""
    foreign_model(name).save_pretrained(tmp_path)
    model = load_folder(tmp_path)
    without = Decoder(dataclasses.replace(model.config, **PLAIN[name]))
    without.load_state_dict(model.state_dict())
    assert (logits(model) - logits(without.eval())).abs().max() > 1e-3
