"""Named model sizes: data only, each with its source.

`nano` is ours, for a CPU in minutes: the defaults of ModelConfig. The others repeat published
shapes.
"""

from __future__ import annotations

from yunque.config import ModelConfig, unknown_name
from yunque.errors import InputError


def _gpt2(name: str, layers: int, heads: int, width: int) -> ModelConfig:
    return ModelConfig(
        preset=name,
        vocab_size=50_257,
        context_length=1024,
        num_layers=layers,
        num_heads=heads,
        hidden_size=width,
        positions="learned",
        norm="layernorm",
        mlp="gelu",
        bias=True,
        qkv_bias=True,
        qk_norm=False,
        tie_embeddings=True,
        dropout=0.1,
        attention_dropout=0.1,
    )


def _phi(name: str, layers: int, width: int, rotary_fraction: float) -> ModelConfig:
    return ModelConfig(
        preset=name,
        vocab_size=51_200,
        context_length=2048,
        num_layers=layers,
        num_heads=32,
        hidden_size=width,
        norm="layernorm",
        mlp="gelu",
        bias=True,
        qkv_bias=True,
        qk_norm=False,
        tie_embeddings=False,
        head_bias=True,
        parallel_residual=True,
        rotary_fraction=rotary_fraction,
        dropout=0.0,
    )


PRESETS: dict[str, ModelConfig] = {
    # Ours; measured in docs/lab-notes.md.
    "nano": ModelConfig(),
    # Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2; the
    # parameter counts there were corrected by the authors when the weights were published.
    "gpt2-124m": _gpt2("gpt2-124m", 12, 12, 768),
    "gpt2-355m": _gpt2("gpt2-355m", 24, 16, 1024),
    "gpt2-774m": _gpt2("gpt2-774m", 36, 20, 1280),
    "gpt2-1558m": _gpt2("gpt2-1558m", 48, 25, 1600),
    # Zhang et al. 2024, "TinyLlama", table 1.
    "llama-1.1b": ModelConfig(
        preset="llama-1.1b",
        vocab_size=32_000,
        context_length=2048,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        hidden_size=2048,
        intermediate_size=5632,
        qk_norm=False,
        tie_embeddings=False,
        dropout=0.0,
    ),
    # SmolLM-135M, config.json of the published weights (2024).
    "llama-135m": ModelConfig(
        preset="llama-135m",
        vocab_size=49_152,
        context_length=2048,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        hidden_size=576,
        intermediate_size=1536,
        qk_norm=False,
        dropout=0.0,
    ),
    # Phi-1.5 (the same shape as Phi-1) and Phi-2, config.json of the published weights (2023).
    "phi-1.4b": _phi("phi-1.4b", 24, 2048, 0.5),
    "phi-2.8b": _phi("phi-2.8b", 32, 2560, 0.4),
}


def preset(name: str) -> ModelConfig:
    """The shape called `name`.

    Raises:
        InputError: no such preset; the nearest is named.
    """
    if name not in PRESETS:
        raise InputError(unknown_name(name, PRESETS, "preset"))
    return PRESETS[name]
