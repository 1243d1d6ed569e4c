"""How the next token is chosen: pure functions of logits `(B, V)`.

The filters come in the order and with the meaning of the logits processors of transformers:
repetition penalty, temperature, top-k, top-p, min-p. A token that is left out gets -inf.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yunque.config import GenerateConfig

LEFT_OUT = float("-inf")


def apply_repetition_penalty(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Make each row's `tokens` `(B, S)` less likely: positive logits / penalty, negative x penalty.

    A token counts once, however often it occurred.
    Source: Keskar et al. 2019, "CTRL", section 4.1.
    """
    occurred = logits.gather(1, tokens)
    lowered = torch.where(occurred < 0, occurred * penalty, occurred / penalty)
    return logits.scatter(1, tokens, lowered)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits; below 1 the distribution is sharper, above 1 flatter."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Leave out all tokens below the k-th best; ties with the k-th stay."""
    kth = logits.topk(min(k, logits.shape[-1])).values[..., -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, LEFT_OUT)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens whose probabilities add up to at least p; always the best one.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    rising, order = logits.sort(dim=-1)
    # Summed from the least likely: a token goes if it and all below it weigh at most 1 - p.
    drop = rising.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    drop[..., -1] = False
    return logits.masked_fill(drop.scatter(-1, order, drop), LEFT_OUT)


def keep_min_p(logits: Tensor, fraction: float) -> Tensor:
    """Leave out tokens less likely than `fraction` of the best token's probability.

    Source: Nguyen et al. 2024, "Min-p Sampling", section 3.
    """
    probabilities = logits.softmax(dim=-1)
    least = fraction * probabilities.amax(dim=-1, keepdim=True)  # (B, 1)
    return logits.masked_fill(probabilities < least, LEFT_OUT)


def next_token_probabilities(logits: Tensor, settings: GenerateConfig, history: Tensor) -> Tensor:
    """The distribution that the next token is drawn from, `(B, V)`.

    Args:
        logits: `(B, V)`, float32.
        settings: which filters apply; a temperature of 0 puts all on the best token.
        history: the tokens so far, prompt included, `(B, S)`; read by the repetition penalty.
    """
    if settings.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, history, settings.repetition_penalty)
    if settings.temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
        return torch.zeros_like(logits).scatter(-1, best, 1.0)
    if settings.temperature != 1:
        logits = apply_temperature(logits, settings.temperature)
    if settings.top_k > 0:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    if settings.min_p > 0:
        logits = keep_min_p(logits, settings.min_p)
    return logits.softmax(dim=-1)


def choose(
    logits: Tensor, settings: GenerateConfig, history: Tensor, generator: torch.Generator
) -> Tensor:
    """One token for each row, `(B,)`: drawn with `generator`, or the best at temperature 0."""
    if settings.temperature == 0:
        if settings.repetition_penalty != 1:
            logits = apply_repetition_penalty(logits, history, settings.repetition_penalty)
        return logits.argmax(dim=-1)
    probabilities = next_token_probabilities(logits, settings, history)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
