"""Beam search against transformers: the same texts, seed by seed."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from reference_models import pair

from yunque.config import GenerateConfig
from yunque.generate.decode import Generation, generate

VOCAB = 43
SEEDS = 3
NEW = 10


@cache
def models(family: str, seed: int) -> tuple:
    # A moderate spread: texts end at different lengths, and beams overtake one another.
    return pair(family, vocab_size=VOCAB, std=0.25, seed=seed)


def prompts_of(seed: int, number: int = 3, length: int = 6) -> list[list[int]]:
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randint(0, VOCAB, (number, length), generator=generator).tolist()


def both(
    family: str, seed: int, settings: GenerateConfig, end_ids: list[int]
) -> tuple[Generation, list[list[int]]]:
    """(ours, transformers' new tokens, each cut before its end token)."""
    model, reference = models(family, seed)
    prompts = prompts_of(seed)
    theirs = reference.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(len(prompts), len(prompts[0]), dtype=torch.int64),
        num_beams=settings.beams,
        num_return_sequences=settings.samples,
        length_penalty=settings.length_penalty,
        repetition_penalty=settings.repetition_penalty,
        do_sample=False,
        early_stopping=False,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=end_ids or None,
        pad_token_id=end_ids[0] if end_ids else 0,
    )[:, len(prompts[0]) :].tolist()
    expected = []
    for row in theirs:
        ends = [place for place, token in enumerate(row) if token in end_ids]
        expected.append(row[: ends[0]] if ends else row)
    return generate(model, prompts, settings, end_ids), expected


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_beams_equal_transformers(family: str, beams: int, length_penalty: float) -> None:
    settings = GenerateConfig(
        max_new_tokens=NEW, beams=beams, length_penalty=length_penalty, samples=2
    )
    reasons = []
    for seed in range(SEEDS):
        # End tokens that occur: two that plain decoding of this model writes early.
        plain = generate(models(family, seed)[0], prompts_of(seed), settings, [])
        end_ids = sorted({plain.token_ids[0][2], plain.token_ids[2][-3]})
        ours, expected = both(family, seed, settings, end_ids)
        assert ours.token_ids == expected, f"seed {seed}"
        reasons += ours.stopped
    assert "end" in reasons  # texts that ended by themselves were among them


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_all_beams_come_back_best_first(family: str) -> None:
    settings = GenerateConfig(max_new_tokens=NEW, beams=4, samples=4)
    for seed in range(SEEDS):
        ours, expected = both(family, seed, settings, [7])
        assert ours.token_ids == expected
        assert len({tuple(ids) for ids in ours.token_ids[:4]}) == 4


def test_beams_with_repetition_penalty_equal_transformers() -> None:
    for penalty in (1.4, 0.8):
        settings = GenerateConfig(max_new_tokens=NEW, beams=3, repetition_penalty=penalty)
        for seed in range(SEEDS):
            ours, expected = both("gpt2", seed, settings, [7])
            assert ours.token_ids == expected


@pytest.mark.parametrize("family", ["gpt2", "phi", "llama", "mistral"])
def test_greedy_equals_transformers(family: str) -> None:
    reasons = []
    for seed in range(SEEDS):
        greedy = GenerateConfig(max_new_tokens=NEW, temperature=0.0)
        plain = generate(models(family, seed)[0], prompts_of(seed), greedy, [])
        ours, expected = both(family, seed, greedy, [plain.token_ids[0][4]])
        assert ours.token_ids == expected
        reasons += ours.stopped
    assert {"end", "length"} == set(reasons)


def test_ragged_beams_equal_beams_alone_with_and_without_cache() -> None:
    model, _ = models("llama", 0)
    prompts = [[1], [2, 3, 4, 5, 6, 7, 8], [9, 10, 11]]
    settings = GenerateConfig(max_new_tokens=NEW, beams=3, samples=2)
    together = generate(model, prompts, settings, [7])
    alone = [generate(model, [prompt], settings, [7]).token_ids for prompt in prompts]
    assert together.token_ids == [ids for rows in alone for ids in rows]
    uncached = generate(model, prompts, settings, [7], use_cache=False)
    assert uncached.token_ids == together.token_ids


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_beams_across_a_sliding_window(family: str) -> None:
    model, _ = pair(family, vocab_size=VOCAB, context_length=10, std=0.25)
    prompts = [[1, 2, 3, 4, 5, 6], [7, 8]]
    settings = GenerateConfig(max_new_tokens=24, beams=3)
    cached = generate(model, prompts, settings, [])
    uncached = generate(model, prompts, settings, [], use_cache=False)
    assert cached.window_slid
    assert cached.token_ids == uncached.token_ids


def test_no_better_text_exists_than_a_full_width_beam_finds() -> None:
    """With as many beams as texts of one token, two tokens are searched exhaustively."""
    model, _ = pair("gpt2", vocab_size=9, std=0.25, seed=2)
    with torch.no_grad():
        first = model.head(model(torch.tensor([[4, 1]])))[0, -1].log_softmax(-1)
        pairs = torch.tensor([[4, 1, token] for token in range(9)])
        second = model.head(model(pairs))[:, -1].log_softmax(-1)
    totals = first[:, None] + second  # (9, 9)
    best = divmod(int(totals.argmax()), 9)
    found = generate(model, [[4, 1]], GenerateConfig(max_new_tokens=2, beams=9), [])
    assert found.token_ids == [list(best)]
