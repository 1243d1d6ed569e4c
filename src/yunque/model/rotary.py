"""Rotary positions: the frequencies, also those of models made longer, their tables, the turn.

R is the rotated part of a head, R/2 the number of its pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from yunque.config import ModelConfig


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each `(context, R)`, float32.

    The two halves of what is rotated form the pairs, as in Llama's published weights.
    Source: Su et al. 2021, "RoFormer", section 3.2.2.
    """
    # On the CPU by name: the tables are real numbers even where the weights are still on "meta".
    with torch.device("cpu"):
        places = torch.arange(config.context_length, dtype=torch.float32)
        angles = torch.outer(places, rotary_frequencies(config))
    angles = torch.cat((angles, angles), dim=-1)  # (context, R)
    cos, sin = angles.cos(), angles.sin()
    if config.rope_scaling == "yarn":
        return cos * config.rope_amplitude, sin * config.rope_amplitude
    return cos, sin


def rotary_frequencies(config: ModelConfig) -> Tensor:
    """Angle of each pair from one position to the next, in radians, `(R/2,)`, float32.

    `dynamic` changes them beyond the context only, which no input of ours reaches.

    Sources: linear: Chen et al. 2023, "Position Interpolation"; llama3: Llama 3.1's reference
    code; yarn: Peng et al. 2023, "YaRN", section 3.2. Each is worked out in float32 in the order
    that transformers has, because a far position multiplies the roundings.
    """
    size, factor = config.rotary_size, config.rope_factor
    powers = config.rope_theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    plain = 1.0 / powers
    if config.rope_scaling == "linear":
        return plain / factor
    if config.rope_scaling == "llama3":
        length, slow, fast = config.rope_original_length, config.rope_slow, config.rope_fast
        wave = 2 * math.pi / plain  # tokens of a whole turn
        share = (length / wave - slow) / (fast - slow)
        between = (1 - share) * plain / factor + share * plain
        ends = torch.where(wave > length / slow, plain / factor, plain)
        return torch.where((wave < length / fast) | (wave > length / slow), ends, between)
    if config.rope_scaling == "yarn":
        first = max(math.floor(yarn_pair(config, config.rope_fast)), 0)
        last = min(math.ceil(yarn_pair(config, config.rope_slow)), size - 1)
        wide = last - first if last != first else 0.001
        ramp = ((torch.arange(size // 2, dtype=torch.float32) - first) / wide).clamp(0, 1)
        kept = 1 - ramp
        return 1.0 / (factor * powers) * (1 - kept) + plain * kept
    return plain


def yarn_pair(config: ModelConfig, turns: float) -> float:
    """The pair, as a fraction, that turns so many times within the original length."""
    length = config.rope_original_length
    return (
        config.rotary_size
        * math.log(length / (turns * 2 * math.pi))
        / (2 * math.log(config.rope_theta))
    )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of `x` `(B, H, T, D)` by its position's angle; tables broadcast to x.

    Where the tables are narrower than a head, only its beginning is turned.
    """
    size = cos.shape[-1]
    if size < x.shape[-1]:
        return torch.cat((rotate(x[..., :size], cos, sin), x[..., size:]), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
