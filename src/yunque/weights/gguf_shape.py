"""The shape of a model under llama.cpp's keys, both ways; what llama.cpp cannot hold.

Mistral is the Llama architecture there. Llama 3's rotary scaling is a tensor, `rope_freqs.weight`,
by which the angles are divided; the numbers that it was made from are under a key of our own, for
other scalings can make the same tensor. "dynamic" scaling changes nothing up to the context
length, so the file does not mention it. Of dropout the format says nothing.

Source: the keys of the `gguf` package; the loaders of llama.cpp (llama-model.cpp).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yunque.config import ModelConfig
from yunque.errors import InputError, raise_all
from yunque.model.rotary import rotary_frequencies
from yunque.weights.families import checked
from yunque.weights.gguf_file import Content, read_tensor

ARCHITECTURES = {
    "gpt2": "gpt2",
    "phi": "phi2",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
ROPE_FACTORS = "rope_freqs.weight"
ROPE_NUMBERS = "yunque.rope.llama3"
"""Key of rope_factor, rope_slow, rope_fast and rope_original_length, which llama.cpp passes by."""
YARN_TURNS = (1.0, 32.0)  # rope_slow and rope_fast where the file does not say


def not_held(config: ModelConfig) -> list[str]:
    """Everything that llama.cpp would compute otherwise than the Decoder."""
    faults = []
    if 0 < config.sliding_window < config.context_length:
        faults.append(
            f"sliding_window is {config.sliding_window}, and llama.cpp looks at all tokens with "
            "this architecture. Up to that many tokens both are equal: in a copy of the model, "
            f"write {config.sliding_window} as max_position_embeddings in config.json, and convert "
            "that."
        )
    if config.rope_scaling == "llama3" and ARCHITECTURES[config.family] != "llama":
        faults.append(f"rope_scaling is llama3, which is for Llama and not for {config.family}.")
    usual = dataclasses.replace(config, rope_amplitude=0.0).resolved(1).rope_amplitude
    if config.rope_scaling == "yarn" and config.rope_amplitude != usual:
        faults.append(f"rope_amplitude is {config.rope_amplitude}, and only {usual} can be said.")
    if config.family == "phi" and config.tie_embeddings:
        faults.append("tie_embeddings is true, and llama.cpp's phi2 needs a head of its own.")
    return faults


def rope_factors(config: ModelConfig) -> Tensor:
    """By how much Llama 3's scaling divides each pair's angle, `(R/2,)`, float32."""
    plain = dataclasses.replace(config, rope_scaling="none")
    return rotary_frequencies(plain) / rotary_frequencies(config)


def rope_numbers(config: ModelConfig) -> tuple[float, float, float, int]:
    """What Llama 3's scaling is made from."""
    return config.rope_factor, config.rope_slow, config.rope_fast, config.rope_original_length


