"""The filters against transformers' logits processors, and the draws against the distribution."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from yunque.config import GenerateConfig
from yunque.generate.sampling import (
    apply_repetition_penalty,
    choose,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_token_probabilities,
)

TOLERANCE = 1e-6  # absolute, on probabilities
OFF = GenerateConfig(temperature=1.0)


def logits_and_history(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, 67, generator=generator)
    logits[1] = logits[1].round()  # many ties
    return logits, torch.randint(0, 67, (5, 9), generator=generator)


def reference(
    logits: torch.Tensor, history: torch.Tensor, settings: GenerateConfig
) -> torch.Tensor:
    """transformers' processors in the order in which `generate(do_sample=True)` builds them."""
    import transformers as t

    processors = t.LogitsProcessorList()
    if settings.repetition_penalty != 1:
        processors.append(t.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.temperature != 1:
        processors.append(t.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        processors.append(t.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        processors.append(t.TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        processors.append(t.MinPLogitsWarper(settings.min_p))
    return processors(history, logits.clone()).softmax(-1)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p", "penalty"),
    [
        *itertools.product([0.3, 1.0, 1.7], [0, 7], [1.0, 0.8], [0.0, 0.05], [1.0, 1.3]),
        (1.0, 1, 1.0, 0.0, 1.0),
        (1.0, 500, 1.0, 0.0, 1.0),
        (1.0, 0, 1e-6, 0.0, 1.0),
        (1.0, 0, 0.999, 0.0, 0.7),
        (1.0, 0, 1.0, 1.0, 1.0),
    ],
)
def test_distribution_equals_transformers(
    temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    settings = GenerateConfig(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
    )
    for seed in range(4):
        logits, history = logits_and_history(seed)
        ours = next_token_probabilities(logits, settings, history)
        expected = reference(logits, history, settings)
        assert torch.equal(ours > 0, expected > 0)  # the same tokens are left in
        torch.testing.assert_close(ours, expected, rtol=0, atol=TOLERANCE)


def test_filters_by_hand() -> None:
    left_out = -math.inf
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    a, b, c, d = logits[0].tolist()
    assert keep_top_k(logits, 2).tolist() == [[a, b, left_out, left_out]]
    assert keep_top_k(logits, 3).tolist() == [[a, b, c, d]]  # a tie with the third stays
    assert keep_top_p(logits, 0.75).tolist() == [[a, b, left_out, left_out]]
    assert keep_top_p(logits, 0.6).tolist() == [[a, b, left_out, left_out]]
    assert keep_top_p(logits, 0.01).tolist() == [[a, left_out, left_out, left_out]]
    assert keep_min_p(logits, 0.4).tolist() == [[a, b, left_out, left_out]]
    assert keep_min_p(logits, 1.0).tolist() == [[a, left_out, left_out, left_out]]
    penalised = apply_repetition_penalty(
        torch.tensor([[3.0, -3.0, 1.0]]), torch.tensor([[0, 1, 0]]), 2.0
    )
    assert penalised.tolist() == [[1.5, -6.0, 1.0]]


def test_filters_leave_their_input_alone() -> None:
    logits, history = logits_and_history(0)
    before = logits.clone()
    next_token_probabilities(
        logits, GenerateConfig(1, 0.7, 7, 0.8, 0.1, repetition_penalty=1.5), history
    )
    assert torch.equal(logits, before)


def test_temperature_zero_is_the_best_token_after_the_penalty() -> None:
    logits, history = torch.tensor([[2.0, 1.9, 0.0]]), torch.tensor([[0]])
    generator = torch.Generator().manual_seed(0)
    greedy = dataclasses.replace(OFF, temperature=0.0)
    assert choose(logits, greedy, history, generator).tolist() == [0]
    punished = dataclasses.replace(greedy, repetition_penalty=1.5)
    assert choose(logits, punished, history, generator).tolist() == [1]
    assert next_token_probabilities(logits, punished, history).tolist() == [[0.0, 1.0, 0.0]]


def test_draws_follow_the_distribution_and_the_seed() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0, -4.0]])
    settings = dataclasses.replace(OFF, temperature=0.8, top_k=3)
    history = torch.zeros(1, 1, dtype=torch.int64)
    expected = next_token_probabilities(logits, settings, history)[0]
    many = logits.expand(40_000, -1)
    drawn = choose(many, settings, history.expand(40_000, -1), torch.Generator().manual_seed(5))
    shares = drawn.bincount(minlength=5) / 40_000
    assert shares[[2, 4]].tolist() == [0.0, 0.0]
    # Four standard errors of a share of 40,000 draws are at most 4 · 0.5 / 200.
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.01)
    again = choose(many, settings, history.expand(40_000, -1), torch.Generator().manual_seed(5))
    assert torch.equal(drawn, again)