def add_shape(writer: Any, config: ModelConfig) -> None:
    """Write the model's shape under the keys of its architecture."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    if config.norm == "layernorm":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps)
    if config.positions == "rotary":
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.rotary_size)
        writer.add_key_length(config.head_size)
        writer.add_value_length(config.head_size)
    if config.rope_scaling in ("linear", "yarn"):
        prefix = f"{writer.arch}.rope.scaling"
        writer.add_string(f"{prefix}.type", config.rope_scaling)
        writer.add_float32(f"{prefix}.factor", config.rope_factor)
    if config.rope_scaling == "llama3":
        writer.add_array(ROPE_NUMBERS, [float(value) for value in rope_numbers(config)])
    if config.rope_scaling == "yarn":
        writer.add_uint32(f"{prefix}.original_context_length", config.rope_original_length)
        if (config.rope_slow, config.rope_fast) != YARN_TURNS:
            writer.add_float32(f"{prefix}.yarn_beta_slow", config.rope_slow)
            writer.add_float32(f"{prefix}.yarn_beta_fast", config.rope_fast)


# Our field → the key behind the architecture's name.
_KEYS = {
    "context_length": "context_length",
    "hidden_size": "embedding_length",
    "num_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_heads": "attention.head_count",
}
_EARLY = {"norm": "layernorm", "mlp": "gelu", "bias": True, "qkv_bias": True}
_FIXED: dict[str, dict[str, Any]] = {
    "gpt2": _EARLY | {"positions": "learned"},
    "phi2": _EARLY | {"head_bias": True, "parallel_residual": True},
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
}
# Keys that change nothing in what the Decoder computes.
_SILENT = {"tensor_data_layout"}


class Keys:
    """The keys of an architecture, taken one by one; what is wrong with them is gathered."""

    def __init__(self, architecture: str, metadata: Mapping[str, Any]) -> None:
        self.architecture = architecture
        self.left = {
            key.removeprefix(f"{architecture}."): value
            for key, value in metadata.items()
            if key.startswith(f"{architecture}.")
        }
        self.faults: list[str] = []

    def take(self, key: str, default: Any) -> Any:
        """The value of a key, of the type of `default`; a type instead means that it must be."""
        must = isinstance(default, type)
        kind = default if must else type(default)
        value = self.left.pop(key, None if must else default)
        if type(value) is kind:
            return decimal(value) if isinstance(value, float) else value
        said = "missing" if value is None else f"{value!r}, expected {kind.__name__}"
        self.faults.append(f"{self.architecture}.{key} is {said}.")
        return kind(1) if must else default


def shape_of(content: Content) -> ModelConfig:
    """The Decoder's shape from the metadata.

    Raises:
        InputError: an architecture that is not read, keys that are missing or wrong, or that ask
            for what the Decoder does not compute, all together.
    """
    file, metadata = str(content.file), content.metadata
    architecture = str(metadata.get("general.architecture"))
    if architecture not in _FIXED:
        raise InputError(
            f"{file}: general.architecture is {architecture!r}; this reader knows "
            f"{', '.join(_FIXED)}."
        )
    keys = Keys(architecture, metadata)
    values: dict[str, Any] = {"preset": "", "qk_norm": False, "dropout": 0.0}
    values |= _FIXED[architecture] | {ours: keys.take(key, int) for ours, key in _KEYS.items()}
    values["num_kv_heads"] = keys.take("attention.head_count_kv", values["num_heads"])
    rms = "" if values.get("norm") == "layernorm" else "rms_"
    values["norm_eps"] = keys.take(f"attention.layer_norm_{rms}epsilon", float)
    values["tie_embeddings"] = "output.weight" not in content.tensors
    tokens = metadata.get("tokenizer.ggml.tokens")
    values["vocab_size"] = keys.take("vocab_size", len(tokens) if isinstance(tokens, list) else 0)
    if values["num_layers"] > len(content.tensors):  # before anything is made for each of them
        keys.faults.append(
            f"{architecture}.block_count is {values['num_layers']}, with "
            f"{len(content.tensors)} tensors."
        )
    if architecture != "gpt2":
        values |= rotary_values(keys, values["hidden_size"] // max(1, values["num_heads"]))
    keys.faults += [
        f"{architecture}.{key} is "
        f"{f'{len(value)} values' if isinstance(value, list) else repr(value)}, and only its "
        "absence is supported."
        for key, value in keys.left.items()
        if key not in _SILENT
    ]
    raise_all(f"{file}: the Decoder cannot hold this model", keys.faults)
    config = ModelConfig(**values)
    if ROPE_FACTORS in content.tensors:
        config = llama3_scaling(checked(config, file), content)
    return checked(config, file)


def rotary_values(keys: Keys, quotient: int) -> dict[str, Any]:
    """Our fields for rotary positions.

    Args:
        quotient: the size of a head where the file does not say.
    """
    size = keys.take("attention.key_length", quotient)
    if keys.take("attention.value_length", quotient) != size:
        keys.faults.append(f"{keys.architecture}.attention.value_length is not key_length.")
    rotated = keys.take("rope.dimension_count", size)
    if (rotated != size and keys.architecture != "phi2") or not 0 < rotated <= size:
        keys.faults.append(
            f"{keys.architecture}.rope.dimension_count is {rotated}, expected {size}."
        )
        rotated = size
    fraction = rotated / max(1, size)
    if int(size * fraction) < rotated:
        fraction = math.nextafter(fraction, 2)
    values = {
        "head_dim": 0 if size == quotient else size,
        "rotary_fraction": fraction,
        "rope_theta": keys.take("rope.freq_base", 10_000.0),
    }
    scaling = keys.take("rope.scaling.type", "none")
    if scaling not in ("none", "linear", "yarn"):
        keys.faults.append(
            f"{keys.architecture}.rope.scaling.type is {scaling!r}, and none, linear and yarn are "
            "supported."
        )
        return values
    if scaling != "none":
        values |= {"rope_scaling": scaling, "rope_factor": keys.take("rope.scaling.factor", float)}
    if scaling == "yarn":
        values["rope_original_length"] = keys.take("rope.scaling.original_context_length", int)
        for end, usual in zip(("slow", "fast"), YARN_TURNS, strict=True):
            values[f"rope_{end}"] = keys.take(f"rope.scaling.yarn_beta_{end}", usual)
    return values


def llama3_scaling(config: ModelConfig, content: Content) -> ModelConfig:
    """The shape with Llama 3's rotary scaling, as our key says, and the factors confirm.

    Other programs' files hold the factors alone, and it is found again from these. The largest is
    rope_factor; the lengths that models were made longer from are powers of two; all published
    ones have 1 and 4 turns.

    Raises:
        InputError: the factors are no such scaling.
    """
    entry = content.tensors[ROPE_FACTORS]
    where = f"{content.file}: {ROPE_FACTORS}"
    if entry.shape != (config.rotary_size // 2,) or entry.kind != "F32":
        raise InputError(
            f"{where} is {list(entry.shape)} in {entry.kind}, expected "
            f"[{config.rotary_size // 2}] in F32."
        )
    factors = read_tensor(content, ROPE_FACTORS)
    largest = decimal(factors.max().item())
    numbers = content.metadata.get(ROPE_NUMBERS)
    if numbers is None:
        powers = range(4, 24) if largest > 1 else ()
        tried = [(float(round(largest, 3)), 0.0, 0.0, 2**power) for power in powers]  # 0: as usual
    else:
        tried = [stated_numbers(where, numbers)]
    for factor, slow, fast, length in tried:
        scaled = dataclasses.replace(
            config,
            rope_scaling="llama3",
            rope_factor=factor,
            rope_slow=slow,
            rope_fast=fast,
            rope_original_length=length,
        ).resolved(config.vocab_size)
        if torch.allclose(rope_factors(scaled), factors, rtol=1e-5, atol=0):
            return scaled
    raise InputError(
        f"{where} holds factors that are not those of Llama 3's rotary scaling (from "
        f"{factors.min():g} to {largest:g}), and others are not supported."
    )


def stated_numbers(where: str, numbers: Any) -> tuple[float, float, float, int]:
    """`rope_numbers` as the file has them.

    Raises:
        InputError: they are no four positive numbers.
    """
    values = numbers if isinstance(numbers, list) else []
    floats = all(isinstance(value, float) and 0 < value < math.inf for value in values)
    if len(values) != 4 or not floats or not values[3].is_integer():
        raise InputError(
            f"{where}: {ROPE_NUMBERS} is {str(numbers)[:80]}, expected four positive numbers: "
            "factor, slow and fast turns, and the original length, a whole number."
        )
    factor, slow, fast, length = map(decimal, values)
    return factor, slow, fast, int(length)


def decimal(value: float) -> float:
    """The shortest decimal number that the format's float32 stands for: 1e-05, not 9.99…e-06."""
    return float(str(np.float32(value)))
